"""Events of the card network: verified, stored once, handed over.

`TABLE` says which function each kind of event goes to. The event is a hint: the function asks the
network for the truth and settles it, so that duplicates, wrong order and delay change nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog
from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from billing import errors, payments, stripe
from billing.models import Payment, StripeEvent
from checkout import sessions

log = structlog.get_logger(__name__)


def settle_intent(intent_id: str) -> None:
    """Bring the payment of an intent to what the network says now, and finish its checkout."""
    payment = (
        Payment.objects.select_related("merchant__organization").filter(intent_id=intent_id).first()
    )
    if payment is None:
        # Not ours, or its row has no intent yet: the answer to our own call will tell.
        return
    now = payment.merchant.now()
    payment = payments.refresh(payment, now=now)
    if payment.status == Payment.Status.SUCCEEDED:
        sessions.complete_for_payment(payment, now=now)


TABLE: dict[str, Callable[[str], None]] = {
    "payment_intent.succeeded": settle_intent,
    "payment_intent.payment_failed": settle_intent,
    "payment_intent.requires_action": settle_intent,
    "payment_intent.canceled": settle_intent,
    "setup_intent.succeeded": sessions.complete_for_setup,
}


@csrf_exempt
@require_POST
def receive(request: HttpRequest) -> HttpResponse:
    """`POST /webhooks/stripe`"""
    try:
        event = stripe.verify_event(request.body, request.headers.get("Stripe-Signature", ""))
    except errors.Invalid as error:
        return JsonResponse({"error": {"message": error.message, "code": error.code}}, status=400)
    row, _ = StripeEvent.objects.get_or_create(
        pk=event.id,
        defaults={"type": event.type, "livemode": event.livemode, "payload": event.payload},
    )
    if row.handled_at is None:
        handle(row)
    return JsonResponse({"received": True})


def handle(row: StripeEvent) -> None:
    """Act on a stored event once; a failure leaves it for the network's next delivery.

    Raises:
        billing.errors.CardUnknown: the network does not answer; it will deliver again.
    """
    act = TABLE.get(row.type)
    if act is not None:
        act(str(row.payload["data"]["object"]["id"]))
    with transaction.atomic():
        StripeEvent.objects.filter(pk=row.pk).update(handled_at=timezone.now())
