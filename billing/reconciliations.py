"""Runs of reconciling: asked for, taken by one worker, finished, their gaps mended one by one.

The only writer of `Reconciliation`. What a run does is `lava.reconciling`, because it looks at
usage too; the differences with the network are `billing.reconcile`. All times here are real ones.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import Q
from moneyed import Money

from billing import errors, reconcile
from billing.models import Merchant, Payment, Reconciliation

# A run whose worker was killed is taken again after so long.
LEASE = timedelta(minutes=15)
State = Reconciliation.State


def ask(
    merchant: Merchant, *, since: datetime | None, now: datetime, actor: str = ""
) -> Reconciliation:
    """Ask for a run; while one is open it is that one."""
    try:
        with transaction.atomic():
            row = Reconciliation(
                merchant=merchant, since=since, actor=actor.strip()[:255], asked_at=now
            )
            row.save()
            return row
    except IntegrityError:
        found: Reconciliation = Reconciliation.objects.of(merchant).get(
            state__in=Reconciliation.OPEN
        )
        return found


def waiting(now: datetime) -> list[UUID]:
    """Runs that no worker is at, the oldest first."""
    rows = Reconciliation.objects.filter(
        Q(state=State.WAITING) | Q(state=State.RUNNING, started_at__lt=now - LEASE)
    )
    return list(rows.order_by("asked_at").values_list("pk", flat=True)[:50])


def to_look_at() -> list[Merchant]:
    """The books with payments: those the timetable looks at."""
    paid = Merchant.objects.filter(pk__in=Payment.objects.values("merchant"))
    return list(paid.select_related("organization").order_by("pk"))


@transaction.atomic
def begin(run_id: UUID, *, now: datetime) -> Reconciliation | None:
    """Take a run; None when another worker has it or it is over."""
    row: Reconciliation | None = (
        Reconciliation.objects.select_for_update(of=("self",), no_key=True, skip_locked=True)
        .select_related("merchant__organization")
        .filter(pk=run_id)
        .first()
    )
    if row is None or row.state not in Reconciliation.OPEN:
        return None
    if row.started_at is not None and row.started_at > now - LEASE:
        return None
    row.state, row.started_at = State.RUNNING, now
    row.save(update_fields=["state", "started_at"])
    return row


def finish(
    row: Reconciliation,
    *,
    checks: list[dict[str, Any]],
    gaps: list[reconcile.Gap],
    now: datetime,
    error: str = "",
) -> None:
    """Keep what a run found. `error`: the network was not reached, so the gaps are unknown."""
    mine = Reconciliation.objects.filter(pk=row.pk, state=State.RUNNING, started_at=row.started_at)
    mine.update(
        state=State.FAILED if error else State.DONE,
        checks=checks,
        gaps=[_stored(gap) for gap in gaps],
        error=error[:255],
        finished_at=now,
    )


@transaction.atomic
def note_mend(row: Reconciliation, place: int, *, actor: str, left: bool, now: datetime) -> None:
    """Write down that a gap was mended, or only flagged (`left`)."""
    fresh = Reconciliation.objects.select_for_update(no_key=True).get(pk=row.pk)
    gap = fresh.gaps[place]
    gap |= {"mended_by": actor[:255], "mended_at": now.isoformat(), "left": left}
    fresh.save(update_fields=["gaps"])
    row.gaps = fresh.gaps


def gap_of(row: Reconciliation, place: int) -> reconcile.Gap:
    """A gap as `billing.reconcile.mend` takes it; it looks at both sides anew before it acts.

    Raises:
        billing.errors.NotFound: there is no such gap, or it is mended.
    """
    if not 0 <= place < len(row.gaps) or row.gaps[place].get("mended_at"):
        raise errors.NotFound("That gap is not open any more.")
    kept = row.gaps[place]

    def amount(name: str) -> Money | None:
        return Money(kept[name], kept["currency"]) if kept[name] is not None else None

    return reconcile.Gap(
        kind=kept["kind"],
        merchant=row.merchant,
        ours=kept["ours"],
        theirs=kept["theirs"],
        our_amount=amount("our_amount"),
        their_amount=amount("their_amount"),
        payment_id=UUID(kept["payment"]) if kept["payment"] else None,
        refund_id=UUID(kept["refund"]) if kept["refund"] else None,
    )


def _stored(gap: reconcile.Gap) -> dict[str, Any]:
    either = gap.their_amount or gap.our_amount
    return {
        "kind": gap.kind,
        "ours": gap.ours,
        "theirs": gap.theirs,
        "our_amount": str(gap.our_amount.amount) if gap.our_amount is not None else None,
        "their_amount": str(gap.their_amount.amount) if gap.their_amount is not None else None,
        "currency": str(either.currency) if either is not None else gap.merchant.currency,
        "payment": str(gap.payment_id) if gap.payment_id else "",
        "refund": str(gap.refund_id) if gap.refund_id else "",
    }
