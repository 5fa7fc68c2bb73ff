"""Secrets of others that must be sent again (provider keys, card network keys), sealed at rest.

Called by whoever stores such a secret. The key comes from `settings.SECRET_KEY`, so a dump of the
database alone opens nothing; keys of `settings.SECRET_KEY_FALLBACKS` still open what they sealed,
and `reseal` moves a secret to the first key. What only has to be recognised is hashed instead
(`billing.ids.secret_hash`).
"""

from __future__ import annotations

import base64
import functools

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

from billing import errors

# Part of the key's derivation: a secret sealed here is opened by nothing else of SECRET_KEY.
_PURPOSE = b"lava: secrets at rest, version 1"


def seal(secret: bytes | str) -> bytes:
    """Encrypt a secret for storage, authenticated, under the key of `SECRET_KEY`."""
    return _box().encrypt(secret.encode() if isinstance(secret, str) else secret)


def open(sealed: bytes | memoryview) -> str:
    """The text that was sealed.

    Raises:
        billing.errors.Unavailable: changed, cut, or sealed under a key that is no longer set.
    """
    try:
        return _box().decrypt(bytes(sealed)).decode()
    except InvalidToken as error:
        raise _unreadable() from error


def reseal(sealed: bytes | memoryview) -> bytes:
    """The same secret under the first key: run over stored secrets after a new `SECRET_KEY`.

    Raises:
        billing.errors.Unavailable: as `open`.
    """
    try:
        return _box().rotate(bytes(sealed))
    except InvalidToken as error:
        raise _unreadable() from error


def last4(secret: str) -> str:
    """The end of a secret, enough to know it again; nothing of a short one."""
    return secret[-4:] if len(secret) >= 12 else ""


def _box() -> MultiFernet:
    return _boxes(settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)


@functools.lru_cache(maxsize=8)
def _boxes(*keys: str) -> MultiFernet:
    """The boxes of the keys, the one that seals first."""
    return MultiFernet([Fernet(_derive(key)) for key in keys])


def _derive(key: str) -> bytes:
    kdf = HKDF(algorithm=SHA256(), length=32, salt=None, info=_PURPOSE)
    return base64.urlsafe_b64encode(kdf.derive(key.encode()))


def _unreadable() -> errors.Unavailable:
    return errors.Unavailable(
        "A stored secret cannot be opened: was SECRET_KEY changed without SECRET_KEY_FALLBACKS?",
        code="secret_unreadable",
    )
