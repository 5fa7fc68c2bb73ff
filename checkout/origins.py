"""Web origins as merchants name them: who may frame a checkout, and where it leads back to. Pure.

An origin ends up in a `frame-ancestors` header and as the target of `postMessage`, so only the
plain form `scheme://host[:port]` passes; everything that could widen it is refused.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from billing import errors

_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_ORIGIN = re.compile(r"(?P<scheme>https?)://(?P<host>[^/:?#@\[\]]+)(:(?P<port>[0-9]{1,5}))?/?")
_PLAIN_PORTS = {"http": "80", "https": "443"}


def exact(text: str, *, param: str = "origin_url") -> str:
    """The origin of `text` in its plain form: small letters, no default port, no slash.

    Raises:
        billing.errors.Invalid: not http(s), a path, user information, a wildcard, a `;`, a space,
            an address in brackets, or any character outside of letters, digits, `.`, `-`, `_`.
    """
    refusal = errors.Invalid(
        f"`{param}` must be one origin such as https://app.example.com: http or https, a host, and "
        "at most a port.",
        param=param,
    )
    if len(text) > 255:
        raise refusal
    match = _ORIGIN.fullmatch(text.lower()) if text.isascii() else None
    if match is None or not _HOST.fullmatch(match["host"]):
        raise refusal
    port = match["port"]
    if port is not None and not 1 <= int(port) <= 65535:
        raise refusal
    if port is None or str(int(port)) == _PLAIN_PORTS[match["scheme"]]:
        return f"{match['scheme']}://{match['host']}"
    return f"{match['scheme']}://{match['host']}:{int(port)}"


def within(text: str, origin: str, *, param: str = "return_url") -> str:
    """A whole address on `origin`, as it was given.

    Raises:
        billing.errors.Invalid: another origin, user information, a backslash, a control character,
            or no absolute http(s) address.
    """
    refusal = errors.Invalid(
        f"`{param}` must be an address on {origin}, starting with {origin}/.", param=param
    )
    if not text.isprintable() or " " in text or "\\" in text or len(text) > 2000:
        raise refusal
    try:
        parts = urlsplit(text)
        if parts.scheme not in ("http", "https") or "@" in parts.netloc:
            raise refusal
        same = exact(f"{parts.scheme}://{parts.netloc}", param=param) == origin
    except ValueError as error:
        raise refusal from error
    if not same:
        raise refusal
    return text
