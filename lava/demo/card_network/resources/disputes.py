"""Disputes: opened by the card 4000000000000259 or the control endpoint.
docs.stripe.com/api/disputes"""

from __future__ import annotations

from lava.demo.card_network import events, lists
from lava.demo.card_network.calls import Call, Json
from lava.demo.card_network.errors import ApiError
from lava.demo.card_network.store import Record

_REASONS = ("fraudulent", "duplicate", "general", "product_not_received", "product_unacceptable",
            "subscription_canceled", "unrecognized", "credit_not_processed")  # fmt: skip
_EVIDENCE_S = 7 * 24 * 3600


def retrieve(call: Call, id: str) -> Json:
    """GET /v1/disputes/{id}"""
    call.params.only()
    return call.get("dispute", id).body


def list_all(call: Call, _: str) -> Json:
    """GET /v1/disputes"""
    return lists.page(
        call,
        "dispute",
        url="/v1/disputes",
        filters={"charge": "charge", "payment_intent": "payment_intent"},
    )


def close(call: Call, id: str) -> Json:
    """POST /v1/disputes/{id}/close: the merchant accepts it as lost."""
    call.params.only()
    return close_dispute(call, call.get("dispute", id), won=False).body


def open_dispute(call: Call, charge: Record, *, amount: int | None, reason: str) -> Record:
    """The cardholder disputes a paid charge, whole or in part. Raises ApiError 400 if that cannot
    be."""
    body = charge.body
    if reason not in _REASONS:
        raise ApiError(400, f"Invalid reason: must be one of {', '.join(_REASONS)}", param="reason")
    if not body["paid"] or body["disputed"]:
        raise ApiError(400, f"Charge {charge.id} is not paid or already disputed.", param="charge")
    amount = body["amount"] if amount is None else amount
    if not 1 <= amount <= body["amount"]:
        raise ApiError(
            400, "A dispute is for at least 1 and at most the charge's amount.", param="amount"
        )
    dispute = call.new(
        "dispute",
        {
            "amount": amount,
            "balance_transactions": [],
            "charge": charge.id,
            "currency": body["currency"],
            "enhanced_eligibility_types": [],
            "evidence": {},
            "evidence_details": {
                "due_by": call.now + _EVIDENCE_S,
                "enhanced_eligibility": {},
                "has_evidence": False,
                "past_due": False,
                "submission_count": 0,
            },
            "is_charge_refundable": False,
            "metadata": {},
            "payment_intent": body["payment_intent"],
            "payment_method_details": {
                "card": {
                    "brand": body["payment_method_details"]["card"]["brand"],
                    "case_type": "chargeback",
                    "network_reason_code": None,
                },
                "type": "card",
            },
            "reason": reason,
            "status": "needs_response",
        },
    )
    body["disputed"] = True
    charge.hidden["dispute"] = "open"
    call.store.save(charge)
    events.emit(call, "charge.dispute.created", dispute)
    events.emit(call, "charge.dispute.funds_withdrawn", dispute)
    return dispute


def close_dispute(call: Call, dispute: Record, *, won: bool) -> Record:
    """The bank decides. Raises ApiError 400 when it has already."""
    if dispute.body["status"] in ("won", "lost"):
        raise ApiError(400, "This dispute is already closed.", param="dispute", executed=True)
    dispute.body["status"] = "won" if won else "lost"
    call.store.save(dispute)
    charge = call.get("charge", dispute.body["charge"])
    charge.hidden["dispute"] = dispute.body["status"]
    call.store.save(charge)
    if won:
        events.emit(call, "charge.dispute.funds_reinstated", dispute)
    events.emit(call, "charge.dispute.closed", dispute)
    return dispute
