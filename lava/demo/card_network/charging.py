"""One attempt to pay: asks the card, writes the charge, moves the payment intent on.

Called by the payment intents when they are confirmed and when the cardholder has answered 3-D
Secure.
"""

from __future__ import annotations

from typing import Any

from lava.demo.card_network import cards, errors, events
from lava.demo.card_network.calls import Call, Json
from lava.demo.card_network.cards import Decline
from lava.demo.card_network.errors import ApiError
from lava.demo.card_network.resources import disputes, payment_methods
from lava.demo.card_network.store import Record, new_id

_DONE = {
    "confirm": "confirmed",
    "cancel": "canceled",
    "update": "updated",
    "authenticate": "authenticated",
}


def attempt(
    call: Call,
    intent: Record,
    method: Record,
    *,
    off_session: bool,
    approved: bool = False,
    fail_on_action: bool = False,
) -> None:
    """Pay `intent` with `method`, or leave it waiting for the cardholder (`requires_action`).

    `approved`: 3-D Secure has been passed. Raises ApiError 402 when the bank refuses or when nobody
    is there to approve; the failed charge and its events stay.
    """
    behaviour = payment_methods.behaviour(method)
    intent.body.update(payment_method=method.id, last_payment_error=None, next_action=None)
    set_up = bool(method.hidden.get("set_up"))
    if not approved and behaviour.asks(off_session=off_session, set_up=set_up):
        if off_session or fail_on_action:
            raise _refused(call, intent, method, cards.AUTHENTICATION_REQUIRED)
        intent.body.update(status="requires_action", next_action=ask_the_cardholder(method))
        call.store.save(intent)
        events.emit(call, "payment_intent.requires_action", intent)
        return
    decline = payment_methods.charge_declined(call, method)
    if decline is not None:
        raise _refused(call, intent, method, decline)
    _paid(call, intent, method)


def ask_the_cardholder(method: Record) -> Json:
    """The `next_action` that the page's script turns into a dialog; its `source` is new each
    time."""
    shown = method.body["card"]
    return {
        "type": "use_stripe_sdk",
        "use_stripe_sdk": {
            "type": "three_d_secure_redirect",
            "source": new_id("payatt"),
            "card": {"brand": shown["brand"], "last4": shown["last4"]},
        },
    }


def _paid(call: Call, intent: Record, method: Record) -> None:
    charge = _charge(call, intent, method, decline=None)
    intent.body.update(
        status="succeeded",
        amount_received=intent.body["amount"],
        latest_charge=charge.id,
        next_action=None,
    )
    usage = intent.body["setup_future_usage"]
    customer = intent.body["customer"]
    if usage is not None:
        method.hidden["set_up"] = method.hidden.get("set_up") or usage == "off_session"
        payment_methods.save_to(call, method, customer)
    if method.body["customer"] is None:
        method.hidden["used_up"] = True
    call.store.save(method)
    call.store.save(intent)
    events.emit(call, "charge.succeeded", charge)
    events.emit(call, "payment_intent.succeeded", intent)
    if payment_methods.behaviour(method).disputed:
        disputes.open_dispute(call, charge, amount=None, reason="fraudulent")


def _refused(call: Call, intent: Record, method: Record, decline: Decline) -> ApiError:
    """Write a refused attempt down; answers the error to raise."""
    charge = _charge(call, intent, method, decline=decline)
    intent.body.update(
        status="requires_payment_method",
        payment_method=None,
        latest_charge=charge.id,
        next_action=None,
        last_payment_error=payment_methods.last_error(decline, method, charge=charge.id),
    )
    call.store.save(intent)
    events.emit(call, "charge.failed", charge)
    events.emit(call, "payment_intent.payment_failed", intent)
    return payment_methods.card_error(
        decline,
        executed=True,
        charge=charge.id,
        payment_intent=intent.body,
        payment_method=method.body,
    )


def not_approved(call: Call, intent: Record, method: Record) -> None:
    """The cardholder refused in the 3-D Secure dialog: no charge, back to asking for a card."""
    intent.body.update(
        status="requires_payment_method",
        payment_method=None,
        next_action=None,
        last_payment_error=authentication_failure("payment_intent", method),
    )
    call.store.save(intent)
    events.emit(call, "payment_intent.payment_failed", intent)


def authentication_failure(kind: str, method: Record) -> Json:
    """What an intent remembers of a refused 3-D Secure."""
    return ApiError(
        402,
        "We are unable to authenticate your payment method. Please choose a different payment "
        "method and try again.",
        code=f"{kind}_authentication_failure",
        payment_method=method.body,
    ).error


def refuse_unless(call: Call, intent: Record, *, verb: str, allowed: tuple[str, ...]) -> None:
    """Raise `..._unexpected_state`, carrying the intent, unless its status is one of `allowed`."""
    status = intent.body["status"]
    if status in allowed:
        return
    kind = intent.kind
    name = "PaymentIntent" if kind == "payment_intent" else "SetupIntent"
    if verb == "confirm" and status == "succeeded":
        message = (
            f"You cannot confirm this {name} because it has already succeeded after being "
            "previously confirmed."
        )
    else:
        message = (
            f"You cannot {verb} this {name} because it has a status of {status}. Only a {name} "
            f"with one of the following statuses may be {_DONE[verb]}: {', '.join(allowed)}."
        )
    carried: dict[str, Any] = {kind: intent.body}
    raise errors.unexpected_state(kind, message, **carried)


def _charge(call: Call, intent: Record, method: Record, *, decline: Decline | None) -> Record:
    body, shown = intent.body, method.body["card"]
    paid = decline is None
    details = {name: shown[name] for name in (
        "brand", "checks", "country", "exp_month", "exp_year", "fingerprint", "funding", "last4",
        "regulated_status", "wallet")}  # fmt: skip
    return call.new(
        "charge",
        {
            "amount": body["amount"],
            "amount_captured": body["amount"] if paid else 0,
            "amount_refunded": 0,
            "application": None,
            "application_fee": None,
            "application_fee_amount": None,
            "balance_transaction": None,
            "billing_details": method.body["billing_details"],
            "calculated_statement_descriptor": body["statement_descriptor"] or "LOCAL CARD NETWORK",
            "captured": paid,
            "currency": body["currency"],
            "customer": body["customer"],
            "description": body["description"],
            "disputed": False,
            "failure_balance_transaction": None,
            "failure_code": decline.code if decline else None,
            "failure_message": decline.message if decline else None,
            "fraud_details": {},
            "metadata": dict(body["metadata"]),
            "on_behalf_of": None,
            "outcome": _outcome(decline),
            "paid": paid,
            "payment_intent": intent.id,
            "payment_method": method.id,
            "payment_method_details": {
                "card": {
                    **details,
                    "amount_authorized": body["amount"] if paid else None,
                    "authorization_code": None,
                    "network": shown["brand"],
                    "three_d_secure": None,
                },
                "type": "card",
            },
            "receipt_email": body["receipt_email"],
            "receipt_number": None,
            "receipt_url": None,
            "refunded": False,
            "review": None,
            "shipping": None,
            "source": None,
            "source_transfer": None,
            "statement_descriptor": body["statement_descriptor"],
            "statement_descriptor_suffix": body["statement_descriptor_suffix"],
            "status": "succeeded" if paid else "failed",
            "transfer_data": None,
            "transfer_group": None,
        },
    )


def _outcome(decline: Decline | None) -> Json:
    if decline is None:
        return {
            "advice_code": None,
            "network_advice_code": None,
            "network_decline_code": None,
            "network_status": "approved_by_network",
            "reason": None,
            "risk_level": "normal",
            "seller_message": "Payment complete.",
            "type": "authorized",
        }
    return {
        "advice_code": decline.advice,
        "network_advice_code": None,
        "network_decline_code": None,
        "network_status": "declined_by_network",
        "reason": decline.decline_code or decline.code,
        "risk_level": "normal",
        "seller_message": "The bank did not return any further details with this decline.",
        "type": "issuer_declined",
    }
