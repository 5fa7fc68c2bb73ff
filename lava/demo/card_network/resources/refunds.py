"""Refunds: part or all of a charge, never more than is left of it. docs.stripe.com/api/refunds"""

from __future__ import annotations

from lava.demo.card_network import cards, errors, events, lists
from lava.demo.card_network.calls import Call, Json
from lava.demo.card_network.errors import ApiError
from lava.demo.card_network.store import Record


def create(call: Call, _: str) -> Json:
    """POST /v1/refunds for a `payment_intent` or a `charge`; without `amount` all that is left."""
    params = call.params
    params.only("payment_intent", "charge", "amount", "reason", "metadata")
    amount = params.integer("amount")
    if amount is not None and amount < 1:
        raise ApiError(
            400,
            "This value must be greater than or equal to 1.",
            code="parameter_invalid_integer",
            param="amount",
        )
    reason = params.choice("reason", ["duplicate", "fraudulent", "requested_by_customer"])
    charge = _charge(call)
    body = charge.body
    left = body["amount"] - body["amount_refunded"]
    if left == 0:
        raise ApiError(
            400,
            f"Charge {charge.id} has already been refunded.",
            code="charge_already_refunded",
            executed=True,
        )
    if body["disputed"] and charge.hidden.get("dispute") != "won":
        raise ApiError(
            400,
            f"Charge {charge.id} has been charged back; cannot issue a refund.",
            code="charge_disputed",
            executed=True,
        )
    if amount is not None and amount > left:
        raise ApiError(
            400,
            f"Refund amount ({cards.money(amount, body['currency'])}) is greater than unrefunded "
            f"amount on charge ({cards.money(left, body['currency'])})",
            param="amount",
            executed=True,
        )
    refund = _keep(call, charge, left if amount is None else amount, reason)
    if call.store.setting("next_refund", None) == "pending":
        call.store.set("next_refund", None)
        refund.body["status"] = "pending"
        call.store.save(refund)
    before = {"amount_refunded": body["amount_refunded"], "refunded": body["refunded"]}
    body["amount_refunded"] += refund.body["amount"]
    body["refunded"] = body["amount_refunded"] == body["amount"]
    call.store.save(charge)
    events.emit(call, "refund.created", refund)
    events.emit(call, "charge.refunded", charge, previous=before)
    return refund.body


def move(call: Call, refund: Record, *, status: str) -> Record:
    """The bank decides about a refund: it arrives, or comes back (docs.stripe.com/refunds, Failed
    refunds). Raises ApiError 400 when it has come back already."""
    if refund.body["status"] in ("failed", "canceled"):
        raise ApiError(400, "This refund has failed already.", param="refund")
    refund.body["status"] = status
    if status == "failed":
        refund.body["failure_reason"] = "expired_or_canceled_card"
        charge = call.get("charge", refund.body["charge"])
        charge.body["amount_refunded"] -= refund.body["amount"]
        charge.body["refunded"] = False
        call.store.save(charge)
    call.store.save(refund)
    events.emit(call, "refund.updated", refund)
    if status == "failed":
        events.emit(call, "refund.failed", refund)
    return refund


def retrieve(call: Call, id: str) -> Json:
    """GET /v1/refunds/{id}"""
    call.params.only()
    return call.get("refund", id).body


def update(call: Call, id: str) -> Json:
    """POST /v1/refunds/{id}: metadata only."""
    call.params.only("metadata")
    refund = call.get("refund", id)
    refund.body["metadata"] = call.params.metadata(refund.body["metadata"])
    call.store.save(refund)
    return refund.body


def list_all(call: Call, _: str) -> Json:
    """GET /v1/refunds"""
    return lists.page(
        call,
        "refund",
        url="/v1/refunds",
        filters={"charge": "charge", "payment_intent": "payment_intent"},
    )


def _charge(call: Call) -> Record:
    """The paid charge to give back from."""
    params = call.params
    intent_id, charge_id = params.text("payment_intent"), params.text("charge")
    if intent_id is None and charge_id is None:
        raise ApiError(
            400,
            "One of the following params should be provided for this request: payment_intent or "
            "charge.",
            code="parameter_missing",
        )
    if intent_id is not None:
        intent = call.get("payment_intent", intent_id, param="payment_intent")
        if intent.body["status"] != "succeeded":
            raise errors.unexpected_state(
                "payment_intent",
                f"This PaymentIntent ({intent_id}) does not have a successful charge to refund.",
            )
        latest = str(intent.body["latest_charge"])
        if charge_id is not None and charge_id != latest:
            raise ApiError(400, "The charge does not belong to the payment_intent.", param="charge")
        charge_id = latest
    charge = call.get("charge", str(charge_id), param="charge")
    if not charge.body["paid"]:
        raise ApiError(
            400,
            f"Charge {charge.id} has not been paid; cannot issue a refund.",
            code="charge_not_refundable",
            executed=True,
        )
    return charge


def _keep(call: Call, charge: Record, amount: int, reason: str | None) -> Record:
    body = charge.body
    return call.new(
        "refund",
        {
            "amount": amount,
            "balance_transaction": None,
            "charge": charge.id,
            "currency": body["currency"],
            "destination_details": {
                "card": {
                    "reference": None,
                    "reference_status": "pending",
                    "reference_type": "acquirer_reference_number",
                    "type": "refund",
                },
                "type": "card",
            },
            "metadata": call.params.metadata(),
            "payment_intent": body["payment_intent"],
            "reason": reason,
            "receipt_number": None,
            "source_transfer_reversal": None,
            "status": "succeeded",
            "transfer_reversal": None,
        },
    )
