"""Payments that the books have lost: made at the card network after the backup they come from.

`terms` is what an intent carries of its row, in its metadata; `take_in` makes the row anew from it.
Called by `billing.stripe` and `billing.reconcile`, so that a restored product enters what was paid
and charges nothing twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone

from billing import courses, errors, ids, ledger, money
from billing.models import (
    Connection,
    CreditBundle,
    LedgerEntry,
    Merchant,
    Payment,
    Plan,
    Subscription,
)

NAMES = (
    "lava_payment", "lava_merchant", "lava_connection", "lava_purpose", "lava_key",
    "lava_off_session", "lava_plan", "lava_bundle", "lava_quantity", "lava_credit",
    "lava_subscription", "lava_cycle", "lava_unused_credit", "lava_unused_value",
)  # fmt: skip


def terms(payment: Payment) -> dict[str, str]:
    """What the network is to keep of a payment: ids and terms, no name and no secret."""
    said = {
        "lava_payment": payment.public_id,
        "lava_merchant": payment.merchant.public_id,
        "lava_connection": ids.public(Connection.ID_PREFIX, payment.connection_id),
        "lava_purpose": payment.purpose,
        "lava_key": payment.key,
        "lava_off_session": "yes" if payment.off_session else "",
        "lava_plan": _named(Plan, payment.plan_id),
        "lava_bundle": _named(CreditBundle, payment.bundle_id),
        "lava_quantity": str(payment.quantity) if payment.bundle_id else "",
        "lava_credit": f"{payment.credit_amount:f}" if payment.credit_amount else "",
        # A new subscription's payment is given its cycle when it is settled: not yet said.
        "lava_subscription": _named(Subscription, payment.subscription_id),
        "lava_cycle": "" if payment.cycle_index is None else str(payment.cycle_index),
        "lava_unused_credit": f"{payment.unused_credit:f}" if payment.unused_credit else "",
        "lava_unused_value": f"{payment.unused_value:f}" if payment.unused_value else "",
    }
    return {name: text for name, text in said.items() if text}


def take_in(
    merchant: Merchant, said: Mapping[str, str], *, amount_minor: int, currency: str
) -> Payment | None:
    """Make the row of a paid intent that these books do not have, for `payments.settle`.

    None where they cannot have it: it says too little, its customer, plan or subscription is not
    in the books either, or what it paid for was begun again. Then a person has to look.
    """
    try:
        key = ids.parse(Payment.ID_PREFIX, said.get("lava_payment", ""))
        connection = _find(Connection, merchant, said.get("lava_connection", ""))
        row = Payment(
            pk=key,
            merchant=merchant,
            connection=connection,
            purpose=Payment.Purpose(said.get("lava_purpose", "")),
            # As one that was given up: it opens nothing and collects nothing, until it is settled.
            status=Payment.Status.FAILED,
            amount=money.from_minor(amount_minor, currency),
            key=said.get("lava_key", ""),
            off_session=bool(said.get("lava_off_session")),
            plan=_find(Plan, merchant, said.get("lava_plan", "")),
            bundle=_find(CreditBundle, merchant, said.get("lava_bundle", "")),
            quantity=int(said.get("lava_quantity") or 1),
            credit_amount=Decimal(said.get("lava_credit") or 0),
            subscription=_find(Subscription, merchant, said.get("lava_subscription", "")),
            cycle_index=int(said["lava_cycle"]) if "lava_cycle" in said else None,
            unused_credit=Decimal(said.get("lava_unused_credit") or 0),
            unused_value=Decimal(said.get("lava_unused_value") or 0),
            # Its id keeps when it was intended.
            created_at=min(ids.made_at(key) + merchant.clock_offset, merchant.now()),
            asked_at=timezone.now(),
        )
    except (errors.NotFound, ValueError, ArithmeticError):
        return None
    if connection is None or not row.key or currency != connection.currency:
        return None
    try:
        with transaction.atomic():
            ledger.lock(connection.pk)
            row.save(force_insert=True)
    except IntegrityError:
        # Its key is used: what it paid for was begun again.
        return None
    return row


def taken_at(row: Payment, *, charged_at: int) -> datetime:
    """When a payment that was taken in is to be entered: when its card was charged (`charged_at`,
    in Unix time; 0: not known), on the merchant's clock, so that its receipt and its cycle say the
    day on which it was paid. Not before the connection's last line: the ledger goes forward only.

    A first cycle that would be over by now begins now instead. What paid for the cycles after it
    names a subscription that is lost, and cannot be entered; begun in the past, it would be due at
    once and the next of them charged again.
    """
    now = row.merchant.now()
    if not charged_at:
        return now
    moment = datetime.fromtimestamp(charged_at, tz=UTC) + row.merchant.clock_offset
    last = LedgerEntry.objects.filter(connection=row.connection_id).order_by("-seq").first()
    if last is not None:
        moment = max(moment, last.occurred_at)
    moment = min(max(moment, row.created_at), now)
    if row.purpose == Payment.Purpose.SUBSCRIPTION and row.plan is not None:
        first = courses.Course(row.plan, moment, row.merchant.time_zone).cycle(0)
        if first.end <= now:
            return now
    return moment


def _named(model: Any, key: Any) -> str:
    return "" if key is None else ids.public(model.ID_PREFIX, key)


def _find(model: Any, merchant: Merchant, text: str) -> Any:
    """A row of the merchant by its public id; None for no id.

    Raises:
        billing.errors.NotFound: there is no such row in these books.
    """
    if not text:
        return None
    row = model.objects.of(merchant).filter(pk=ids.parse(model.ID_PREFIX, text)).first()
    if row is None:
        raise errors.NotFound("It is not in these books.")
    return row
