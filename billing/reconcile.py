"""Reconcile: our payments, refunds and disputes against the card network's list, by id, amount and
currency.

`gaps` gives every difference with its name and its mend; `mend` does what can be done without a
person: what the network has done and we have not entered is settled by the same verbs as an answer
or a webhook; what we have and the network has not is flagged. Safe at any time and under load: a
difference is looked at twice, with the row and the object read anew, and what is on its way is
passed over. Called by `manage.py reconcile` and the console.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.utils import timezone
from moneyed import Money

from billing import disputes, errors, ids, lost, money, payments, refunds, settlement, stripe
from billing.models import Dispute, Merchant, Payment, Refund

# So short a time after it was asked for or done, an answer or event may be on its way to its row.
UNDER_WAY = timedelta(seconds=30)
FLAG_NOT_PAID = "The card network does not have this payment as paid."
FLAG_NOT_REFUNDED = "The card network does not have this refund as made."

# Each kind of gap: what it means, and what mends it.
KINDS = {
    "not_settled": ("The network was paid and we have not entered it.", "settle"),
    "not_ours": (
        "The network was paid for a payment that is not in these books: were they restored from a "
        "backup?",
        "enter it from what the network keeps of it, or look: refund it at the network",
    ),
    "not_paid": ("We have it as paid; the network has not.", "flag"),
    "amounts_differ": ("The network took another amount than we have.", "flag"),
    "refund_not_entered": ("The network gave money back and we have not entered it.", "settle"),
    "refund_not_made": ("We have it as given back; the network has not.", "flag"),
    "refund_amounts_differ": ("The network gave back another amount than we have.", "flag"),
    "dispute_not_entered": ("The network has a dispute as we do not have it.", "settle"),
}


@dataclass(frozen=True, slots=True)
class Gap:
    """One difference. `ours` and `theirs` are public ids; amounts are as each side has them."""

    kind: str
    merchant: Merchant
    ours: str
    theirs: str
    our_amount: Money | None
    their_amount: Money | None
    payment_id: UUID | None = None
    refund_id: UUID | None = None

    @property
    def sentence(self) -> str:
        return KINDS[self.kind][0]

    @property
    def mend(self) -> str:
        return KINDS[self.kind][1]


def gaps(merchant: Merchant, *, since: datetime | None = None) -> Iterator[Gap]:
    """Every difference between a merchant's books and its account at the network.

    Merchants may share the installation's account: what belongs to another's books, or was not
    charged by this product at all, is no gap of this one. `since` limits both sides, in real time.

    Raises:
        billing.errors.CardUnknown, Unavailable: the network does not answer; nothing is known.
    """
    stamp = int(since.timestamp()) if since is not None else 0
    seen: set[str] = set()
    for intent in stripe.list_intents(merchant, since=stamp):
        if intent.status == "succeeded":
            seen.add(intent.id)
            yield from _of_intent(merchant, intent)
    yield from _not_paid(merchant, seen, since=since)
    seen_refunds: set[str] = set()
    for refund in stripe.list_refunds(merchant, since=stamp):
        seen_refunds.add(refund.id)
        yield from _of_refund(merchant, refund)
    yield from _not_refunded(merchant, seen_refunds, since=since)
    for dispute in stripe.list_disputes(merchant, since=stamp):
        yield from _of_dispute(merchant, dispute)


def mend(gap: Gap) -> bool:
    """Do what can be done about a gap without a person; whether anything was done.

    A flag is for a person to look at; the gap stays until the network and the books agree.
    """
    now = gap.merchant.now()
    if gap.kind == "not_settled" and gap.payment_id is not None:
        payment = _payment(gap.payment_id)
        intent = stripe.retrieve_intent(gap.merchant, gap.theirs)
        return payments.settle(payment, intent, now=now).status == Payment.Status.SUCCEEDED
    if gap.kind == "not_ours":
        return _take_in(gap)
    if gap.kind == "refund_not_entered" and gap.payment_id is not None:
        refunds.sync(_payment(gap.payment_id), now=now)
        return True
    if gap.kind == "dispute_not_entered" and gap.payment_id is not None:
        return disputes.sync(_payment(gap.payment_id), gap.theirs, now=now) is not None
    if gap.kind == "not_paid" and gap.payment_id is not None:
        return settlement.flag(gap.payment_id, FLAG_NOT_PAID)
    if gap.kind == "amounts_differ" and gap.payment_id is not None:
        words = f"The card network took {_shown(gap.their_amount)}, not {_shown(gap.our_amount)}."
        return settlement.flag(gap.payment_id, words)
    if gap.kind == "refund_not_made" and gap.refund_id is not None:
        return refunds.flag(gap.refund_id, FLAG_NOT_REFUNDED)
    if gap.kind == "refund_amounts_differ" and gap.refund_id is not None:
        theirs, ours = _shown(gap.their_amount), _shown(gap.our_amount)
        words = f"The card network gave back {theirs}, not {ours}."
        return refunds.flag(gap.refund_id, words)
    return False


def _take_in(gap: Gap) -> bool:
    """Enter a payment that a restored book has lost; whether its row could be made anew."""
    intent = stripe.retrieve_intent(gap.merchant, gap.theirs)
    row = lost.take_in(
        gap.merchant, intent.terms, amount_minor=intent.amount_minor, currency=intent.currency
    )
    if row is None:
        return False
    payments.settle(_payment(row.pk), intent, now=lost.taken_at(row, charged_at=intent.charged_at))
    return True


def _of_intent(merchant: Merchant, intent: stripe.Intent) -> Iterator[Gap]:
    """What is wrong with a paid intent, if anything is."""
    theirs = money.from_minor(intent.amount_minor, intent.currency)
    row = _row_of(merchant, intent)
    if row is None:
        of_us = intent.terms.get("lava_merchant", merchant.public_id) == merchant.public_id
        if intent.payment_id and of_us and not _is_anothers(merchant, intent.payment_id):
            yield Gap("not_ours", merchant, intent.payment_id, intent.id, None, theirs)
        return
    if row.status != Payment.Status.SUCCEEDED:
        charged_at = stripe.retrieve_intent(merchant, intent.id).charged_at
        if _is_under_way(row.asked_at, charged_at) or _is_settled(row):
            return
        yield Gap("not_settled", merchant, row.public_id, intent.id, row.amount, theirs, row.pk)
    elif row.amount != theirs:
        yield Gap("amounts_differ", merchant, row.public_id, intent.id, row.amount, theirs, row.pk)


def _not_paid(merchant: Merchant, seen: set[str], *, since: datetime | None) -> Iterator[Gap]:
    """Payments we have as paid that were not in the list: asked about one by one, since they may
    have been paid after it was read."""
    rows = Payment.objects.of(merchant).filter(status=Payment.Status.SUCCEEDED)
    for row in rows.order_by("pk").iterator(2000):
        if row.intent_id in seen or _is_before(row.pk, since):
            continue
        there: Money | None = None
        if row.intent_id:
            try:
                intent = stripe.retrieve_intent(merchant, row.intent_id)
            except errors.Refused:
                pass
            else:
                there = money.from_minor(intent.amount_minor, intent.currency)
                if intent.status == "succeeded" and there == row.amount:
                    continue
                if intent.status == "succeeded":
                    yield Gap(
                        "amounts_differ",
                        merchant,
                        row.public_id,
                        row.intent_id,
                        row.amount,
                        there,
                        row.pk,
                    )
                    continue
        yield Gap("not_paid", merchant, row.public_id, row.intent_id, row.amount, there, row.pk)


def _of_refund(merchant: Merchant, found: stripe.Refund) -> Iterator[Gap]:
    """What is wrong with a refund the network has, if anything is."""
    payment: Payment | None = (
        Payment.objects.of(merchant).filter(intent_id=found.intent_id).first()
        if found.intent_id
        else None
    )
    if payment is None:
        return
    theirs = money.from_minor(found.amount_minor, found.currency)
    row: Refund | None = Refund.objects.of(merchant).filter(refund_id=found.id).first()
    if row is None and found.our_id:
        row = Refund.objects.of(merchant).filter(pk=_key(Refund.ID_PREFIX, found.our_id)).first()
    failed = found.status in ("failed", "canceled")
    if row is None:
        if not failed and not _is_under_way(None, found.made_at):
            yield Gap(
                "refund_not_entered", merchant, "", found.id, None, theirs, payment_id=payment.pk
            )
        return
    as_ours = {
        "succeeded": (Refund.Status.SUCCEEDED,),
        "failed": (Refund.Status.FAILED,),
        "canceled": (Refund.Status.FAILED,),
    }.get(found.status, Refund.OPEN)
    if row.status not in as_ours:
        if _is_under_way(row.asked_at, found.made_at):
            return
        yield Gap(
            "refund_not_entered",
            merchant,
            row.public_id,
            found.id,
            row.amount,
            theirs,
            payment.pk,
            row.pk,
        )
    elif row.amount != theirs and not failed:
        yield Gap(
            "refund_amounts_differ",
            merchant,
            row.public_id,
            found.id,
            row.amount,
            theirs,
            payment.pk,
            row.pk,
        )


def _not_refunded(merchant: Merchant, seen: set[str], *, since: datetime | None) -> Iterator[Gap]:
    """Refunds we have as made that were not in the list, asked about one by one."""
    rows = Refund.objects.of(merchant).filter(status=Refund.Status.SUCCEEDED)
    for row in rows.order_by("pk").iterator(2000):
        if row.refund_id in seen or _is_before(row.pk, since):
            continue
        if row.refund_id:
            try:
                found = stripe.retrieve_refund(merchant, row.refund_id)
            except errors.Refused:
                pass
            else:
                if found.status == "succeeded":
                    continue
        yield Gap(
            "refund_not_made",
            merchant,
            row.public_id,
            row.refund_id,
            row.amount,
            None,
            row.payment_id,
            row.pk,
        )


def _of_dispute(merchant: Merchant, found: stripe.Dispute) -> Iterator[Gap]:
    payment: Payment | None = (
        Payment.objects.of(merchant).filter(intent_id=found.intent_id).first()
        if found.intent_id
        else None
    )
    if payment is None:
        return
    row: Dispute | None = Dispute.objects.of(merchant).filter(dispute_id=found.id).first()
    if row is not None and row.status == disputes.status_of(found):
        return
    yield Gap(
        "dispute_not_entered",
        merchant,
        row.public_id if row is not None else "",
        found.id,
        row.amount if row is not None else None,
        money.from_minor(found.amount_minor, found.currency),
        payment.pk,
    )


def _row_of(merchant: Merchant, intent: stripe.Intent) -> Payment | None:
    """Our row of an intent: by its id, or by ours where its answer never came."""
    rows = Payment.objects.of(merchant)
    row: Payment | None = rows.filter(intent_id=intent.id).first()
    if row is None and intent.payment_id:
        row = rows.filter(pk=_key(Payment.ID_PREFIX, intent.payment_id)).first()
    return row


def _is_anothers(merchant: Merchant, payment_id: str) -> bool:
    """Whether a payment is in the books of another merchant with the same account."""
    key = _key(Payment.ID_PREFIX, payment_id)
    return key is None or Payment.objects.filter(pk=key).exclude(merchant=merchant).exists()


def _key(prefix: str, text: str) -> UUID | None:
    """The key of an id the network keeps for us; None for what is none of ours."""
    try:
        return ids.parse(prefix, text)
    except errors.NotFound:
        return None


def _shown(amount: Money | None) -> str:
    return money.show(amount) if amount is not None else "nothing"


def _is_under_way(asked_at: datetime | None, made_at: int) -> bool:
    """Whether a thing was asked for, or was done at the network, a moment ago."""
    now = timezone.now()
    if asked_at is not None and now - asked_at < UNDER_WAY:
        return True
    return bool(made_at) and now.timestamp() - made_at < UNDER_WAY.total_seconds()


def _is_settled(row: Payment) -> bool:
    """Read again: it may have been settled since the list was read."""
    return bool(Payment.objects.filter(pk=row.pk, status=Payment.Status.SUCCEEDED).exists())


def _is_before(key: UUID, since: datetime | None) -> bool:
    return since is not None and ids.made_at(key) < since


def _payment(key: UUID) -> Payment:
    found: Payment = Payment.objects.select_related("merchant__organization").get(pk=key)
    return found
