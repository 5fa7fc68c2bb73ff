"""Events of the card network: verified, stored once, handed over.

`TABLE` says which function each kind of event goes to. The event is a hint: the function asks the
network for the truth, with the keys of the merchant whose row it is, and settles it, so that
duplicates, wrong order, delay and forged bodies change nothing. An event that came to one account
touches no row of another: `Hint.owns` says whose it may be.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog
from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from billing import cards, disputes, errors, failpoints, ids, payments, refunds, stripe
from billing.models import CardAccount, Merchant, Payment, PaymentMethod, StripeEvent
from checkout import sessions
from checkout.models import CheckoutSession

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Hint:
    """An event, and where it came: to a merchant's own account, or to the installation's
    (`merchant` None), there perhaps from an account connected to it."""

    subject: dict[str, Any]
    merchant: Merchant | None
    livemode: bool
    account: str

    @property
    def id(self) -> str:
        return str(self.subject.get("id") or "")

    def owns(self, merchant: Merchant) -> bool:
        """Whether a row of `merchant` may be what the event is about."""
        if merchant.is_sandbox == self.livemode:
            return False
        own = CardAccount.objects.of(merchant).first()
        if self.merchant is not None:
            return self.merchant.pk == merchant.pk and own is not None and not own.is_connected
        if own is None:
            return not self.account
        return bool(own.is_connected and own.account_id == self.account)

    def payment(self) -> Payment | None:
        """Our payment of the intent that the event's object is or names."""
        named = self.subject.get("payment_intent")
        if isinstance(named, dict):
            named = named.get("id")
        intent_id = self.id if self.subject.get("object") == "payment_intent" else str(named or "")
        if not intent_id:
            return None
        rows = Payment.objects.select_related("merchant__organization")
        found: Payment | None = rows.filter(intent_id=intent_id).first()
        return found if found is not None and self.owns(found.merchant) else None


def settle_intent(hint: Hint) -> None:
    """Bring the payment of an intent to what the network says now, and finish its checkout."""
    payment = hint.payment()
    if payment is None:
        # Not ours, or its row has no intent yet: the answer to our own call will tell.
        return
    now = payment.merchant.now()
    payment = payments.refresh(payment, now=now)
    if payment.status == Payment.Status.UNKNOWN:
        raise errors.CardUnknown("The card network did not say how it stands.")
    if payment.status == Payment.Status.SUCCEEDED:
        sessions.complete_for_payment(payment, now=now)


def settle_refunds(hint: Hint) -> None:
    """Bring the refunds of a payment to what the network says now; those made elsewhere too."""
    payment = _paid(hint)
    if payment is not None:
        refunds.sync(payment, now=payment.merchant.now())


def settle_dispute(hint: Hint) -> None:
    """Bring a dispute to what the network says now."""
    payment = _paid(hint)
    if payment is not None:
        disputes.sync(payment, hint.id, now=payment.merchant.now())


def settle_setup(hint: Hint) -> None:
    """Finish the checkout whose card was saved."""
    rows = CheckoutSession.objects.select_related("merchant")
    session = rows.filter(setup_intent_id=hint.id).first() if hint.id else None
    if session is not None and hint.owns(session.merchant):
        sessions.complete_for_setup(hint.id)


def forget_card(hint: Hint) -> None:
    """A saved card was removed at the network."""
    rows = PaymentMethod.objects.select_related("merchant").filter(
        card_id=hint.id, detached_at=None
    )
    for card in rows:
        if hint.owns(card.merchant) and not stripe.is_attached(card.merchant, card.card_id):
            cards.forget(card.merchant, card.card_id, now=card.merchant.now())


TABLE: dict[str, Callable[[Hint], None]] = {
    "payment_intent.succeeded": settle_intent,
    "payment_intent.payment_failed": settle_intent,
    "payment_intent.requires_action": settle_intent,
    "payment_intent.canceled": settle_intent,
    "charge.refunded": settle_refunds,
    "charge.refund.updated": settle_refunds,
    "refund.created": settle_refunds,
    "refund.updated": settle_refunds,
    "refund.failed": settle_refunds,
    "charge.dispute.created": settle_dispute,
    "charge.dispute.updated": settle_dispute,
    "charge.dispute.closed": settle_dispute,
    "setup_intent.succeeded": settle_setup,
    "payment_method.detached": forget_card,
}


@csrf_exempt
@require_POST
def receive(request: HttpRequest, merchant: str = "") -> HttpResponse:
    """`POST /webhooks/stripe`, and `/webhooks/stripe/{merchant}` for a merchant's own account."""
    owner: Merchant | None = None
    try:
        if merchant:
            owner = _merchant(merchant)
        event = stripe.verify_event(
            request.body, request.headers.get("Stripe-Signature", ""), merchant=owner
        )
    except (errors.Invalid, errors.NotFound) as error:
        return JsonResponse({"error": {"message": error.message, "code": error.code}}, status=400)
    row, _ = StripeEvent.objects.get_or_create(
        # Two accounts may name their events alike: one must not silence the other's.
        pk=f"{owner.public_id}/{event.id}"[:80] if owner is not None else event.id,
        defaults={
            "type": event.type,
            "livemode": event.livemode,
            "payload": event.payload,
            "merchant": owner,
        },
    )
    if row.handled_at is None:
        try:
            handle(row)
        except (errors.CardUnknown, errors.Unavailable, errors.Conflict) as error:
            # The network is away, or something else is under way: it delivers again.
            log.warning("card_event_postponed", card_event=row.pk, type=row.type, code=error.code)
            answer = JsonResponse({"error": {"message": error.message, "code": error.code}})
            answer.status_code, answer["Retry-After"] = 503, "30"
            return answer
    return JsonResponse({"received": True})


def handle(row: StripeEvent) -> None:
    """Act on a stored event once; a failure leaves it for the network's next delivery.

    Raises:
        billing.errors.CardUnknown, Unavailable, Conflict: not now; it will be delivered again.
    """
    failpoints.at("event.stored")
    act = TABLE.get(row.type)
    if act is not None:
        hint = Hint(
            subject=row.payload["data"]["object"],
            merchant=row.merchant,
            livemode=row.livemode,
            account=str(row.payload.get("account") or ""),
        )
        try:
            act(hint)
        except errors.Refused as refusal:
            # The network has no such thing (any more): there is nothing to enter.
            log.warning("card_event_refused", card_event=row.pk, type=row.type, code=refusal.code)
    failpoints.at("event.handled")
    with transaction.atomic():
        StripeEvent.objects.filter(pk=row.pk).update(handled_at=timezone.now())


def _paid(hint: Hint) -> Payment | None:
    """The payment of a refund or dispute, settled first: its own event may come later."""
    payment = hint.payment()
    if payment is None:
        return None
    if payment.status != Payment.Status.SUCCEEDED:
        settle_intent(hint)
        payment = Payment.objects.select_related("merchant__organization").get(pk=payment.pk)
    return payment if payment.status == Payment.Status.SUCCEEDED else None


def _merchant(text: str) -> Merchant:
    found: Merchant | None = (
        Merchant.objects.select_related("organization").filter(pk=ids.parse("mer", text)).first()
    )
    if found is None:
        raise errors.NotFound("There is no such merchant.")
    return found
