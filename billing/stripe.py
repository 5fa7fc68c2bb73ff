"""The card network, and the only module that imports `stripe`.

Every call goes through `StripeClient` over HTTP with our own stored idempotency key; against
Stripe with its keys, or against the local card network with the same code. Stripe's objects and
errors end here: callers see the dataclasses below and `billing.errors`. Never called while a lock
is held.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import stripe
from django.conf import settings
from stripe import StripeClient

from billing import errors, money, secrets
from billing.models import CardAccount, Merchant, Payment
from billing.models import Refund as RefundRow

T = TypeVar("T")

# Pinned: answers keep their shape whatever the account's default is.
API_VERSION = "2026-10-28.endive"
TIMEOUT_S = 20
# How far a webhook's signed time may be from ours, either way.
SIGNATURE_TOLERANCE_S = 300


@dataclass(frozen=True, slots=True)
class ClientIntent:
    """What the page needs to confirm a payment (`kind` payment) or save a card (`kind` setup)."""

    kind: str
    id: str
    client_secret: str
    publishable_key: str
    script_url: str
    # The account under Stripe Connect that the page acts for; empty: the key's own.
    account: str = ""


@dataclass(frozen=True, slots=True)
class Intent:
    """A payment intent as the network knows it. `amount_minor` in the currency's minor unit."""

    id: str
    status: str
    client_secret: str
    amount_minor: int
    currency: str
    charge_id: str
    card_id: str
    decline_code: str
    message: str
    # Our own id of the payment, out of its metadata; empty: not made by us.
    payment_id: str = ""

    @property
    def wants_customer(self) -> bool:
        """The bank wants its cardholder to confirm it (3-D Secure); nothing was charged."""
        return self.status == "requires_action" or (
            self.status == "requires_payment_method"
            and self.decline_code == "authentication_required"
        )


@dataclass(frozen=True, slots=True)
class Refund:
    """A refund as the network knows it: `pending`, `requires_action`, `succeeded`, `failed` or
    `canceled`."""

    id: str
    status: str
    amount_minor: int
    currency: str
    intent_id: str
    failure: str
    # Our own id of the refund; empty: it was made in the network's dashboard.
    our_id: str


@dataclass(frozen=True, slots=True)
class Dispute:
    """A dispute as the network knows it."""

    id: str
    status: str
    amount_minor: int
    currency: str
    intent_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Setup:
    """A setup intent: a card being saved without a charge."""

    id: str
    status: str
    client_secret: str
    card_id: str


@dataclass(frozen=True, slots=True)
class Card:
    """A payment method of type card."""

    id: str
    brand: str
    last4: str
    exp_month: int
    exp_year: int


@dataclass(frozen=True, slots=True)
class Event:
    """A verified event; `object_id` is the id of what it is about."""

    id: str
    type: str
    livemode: bool
    object_id: str
    payload: dict[str, Any]
    # The connected account it came from; empty: the account of the secret.
    account: str = ""


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


def _call(merchant: Merchant | Credentials, act: Callable[[StripeClient], T]) -> T:
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
            intent_id=_text(_field(error.error, "payment_intent")),
            charge_id=_text(_field(error.error, "charge")),
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


def create_customer(merchant: Merchant, *, key: str, phone: str, name: str, email: str) -> str:
    """Make the customer at the network, once a key; gives its id."""
    params: dict[str, Any] = {"phone": phone}
    if name:
        params["name"] = name
    if email:
        params["email"] = email
    made = _call(
        merchant,
        lambda client: client.v1.customers.create(
            params=params,  # type: ignore[arg-type]
            options={"idempotency_key": key},
        ),
    )
    return str(made.id)


def create_intent(
    payment: Payment, *, customer_id: str, card_id: str = "", confirm: bool = False
) -> Intent:
    """Make the payment intent of a payment, with the key `payment:<id>`.

    Off-session payments are confirmed at once with the saved card; a customer's own is confirmed
    by the page. Made twice, it is the same intent.
    """
    params: dict[str, Any] = {
        "amount": money.to_minor(payment.amount),
        "currency": str(payment.amount.currency).lower(),
        "customer": customer_id,
        "description": f"{payment.merchant.name}: {payment.get_purpose_display()}",
        "metadata": {"lava_payment": payment.public_id},
        "allowed_payment_method_types": ["card"],
        "expand": ["latest_charge"],
    }
    if payment.off_session:
        params |= {"payment_method": card_id, "confirm": True, "off_session": True}
    else:
        params["setup_future_usage"] = "off_session"
        if confirm:
            params |= {"payment_method": card_id, "confirm": True}
    made = _call(
        payment.merchant,
        lambda client: client.v1.payment_intents.create(
            params=params,  # type: ignore[arg-type]
            options={"idempotency_key": f"payment:{payment.public_id}"},
        ),
    )
    return _intent(made)


def confirm_intent(payment: Payment, *, card_id: str) -> Intent:
    """Confirm a payment's intent from the server, with a card the caller names."""
    made = _call(
        payment.merchant,
        lambda client: client.v1.payment_intents.confirm(
            payment.intent_id,
            params={"payment_method": card_id, "expand": ["latest_charge"]},
            options={"idempotency_key": f"confirm:{payment.public_id}:{card_id}"},
        ),
    )
    return _intent(made)


def retrieve_intent(merchant: Merchant, intent_id: str) -> Intent:
    """Ask what became of a payment intent."""
    found = _call(
        merchant,
        lambda client: client.v1.payment_intents.retrieve(
            intent_id, params={"expand": ["latest_charge"]}
        ),
    )
    return _intent(found)


def find_intent(payment: Payment, *, customer_id: str) -> Intent | None:
    """Look for the intent of a payment whose answer never came, by our id in its metadata."""
    found = _call(
        payment.merchant,
        lambda client: client.v1.payment_intents.list(
            params={"customer": customer_id, "limit": 100}
        ),
    )
    for row in found.auto_paging_iter():
        if _text(_field(row.metadata, "lava_payment")) == payment.public_id:
            return retrieve_intent(payment.merchant, str(row.id))
    return None


def cancel_intent(merchant: Merchant, intent_id: str) -> Intent:
    """Cancel an intent that nobody will pay any more."""
    return _intent(_call(merchant, lambda client: client.v1.payment_intents.cancel(intent_id)))


def open_to_customer(payment: Payment) -> Intent:
    """Let the customer pay an off-session intent at the page, with the saved card or another one
    that is saved for the next charges."""
    return _intent(
        _call(
            payment.merchant,
            lambda client: client.v1.payment_intents.update(
                payment.intent_id, params={"setup_future_usage": "off_session"}
            ),
        )
    )


def list_intents(merchant: Merchant, *, since: int = 0, page: int = 100) -> Iterator[Intent]:
    """Every payment intent of the merchant's account made since a Unix time, page by page."""
    params: dict[str, Any] = {"limit": page}
    if since:
        params["created"] = {"gte": since}
    found = _call(merchant, lambda client: client.v1.payment_intents.list(params=params))  # type: ignore[arg-type]
    for row in _pages(merchant, found):
        yield _intent(row)


def create_refund(refund: RefundRow) -> Refund:
    """Give money back, with the key `refund:<id>`. Made twice, it is the same refund."""
    made = _call(
        refund.payment.merchant,
        lambda client: client.v1.refunds.create(
            params={
                "payment_intent": refund.payment.intent_id,
                "amount": money.to_minor(refund.amount),
                "metadata": {"lava_refund": refund.public_id},
            },
            options={"idempotency_key": f"refund:{refund.public_id}"},
        ),
    )
    return _refund(made)


def retrieve_refund(merchant: Merchant, refund_id: str) -> Refund:
    """Ask what became of a refund."""
    return _refund(_call(merchant, lambda client: client.v1.refunds.retrieve(refund_id)))


def list_refunds(merchant: Merchant, *, intent_id: str = "", since: int = 0) -> Iterator[Refund]:
    """The refunds of an intent, or all of the merchant's account since a Unix time."""
    params: dict[str, Any] = {"limit": 100}
    if intent_id:
        params["payment_intent"] = intent_id
    if since:
        params["created"] = {"gte": since}
    found = _call(merchant, lambda client: client.v1.refunds.list(params=params))  # type: ignore[arg-type]
    for row in _pages(merchant, found):
        yield _refund(row)


def retrieve_dispute(merchant: Merchant, dispute_id: str) -> Dispute:
    """Ask how a dispute stands."""
    return _dispute(_call(merchant, lambda client: client.v1.disputes.retrieve(dispute_id)))


def list_disputes(merchant: Merchant, *, since: int = 0) -> Iterator[Dispute]:
    """The disputes of the merchant's account since a Unix time."""
    params: dict[str, Any] = {"limit": 100}
    if since:
        params["created"] = {"gte": since}
    found = _call(merchant, lambda client: client.v1.disputes.list(params=params))  # type: ignore[arg-type]
    for row in _pages(merchant, found):
        yield _dispute(row)


def _pages(merchant: Merchant, first: Any) -> Iterator[Any]:
    """The rows of a list, asking for the next page as they are read; errors are ours."""
    rows = first.auto_paging_iter()
    while True:
        row = _call(merchant, lambda _: next(rows, None))
        if row is None:
            return
        yield row


def account_id(keys: Credentials) -> str:
    """The account that keys open, as the network names it.

    Raises:
        billing.errors.Unavailable: the network does not accept them.
    """
    return str(_call(keys, lambda client: client.v1.accounts.retrieve_current()).id)


def is_attached(merchant: Merchant, card_id: str) -> bool:
    """Whether a saved card is still its customer's at the network."""
    try:
        found = _call(merchant, lambda client: client.v1.payment_methods.retrieve(card_id))
    except errors.Refused:
        return False
    return bool(_text(_field(found, "customer")))


def detach_card(merchant: Merchant, card_id: str) -> None:
    """Remove a saved card at the network; one that is gone already is no error."""
    try:
        _call(merchant, lambda client: client.v1.payment_methods.detach(card_id))
    except errors.Refused:
        pass


def create_setup(merchant: Merchant, *, customer_id: str, key: str) -> Setup:
    """Start saving a card for later charges without the customer."""
    made = _call(
        merchant,
        lambda client: client.v1.setup_intents.create(
            params={
                "customer": customer_id,
                "usage": "off_session",
                "allowed_payment_method_types": ["card"],
            },
            options={"idempotency_key": key},
        ),
    )
    return _setup(made)


def retrieve_setup(merchant: Merchant, setup_id: str) -> Setup:
    """Ask what became of a setup intent."""
    return _setup(_call(merchant, lambda client: client.v1.setup_intents.retrieve(setup_id)))


def confirm_setup(merchant: Merchant, setup_id: str, *, card_id: str) -> Setup:
    """Confirm a setup intent from the server, with a card the caller names."""
    return _setup(
        _call(
            merchant,
            lambda client: client.v1.setup_intents.confirm(
                setup_id, params={"payment_method": card_id}
            ),
        )
    )


def retrieve_card(merchant: Merchant, card_id: str) -> Card:
    """Brand, last digits and expiry of a saved card."""
    return _card(_call(merchant, lambda client: client.v1.payment_methods.retrieve(card_id)))


def create_test_card(merchant: Merchant, number: str) -> Card:
    """Turn a test card's number into a card, as the page would; for the sandbox alone.

    Raises:
        billing.errors.Forbidden: the merchant is not a sandbox.
    """
    if not merchant.is_sandbox:
        raise errors.Forbidden("Test cards work with test keys only.")
    made = _call(
        merchant,
        lambda client: client.v1.payment_methods.create(
            params={
                "type": "card",
                "card": {
                    "number": number,
                    "exp_month": 12,
                    "exp_year": time.gmtime().tm_year + 3,
                    "cvc": "123",
                },
            }
        ),
    )
    return _card(made)


def client_intent(merchant: Merchant, kind: str, id: str, client_secret: str) -> ClientIntent:
    """What the page needs, with the publishable key and script of the merchant's account."""
    keys = credentials(merchant)
    return ClientIntent(
        kind=kind,
        id=id,
        client_secret=client_secret,
        publishable_key=keys.publishable_key,
        script_url=settings.STRIPE_JS_URL,
        account=keys.account,
    )


def verify_event(payload: bytes, signature: str, *, merchant: Merchant | None = None) -> Event:
    """Check a webhook's signature and time: against the secret of a merchant's own account, or
    (without one) against the installation's, live and test.

    Raises:
        billing.errors.Invalid: not signed by the network, or not within five minutes of now
            (`construct_event` alone would take times years ahead).
    """
    for secret in _webhook_secrets(merchant):
        try:
            event = stripe.Webhook.construct_event(payload, signature, secret)
        except (ValueError, stripe.SignatureVerificationError):
            continue
        stamp = next((p[2:] for p in signature.split(",") if p.startswith("t=")), "0")
        if abs(time.time() - int(stamp)) > SIGNATURE_TOLERANCE_S:
            break
        raw = event.to_dict()
        return Event(
            id=str(event.id),
            type=str(event.type),
            livemode=bool(event.livemode),
            object_id=str(raw["data"]["object"].get("id", "")),
            payload=raw,
            account=str(raw.get("account") or ""),
        )
    raise errors.Invalid("The signature does not match.", code="bad_signature")


def _webhook_secrets(merchant: Merchant | None) -> list[str]:
    if merchant is None:
        return list(settings.STRIPE_WEBHOOK_SECRETS)
    own = CardAccount.objects.of(merchant).exclude(webhook_secret=b"").first()
    return [secrets.open(own.webhook_secret)] if own is not None else []


def _field(row: Any, name: str) -> Any:
    """A field of one of Stripe's objects, which are no dicts; None when absent."""
    return getattr(row, name, None) if row is not None else None


def _text(value: Any) -> str:
    """An id, whether the network expanded the object or not."""
    if value is None:
        return ""
    return str(value) if isinstance(value, str) else str(_field(value, "id") or "")


def _intent(row: Any) -> Intent:
    error = _field(row, "last_payment_error")
    return Intent(
        id=str(row.id),
        status=str(row.status),
        client_secret=str(_field(row, "client_secret") or ""),
        amount_minor=int(row.amount),
        currency=str(row.currency).upper(),
        charge_id=_text(_field(row, "latest_charge")),
        card_id=_text(_field(row, "payment_method")),
        decline_code=str(_field(error, "decline_code") or _field(error, "code") or ""),
        message=str(_field(error, "message") or ""),
        payment_id=_text(_field(_field(row, "metadata"), "lava_payment")),
    )


def _refund(row: Any) -> Refund:
    return Refund(
        id=str(row.id),
        status=str(row.status),
        amount_minor=int(row.amount),
        currency=str(row.currency).upper(),
        intent_id=_text(_field(row, "payment_intent")),
        failure=str(_field(row, "failure_reason") or ""),
        our_id=_text(_field(_field(row, "metadata"), "lava_refund")),
    )


def _dispute(row: Any) -> Dispute:
    return Dispute(
        id=str(row.id),
        status=str(row.status),
        amount_minor=int(row.amount),
        currency=str(row.currency).upper(),
        intent_id=_text(_field(row, "payment_intent")),
        reason=str(_field(row, "reason") or ""),
    )


def _setup(row: Any) -> Setup:
    return Setup(
        id=str(row.id),
        status=str(row.status),
        client_secret=str(_field(row, "client_secret") or ""),
        card_id=_text(_field(row, "payment_method")),
    )


def _card(row: Any) -> Card:
    card = row.card
    return Card(
        id=str(row.id),
        brand=str(_field(card, "brand") or "card"),
        last4=str(card.last4),
        exp_month=int(card.exp_month),
        exp_year=int(card.exp_year),
    )
