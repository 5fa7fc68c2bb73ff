"""The way to the network: whose keys, the call itself, lists by page; errors turned into ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import stripe
from django.conf import settings
from stripe import StripeClient

from billing import errors, secrets
from billing.models import CardAccount, Merchant
from billing.stripe.shapes import field, text

T = TypeVar("T")

# Pinned: answers keep their shape whatever the account's default is.
API_VERSION = "2026-10-28.endive"
TIMEOUT_S = 20


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """What opens one account at the network. Never printed: it holds a secret."""

    secret_key: str
    publishable_key: str
    # The account under Stripe Connect to act for; empty: the key's own.
    account: str = ""


@lru_cache(maxsize=256)
def _client(api_key: str, base: str, account: str) -> StripeClient:
    return StripeClient(
        api_key,
        stripe_account=account or None,
        stripe_version=API_VERSION,
        base_addresses={"api": base} if base else {},
        http_client=stripe.RequestsClient(timeout=TIMEOUT_S),
        # A failed call is asked about by `billing.payments`, with the key it was made with.
        max_network_retries=0,
    )


def credentials(merchant: Merchant) -> Credentials:
    """The keys a merchant's cards are charged with: its own, else the installation's for its mode.

    Raises:
        billing.errors.Unavailable: there are none for that mode, or they do not open.
    """
    own = CardAccount.objects.of(merchant).first()
    if own is not None and not own.is_connected:
        return Credentials(secrets.open(own.secret_key), own.publishable_key)
    ours = installation_credentials(merchant)
    if own is None:
        return ours
    return Credentials(ours.secret_key, ours.publishable_key, own.account_id)


def installation_credentials(merchant: Merchant) -> Credentials:
    """The installation's keys for a merchant's mode. Raises as `credentials`."""
    pair = settings.STRIPE_KEYS["test" if merchant.is_sandbox else "live"]
    if not pair[0]:
        name = "STRIPE_TEST_SECRET_KEY" if merchant.is_sandbox else "STRIPE_SECRET_KEY"
        raise errors.Unavailable(f"Cards are not set up: set {name}.", code="cards_not_set_up")
    return Credentials(pair[0], pair[1])


def account_id(keys: Credentials) -> str:
    """The account that keys open, as the network names it.

    Raises:
        billing.errors.Unavailable: the network does not accept them.
    """
    return str(call(keys, lambda client: client.v1.accounts.retrieve_current()).id)


def call(merchant: Merchant | Credentials, act: Callable[[StripeClient], T]) -> T:
    """Run one call with a merchant's keys (or the ones given), and turn Stripe's errors into ours.

    Raises:
        billing.errors.CardDeclined, CardNeedsAction: the card was refused, or wants its owner.
        billing.errors.CardUnknown: no answer, or none that says whether it was done.
        billing.errors.Refused: Stripe did not accept the call; nothing was done.
    """
    keys = merchant if isinstance(merchant, Credentials) else credentials(merchant)
    try:
        return act(_client(keys.secret_key, settings.STRIPE_API_BASE, keys.account))
    except stripe.CardError as error:
        code = str(error.code or "card_declined")
        decline = str(getattr(error.error, "decline_code", None) or code)
        asks = "authentication_required" in (code, decline)
        kind = errors.CardNeedsAction if asks else errors.CardDeclined
        raise kind(
            error.user_message or "The card was declined.",
            code=decline,
            intent_id=text(field(error.error, "payment_intent")),
            charge_id=text(field(error.error, "charge")),
        ) from error
    except stripe.IdempotencyError as error:
        # In use right now, or used with other words (a card replaced, a name changed): either way
        # the network has seen this key and may have done it.
        raise errors.CardUnknown("The card network has that call already.") from error
    except stripe.InvalidRequestError as error:
        if error.http_status == 409:
            raise errors.CardUnknown("The card network is still working on it.") from error
        raise errors.Refused(
            f"The card network refused the call: {error.user_message or error.code}",
            code=str(error.code or "card_network_refused"),
            network_param=str(error.param or ""),
        ) from error
    except (stripe.AuthenticationError, stripe.PermissionError) as error:
        raise errors.Unavailable(
            "The card network does not accept our keys.", code="cards_not_set_up"
        ) from error
    except stripe.StripeError as error:
        raise errors.CardUnknown("The card network did not answer.") from error


def pages(merchant: Merchant, first: Any) -> Iterator[Any]:
    """The rows of a list, asking for the next page as they are read; errors are ours."""
    rows = first.auto_paging_iter()
    while True:
        row = call(merchant, lambda _: next(rows, None))
        if row is None:
            return
        yield row
