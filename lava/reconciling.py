"""A run of reconciling: the books' own sums, then ours against the card network's; and its mends.

Wires billing, meters and checkout together: a payment that is settled late may finish a checkout.
Called by `lava.tasks`, the console and `manage.py reconcile`.
"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from uuid import UUID

from django.db.models import Sum
from django.utils import timezone

from billing import checks, errors, ids, reconcile, reconciliations
from billing.models import Payment, Reconciliation, Refund
from checkout import sessions
from meters import checks as usage_checks

# The timetable looks at so much; older payments do not change any more.
WINDOW = timedelta(days=30)
ZERO = Decimal(0)


def run(run_id: UUID) -> None:
    """Do a run that was asked for, unless somebody is at it. Changes nothing it looks at."""
    row = reconciliations.begin(run_id, now=timezone.now())
    if row is None:
        return
    own = [*checks.of(row.merchant), *usage_checks.of(row.merchant)]
    gaps: list[reconcile.Gap] = []
    error = ""
    try:
        gaps = list(reconcile.gaps(row.merchant, since=row.since))
    except errors.LavaError as refusal:
        error = refusal.message
    else:
        own += [_payments(row, gaps), _refunds(row, gaps)]
    reconciliations.finish(
        row,
        checks=[check.stored() for check in own],
        gaps=gaps,
        now=timezone.now(),
        error=error,
    )


def mend(gap: reconcile.Gap) -> bool:
    """Mend a gap, and finish the checkout of a payment that was settled just now, if it has one."""
    done = reconcile.mend(gap)
    if gap.kind == "not_settled" and gap.payment_id is not None:
        payment = Payment.objects.get(pk=gap.payment_id)
        sessions.complete_for_payment(payment, now=gap.merchant.now())
    return done


def _payments(row: Reconciliation, gaps: list[reconcile.Gap]) -> checks.Check:
    """What was paid, as the network has it and as we do: ours, and the gaps on top."""
    rows = Payment.objects.of(row.merchant).filter(status=Payment.Status.SUCCEEDED)
    if row.since is not None:
        rows = rows.filter(pk__gte=ids.first(row.since))
    ours = rows.aggregate(sum=Sum("amount", default=ZERO))["sum"]
    theirs, off = ours, 0
    for gap in gaps:
        if gap.kind in ("not_settled", "not_ours"):
            theirs += gap.their_amount.amount if gap.their_amount else ZERO
        elif gap.kind in ("not_paid", "amounts_differ"):
            taken = gap.kind == "amounts_differ" and gap.their_amount is not None
            theirs += gap.their_amount.amount if taken and gap.their_amount else ZERO
            theirs -= gap.our_amount.amount if gap.our_amount else ZERO
        else:
            continue
        off += 1
    return checks.Check(
        "Each payment at Stripe is in the books", "Stripe and payments", theirs, ours, off,
        rows.count(),
    )  # fmt: skip


def _refunds(row: Reconciliation, gaps: list[reconcile.Gap]) -> checks.Check:
    rows = Refund.objects.of(row.merchant).filter(status=Refund.Status.SUCCEEDED)
    if row.since is not None:
        rows = rows.filter(pk__gte=ids.first(row.since))
    ours = rows.aggregate(sum=Sum("amount", default=ZERO))["sum"]
    theirs, off = ours, 0
    for gap in gaps:
        if gap.kind == "refund_not_entered":
            theirs += gap.their_amount.amount if gap.their_amount else ZERO
        elif gap.kind in ("refund_not_made", "refund_amounts_differ"):
            theirs += gap.their_amount.amount if gap.their_amount else ZERO
            theirs -= gap.our_amount.amount if gap.our_amount else ZERO
        else:
            continue
        off += 1
    return checks.Check(
        "Each refund at Stripe is in the books", "Stripe and refunds", theirs, ours, off,
        rows.count(),
    )  # fmt: skip
