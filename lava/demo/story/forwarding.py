"""The gateway of the story: the local AI provider as rows of each merchant, with a key, and one
forward token on the customer that `up` names; so that a fresh `up` forwards its first call.

Called by `manage.py demo` where it is told the provider's address, which moves with `up --port`.
"""

from __future__ import annotations

from decimal import Decimal

from django.db import transaction

from billing import ids
from billing.models import Connection, Merchant
from lava.demo.story import cast
from lava.demo.story.stage import Stage
from meters.gateway import keyring, spendkeys
from meters.models import ForwardToken, ModelPrice, Provider

# Slug, name, base path, dialect, slot of the key, name in the price library.
LOCAL = (
    ("local", "Local provider", "/v1", "openai", "authorization", "openai"),
    ("local-anthropic", "Local provider (Anthropic)", "/v1", "anthropic", "x-api-key", "anthropic"),
    ("local-gemini", "Local provider (Gemini)", "/v1beta", "google", "x-goog-api-key", "google"),
)
TOKEN = "Demo token"
# It takes any key.
_KEY = "sk-local-provider-demo"


@transaction.atomic
def open_gateway(of: Stage, connection: Connection, *, provider_url: str, kept: str) -> str:
    """Let a merchant's gateway reach the local provider; gives the text of a forward token.

    Done again, it changes only what does not fit any more: another port, a token that is lost.
    """
    merchant = of.merchant
    for slug, name, path, dialect, slot, prices in LOCAL:
        _provide(merchant, slug, name, f"{provider_url}{path}", dialect, slot, prices)
    for model, rates in of.business.model_prices:
        if not ModelPrice.objects.of(merchant).filter(model=model).exists():
            keyring.set_price(
                merchant,
                provider="*",
                model=model,
                rates={name: Decimal(rate) for name, rate in rates},
                actor=cast.OWNER_EMAIL,
                now=merchant.now(),
            )
    return _token(of, connection, kept=kept)


def _provide(
    merchant: Merchant, slug: str, name: str, base: str, dialect: str, slot: str, prices: str
) -> None:
    now = merchant.now()
    found = Provider.objects.of(merchant).filter(slug=slug, archived_at=None).first()
    if found is not None:
        if found.row.base == base:
            return
        # A key belongs to an address: another port is another row.
        keyring.archive_provider(found, now=now)
    keyring.add_provider(
        merchant, slug=slug, name=name, base_url=base, dialect=dialect, slot=slot, prices=prices,
        private=True, now=now,
    )  # fmt: skip
    keyring.set_key(merchant, provider=slug, key=_KEY, actor=cast.OWNER_EMAIL, now=now)


def _token(of: Stage, connection: Connection, *, kept: str) -> str:
    merchant = of.merchant
    mine = ForwardToken.objects.of(merchant).filter(revoked_at=None)
    if kept and mine.filter(secret_hash=ids.secret_hash(kept)).exists():
        return kept
    now = merchant.now()
    for lost in mine.filter(name=TOKEN):
        spendkeys.revoke(lost, now=now)
    _, text = spendkeys.make(
        merchant,
        name=TOKEN,
        now=now,
        connection=connection,
        meter=of.meters[of.business.gateway_meter],
        limits=spendkeys.Limits(
            spend_limit=Decimal(5), spend_cycle=ForwardToken.Cycle.DAILY, rpm=600
        ),
        actor=cast.OWNER_EMAIL,
    )
    return text
