"""Money that goes back: refunds, made with our key, and disputes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from billing import money
from billing.models import Merchant
from billing.models import Refund as RefundRow
from billing.stripe.client import call, pages
from billing.stripe.shapes import Dispute, Refund, dispute_of, refund_of


def create_refund(refund: RefundRow) -> Refund:
    """Give money back, with the key `refund:<id>`. Made twice, it is the same refund."""
    made = call(
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
    return refund_of(made)


def retrieve_refund(merchant: Merchant, refund_id: str) -> Refund:
    """Ask what became of a refund."""
    return refund_of(call(merchant, lambda client: client.v1.refunds.retrieve(refund_id)))


def list_refunds(merchant: Merchant, *, intent_id: str = "", since: int = 0) -> Iterator[Refund]:
    """The refunds of an intent, or all of the merchant's account since a Unix time."""
    params: dict[str, Any] = {"limit": 100}
    if intent_id:
        params["payment_intent"] = intent_id
    if since:
        params["created"] = {"gte": since}
    found = call(merchant, lambda client: client.v1.refunds.list(params=params))  # type: ignore[arg-type]
    for row in pages(merchant, found):
        yield refund_of(row)


def retrieve_dispute(merchant: Merchant, dispute_id: str) -> Dispute:
    """Ask how a dispute stands."""
    return dispute_of(call(merchant, lambda client: client.v1.disputes.retrieve(dispute_id)))


def list_disputes(merchant: Merchant, *, since: int = 0) -> Iterator[Dispute]:
    """The disputes of the merchant's account since a Unix time."""
    params: dict[str, Any] = {"limit": 100}
    if since:
        params["created"] = {"gte": since}
    found = call(merchant, lambda client: client.v1.disputes.list(params=params))  # type: ignore[arg-type]
    for row in pages(merchant, found):
        yield dispute_of(row)
