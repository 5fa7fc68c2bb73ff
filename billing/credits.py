"""Credits: grant them, take them back, let them end, roll them over, say how many are left.

Every verb here runs inside a transaction that holds the connection's lock (`ledger.lock`). The
draw itself (which grants pay a fee, in which order) is `billing_spend` in
`billing/sql/ledger.sql`, because a charge is one trip to the database.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db.models import F, Q, Sum

from billing import errors, ids, ledger, money
from billing.models import Connection, CreditBundle, CreditGrant, Cycle, Payment
from billing.models.credits import SLACK

ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Balance:
    """What a connection can spend, in its currency: `total` = `cycle` + `bundle` - `debt`."""

    cycle: Decimal
    bundle: Decimal
    debt: Decimal
    currency: str
    # Set aside by open holds; part of `total`, and spendable by nothing else.
    held: Decimal = ZERO

    @property
    def total(self) -> Decimal:
        return self.cycle + self.bundle - self.debt

    @property
    def available(self) -> Decimal:
        """What a new hold or an enforced request can still take."""
        return max(self.total - self.held, ZERO)


def live(now: datetime) -> Q:
    """The grants whose life holds `now`: `[effective_at, expires_at)`, where one that a machine
    with a clock ahead has just given has begun."""
    return Q(effective_at__lte=now + SLACK) & (Q(expires_at=None) | Q(expires_at__gt=now))


def balance(connection: Connection, *, now: datetime) -> Balance:
    """The live balance at `now`; needs no lock. Credits that have ended no longer count."""
    sums: dict[int, Decimal] = dict(
        CreditGrant.objects.filter(live(now), connection=connection, is_spent=False)
        .values_list("pool")
        .annotate(Sum("remaining"))
        .order_by()
    )
    debt, held = Connection.objects.values_list("debt", "held").get(pk=connection.pk)
    return Balance(
        cycle=sums.get(CreditGrant.Pool.CYCLE, ZERO),
        bundle=sums.get(CreditGrant.Pool.BUNDLE, ZERO),
        debt=debt,
        currency=connection.currency,
        held=held,
    )


def grant(
    connection: Connection,
    *,
    source: str,
    amount: Decimal,
    now: datetime,
    expires_at: datetime | None = None,
    origin_at: datetime | None = None,
    cycle: Cycle | None = None,
    payment: Payment | None = None,
    bundle: CreditBundle | None = None,
    reason: str = "",
    actor: str = "",
) -> UUID | None:
    """Add a lot of credits; debt is paid first out of it, as lines of its own.

    Returns the id of the grant, or None for an amount of 0 (nothing is written).
    """
    if amount == 0:
        return None
    pool = (
        CreditGrant.Pool.CYCLE
        if source in (CreditGrant.Source.CYCLE, CreditGrant.Source.ROLLOVER)
        else CreditGrant.Pool.BUNDLE
    )
    grant_id = ids.new(sandbox=connection.merchant.is_sandbox)
    ledger.call(
        "SELECT billing_grant(%s, %s, %s, %s, %s, 0, %s, %s, %s, %s, %s, %s, %s, %s)",
        grant_id,
        connection.pk,
        int(pool),
        str(source),
        amount,
        expires_at,
        origin_at or now,
        cycle.pk if cycle else None,
        payment.pk if payment else None,
        bundle.pk if bundle else None,
        reason,
        actor,
        now,
    )
    return grant_id


def in_order(connection: Connection, *, now: datetime) -> Any:
    """The grants that have something to spend at `now`, in the order of the draw."""
    lots = CreditGrant.objects.filter(live(now), connection=connection, is_spent=False)
    return lots.order_by(
        "priority", F("expires_at").asc(nulls_last=True), "pool", "origin_at", "pk"
    )


def head(connection: Connection) -> dict[str, str]:
    """The balance as events tell it."""
    total = Connection.objects.values_list("balance", flat=True).get(pk=connection.pk)
    return {"balance": money.wire(total), "currency": connection.currency}


def give(
    connection: Connection, *, amount: Decimal, reason: str, actor: str, now: datetime
) -> UUID:
    """Give credits by hand; they never end on their own.

    Raises:
        billing.errors.Invalid: no positive amount, no reason, or no name of who gives.
        billing.errors.Conflict: the connection was deleted: nobody could spend them.
    """
    if connection.status == Connection.Status.DELETED:
        raise errors.Conflict("This customer was deleted: nobody could spend the credits.")
    if amount <= 0:
        raise errors.Invalid("Give an amount above 0.", param="amount")
    if not reason.strip():
        raise errors.Invalid("Say why the credits are given.", param="reason")
    if not actor.strip():
        raise errors.Invalid("Say who gives the credits.", param="actor")
    grant_id = grant(
        connection,
        source=CreditGrant.Source.MANUAL,
        amount=money.round_fee(amount),
        now=now,
        reason=reason.strip(),
        actor=actor.strip(),
    )
    assert grant_id is not None
    return grant_id


def take(
    connection: Connection,
    *,
    amount: Decimal,
    reason: str,
    actor: str,
    now: datetime,
    grant_id: UUID | None = None,
) -> list[tuple[UUID, Decimal]]:
    """Take credits away by hand, as `adjust` lines, in the order of the draw or from one grant.

    Only what is there is taken: it never makes debt, and leaves open holds what they set aside.
    Gives what came out of which grant.

    Raises:
        billing.errors.Invalid: no positive amount, no reason, or no name of who takes.
        billing.errors.NotFound: no such grant of the connection.
        billing.errors.Refused: more than is left (`more_than_is_left`).
    """
    if amount <= 0:
        raise errors.Invalid("Take an amount above 0.", param="amount")
    if not reason.strip():
        raise errors.Invalid("Say why the credits are taken.", param="reason")
    if not actor.strip():
        raise errors.Invalid("Say who takes the credits.", param="actor")
    need = money.round_fee(amount)
    expire(connection, now=now)
    lots = in_order(connection, now=now)
    if grant_id is not None:
        if not CreditGrant.objects.filter(connection=connection, pk=grant_id).exists():
            raise errors.NotFound("No such grant.", param="grant_id")
        lots = lots.filter(pk=grant_id)
    left = sum((lot.remaining for lot in lots), ZERO)
    standing = balance(connection, now=now)
    apart = ""
    if standing.held > 0 and standing.available < left:
        left = standing.available
        apart = f" {standing.held.normalize():f} is set aside by holds."
    if need > left:
        raise errors.Refused(
            f"Only {left.normalize():f} is left to take.{apart}",
            code="more_than_is_left",
            param="amount",
            available=money.wire(left),
        )
    taken: list[tuple[UUID, Decimal]] = []
    for lot in lots:
        part = min(need, lot.remaining)
        if part == 0:
            break
        ledger.append(
            connection,
            kind="adjust",
            amount=-part,
            grant_id=lot.pk,
            reason=reason.strip(),
            actor=actor.strip(),
            now=now,
        )
        taken.append((lot.pk, part))
        need -= part
    return taken


def unspend(
    connection: Connection,
    *,
    request_id: UUID,
    in_cycle: bool,
    reason: str,
    actor: str,
    now: datetime,
) -> Decimal:
    """Give back what a request drew, once, to the grants it came from; gives the sum.

    What became debt is owed no more; the part of it that is paid already becomes a grant without
    end (`billing_unspend`). `in_cycle`: the request counted to the overage of the running cycle.
    """
    return Decimal(
        ledger.call(
            "SELECT billing_unspend(%s, %s, %s, %s, %s, %s, %s)",
            connection.pk,
            request_id,
            ids.new(sandbox=connection.merchant.is_sandbox),
            in_cycle,
            reason,
            actor,
            now,
        )
    )


def expire(connection: Connection, *, now: datetime) -> Decimal:
    """Enter the end of grants whose life is over; gives the sum that ended."""
    return Decimal(ledger.call("SELECT billing_expire(%s, %s)", connection.pk, now))


def pay_debt(connection: Connection, *, now: datetime) -> Decimal:
    """Pay debt out of live credits, but for what an open charge is collecting; gives the sum."""
    expire(connection, now=now)
    return Decimal(ledger.call("SELECT billing_pay_debt(%s, %s)", connection.pk, now))


def roll_over(
    connection: Connection, *, cycle: Cycle, cap: Decimal | None, now: datetime
) -> Decimal:
    """Carry what is left of the cycle's credits into `cycle`, as one grant that keeps their age.

    Above `cap` the oldest is cut, as `expire` lines (money.md, Cycles). Gives what was carried.
    """
    lots = list(
        CreditGrant.objects.filter(
            live(now), connection=connection, pool=CreditGrant.Pool.CYCLE, is_spent=False
        ).order_by("origin_at", "pk")
    )
    total = sum((lot.remaining for lot in lots), ZERO)
    cut = max(total - cap, ZERO) if cap is not None else ZERO
    origin: datetime | None = None
    for lot in lots:
        lost = min(cut, lot.remaining)
        cut -= lost
        ledger.append(connection, kind="expire", amount=-lost, grant_id=lot.pk, now=now)
        kept = lot.remaining - lost
        ledger.append(connection, kind="roll", amount=-kept, grant_id=lot.pk, now=now)
        if kept and origin is None:
            origin = lot.origin_at
    carried = min(total, cap) if cap is not None else total
    grant(
        connection,
        source=CreditGrant.Source.ROLLOVER,
        amount=carried,
        now=now,
        origin_at=origin,
        cycle=cycle,
    )
    return carried


def end(
    connection: Connection, *, pool: int, now: datetime, granted_before: datetime | None = None
) -> Decimal:
    """End what is left of a pool now (of grants before an instant), as `expire` lines; gives the
    sum."""
    ended = ZERO
    lots = CreditGrant.objects.filter(connection=connection, pool=pool, is_spent=False)
    if granted_before is not None:
        lots = lots.filter(effective_at__lt=granted_before)
    for lot in lots.order_by("origin_at", "pk"):
        ledger.append(connection, kind="expire", amount=-lot.remaining, grant_id=lot.pk, now=now)
        ended += lot.remaining
    return ended
