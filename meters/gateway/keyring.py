"""A merchant's settings of the gateway: providers of their own, keys, prices of models.

The only writer of `Provider`, `ProviderKey` and `ModelPrice`; called by the console and by demo
data. A key is sealed before it is stored, bound to the origin it was entered for, and never shown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from urllib.parse import urlsplit

from django.db import IntegrityError, transaction

from billing import addresses, errors, money, secrets
from billing.models import Merchant
from meters.gateway import providers
from meters.gateway.models import ModelPrice, Provider, ProviderKey

_SLUG = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
_HOST = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*")
RATES = ("input", "output", "cache_read", "cache_write", "image", "second", "character")
PORTS = {"https": 443, "http": 80}


def row(merchant: Merchant, slug: str) -> providers.Provider:
    """A provider that the merchant may call, of their own or of the table.

    Raises:
        billing.errors.NotFound: there is none of that slug.
    """
    own = Provider.objects.of(merchant).filter(archived_at=None, slug=slug).first()
    found: providers.Provider | None = own.row if own else providers.BY_SLUG.get(slug.lower())
    if found is None:
        raise errors.NotFound(f"There is no provider {slug!r}.", param="provider")
    return found


def rows(merchant: Merchant) -> list[providers.Provider]:
    """Every provider that the merchant may call, their own first."""
    own = Provider.objects.of(merchant).filter(archived_at=None).order_by("name")
    return [item.row for item in own] + list(providers.TABLE)


def add_provider(
    merchant: Merchant,
    *,
    slug: str,
    name: str,
    base_url: str,
    now: datetime,
    dialect: str = "openai",
    slot: str = providers.BEARER,
    prices: str = "",
    asks_usage: bool = True,
    private: bool = False,
    long_running: bool = False,
) -> Provider:
    """Add a provider of the merchant's own, e.g. their vLLM at `https://llm.example.com/v1`.

    `private`: it lies in the merchant's own network; only there plain http is taken.

    Raises:
        billing.errors.Invalid: naming the field.
        billing.errors.Conflict: the slug is taken.
    """
    slug = slug.strip().lower()
    if not _SLUG.fullmatch(slug) or slug in providers.BY_SLUG:
        raise errors.Invalid(
            "Use small letters, digits and -, and no name of the table.", param="slug"
        )
    if not name.strip():
        raise errors.Invalid("Write a name.", param="name")
    for value, options, param in (
        (dialect, providers.DIALECTS, "dialect"),
        (slot, tuple(item for item in providers.SLOTS if item != "key"), "slot"),
    ):
        if value not in options:
            raise errors.Invalid(f"Choose one of {', '.join(options)}.", param=param)
    scheme, host, port, path = _base(base_url, private=private)
    made = Provider(
        merchant=merchant, slug=slug, name=name.strip()[:80], scheme=scheme, host=host, port=port,
        path=path, dialect=dialect, slot=slot, prices=prices, asks_usage=asks_usage,
        private=private, long_running=long_running, created_at=now,
    )  # fmt: skip
    try:
        with transaction.atomic():
            made.save()
    except IntegrityError as error:
        raise errors.Conflict(
            f"There is a provider {slug!r} already.", code="slug_taken", param="slug"
        ) from error
    return made


def _base(text: str, *, private: bool) -> tuple[str, str, int, str]:
    """Scheme, host, port and path prefix of a base address."""
    refused = errors.Invalid(
        "Write an address such as https://llm.example.com/v1: plain name, no user, no query.",
        param="base_url",
    )
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError as error:
        raise refused from error
    scheme, host, path = parts.scheme.lower(), (parts.hostname or "").lower(), parts.path
    path = path.rstrip("/")
    if scheme not in PORTS or parts.username or parts.password or parts.query or parts.fragment:
        raise refused
    if scheme == "http" and not private:
        raise errors.Invalid(
            "Plain http is taken only within your own network: mark the provider as private.",
            param="base_url",
        )
    literal = re.fullmatch(r"\d+\.\d+\.\d+\.\d+", host) is not None
    if not _HOST.fullmatch(host) or not _PATH.fullmatch(path) or len(path) > 200:
        raise refused
    if any(part in (".", "..") for part in path.split("/")):
        raise refused
    if literal and not (private and addresses.may_connect(host, private=True)):
        raise errors.Invalid("This address may not be reached.", param="base_url")
    if not literal and re.fullmatch(r"[0-9.]+|0x[0-9a-f]+", host):
        raise refused
    return scheme, host, port or PORTS[scheme], path or "/"


def archive_provider(provider: Provider, *, now: datetime) -> Provider:
    """Stop calling a provider from the next call on; its key is revoked with it."""
    with transaction.atomic():
        Provider.objects.filter(pk=provider.pk, archived_at=None).update(archived_at=now)
        ProviderKey.objects.filter(
            merchant=provider.merchant_id, provider=provider.slug, revoked_at=None
        ).update(revoked_at=now)
    provider.refresh_from_db()
    return provider


def set_key(
    merchant: Merchant, *, provider: str, key: str, actor: str, now: datetime
) -> ProviderKey:
    """Store the merchant's key at a provider, in place of the one before it.

    Raises:
        billing.errors.NotFound: no such provider.
        billing.errors.Invalid: no key, or one that no header can carry.
    """
    found = row(merchant, provider)
    key = key.strip()
    if not key or len(key) > 4096 or not key.isascii() or not key.isprintable() or " " in key:
        raise errors.Invalid("Paste the key as the provider shows it.", param="key")
    with transaction.atomic():
        ProviderKey.objects.of(merchant).filter(provider=found.slug, revoked_at=None).update(
            revoked_at=now
        )
        made = ProviderKey(
            merchant=merchant,
            provider=found.slug,
            origin=found.origin,
            sealed=secrets.seal(key),
            last4=secrets.last4(key),
            created_by=actor,
            created_at=now,
        )
        made.save()
    return made


def revoke_key(key: ProviderKey, *, now: datetime) -> ProviderKey:
    """Stop using a key from the next call on."""
    ProviderKey.objects.filter(pk=key.pk, revoked_at=None).update(revoked_at=now)
    key.refresh_from_db()
    return key


def set_price(
    merchant: Merchant,
    *,
    provider: str,
    model: str,
    rates: Mapping[str, Decimal],
    actor: str,
    now: datetime,
    valid_from: datetime | None = None,
) -> ModelPrice:
    """Say what a model costs the merchant from an instant on; rates by name, as `RATES`.

    Raises:
        billing.errors.Invalid: no model, no rate, or a rate that is none.
        billing.errors.NotFound: no such provider.
        billing.errors.Conflict: a price of that model begins at that very instant.
    """
    slug = provider if provider == "*" else row(merchant, provider).slug
    if not model.strip() or len(model) > 120 or not model.isprintable():
        raise errors.Invalid("Name the model; * stands for any characters.", param="model")
    if not rates or not set(rates) <= set(RATES):
        raise errors.Invalid(f"Give rates of: {', '.join(RATES)}.", param="rates")
    for name, rate in rates.items():
        if not rate.is_finite() or not 0 <= rate < 10**12 or money.round_fee(rate) != rate:
            raise errors.Invalid("Give a rate of 0 or more with at most 10 decimals.", param=name)
    made = ModelPrice(
        merchant=merchant,
        provider=slug,
        model=model.strip(),
        valid_from=valid_from or now,
        created_by=actor,
        created_at=now,
        **{f"{name}_rate": rate for name, rate in rates.items()},
    )
    try:
        with transaction.atomic():
            made.save()
    except IntegrityError as error:
        raise errors.Conflict(
            "A price of this model begins at this instant already.", param="valid_from"
        ) from error
    return made


def remove_price(price: ModelPrice) -> None:
    """Take a price away: from the next call on the next best counts. What was computed with it
    keeps its own copy of the rates (`RequestCost`)."""
    ModelPrice.objects.filter(pk=price.pk).delete()
