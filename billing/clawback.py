"""Taking back what a payment granted, and giving it back: for refunds and disputes.

Every function here runs inside a transaction that holds the connection's lock. What a payment
granted may have been spent, have ended, or have rolled into later grants: `shares` follows it
there, the oldest credit being spent first. What is no longer there becomes debt. Called by
`billing.refunds` and `billing.disputes`; lines are of kind `clawback`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID

from django.db.models import Case, F, Sum, When

from billing import credits, ledger, money
from billing.models import Connection, CreditGrant, Dispute, LedgerEntry, Payment, Refund

ZERO = Decimal(0)
# Who took or gave money back where no person of the merchant did.
NETWORK = "Card network"
_BOUGHT = (CreditGrant.Source.CYCLE, CreditGrant.Source.BUNDLE)


@dataclass(frozen=True, slots=True)
class Taken:
    """What was taken: (grant, or None for the debt, amount) a line."""

    lines: tuple[tuple[UUID | None, Decimal], ...]

    @property
    def credits(self) -> Decimal:
        return sum((amount for grant, amount in self.lines if grant is not None), ZERO)

    @property
    def debt(self) -> Decimal:
        return sum((amount for grant, amount in self.lines if grant is None), ZERO)

    def stored(self) -> list[list[str | None]]:
        """As the row keeps it."""
        return [
            [str(grant) if grant is not None else None, f"{amount:f}"]
            for grant, amount in self.lines
        ]


def granted(payment: Payment) -> Decimal:
    """The credits a payment bought; 0 for overage, which pays what was owed. Of an upgrade's only
    the share of the price that the card paid: the rest was bought with credits given in payment,
    which another payment had bought."""
    grants = CreditGrant.objects.filter(payment=payment, source__in=_BOUGHT)
    whole: Decimal = grants.aggregate(sum=Sum("amount"))["sum"] or ZERO
    return money.round_fee(Fraction(whole) * _share(payment)) if payment.unused_value else whole


def left(payment: Payment) -> Decimal:
    """How much of what a payment bought is unspent, wherever it rolled to."""
    return _left(payment, shares(payment))


def _left(payment: Payment, there: Mapping[UUID, Decimal]) -> Decimal:
    total = sum(there.values(), ZERO)
    if not payment.unused_value:
        return total
    # Both shares are spent alike; what was taken back before was of the card's alone.
    taken, _ = _taken_before(payment)
    mine = money.round_fee((Fraction(total) + Fraction(taken)) * _share(payment)) - taken
    return min(max(mine, ZERO), total)


def _share(payment: Payment) -> Fraction:
    """What the card paid of a price, the rest of which was given in credits."""
    paid = Fraction(payment.amount.amount)
    return paid / (paid + Fraction(payment.unused_value))


def due(payment: Payment, amount: Decimal, *, besides: UUID | None = None) -> Decimal:
    """The credits that go with giving back `amount` of what was paid: their share, never more in
    all than was granted. The last part takes what rounding left. `besides`: a dispute that is not
    counted as having held any back before."""
    whole = granted(payment)
    before = sum(_taken_before(payment, besides=besides), ZERO)
    if amount + _back_before(payment, besides=besides) >= payment.amount.amount:
        return whole - before
    share = money.round_fee(Fraction(whole) * Fraction(amount) / Fraction(payment.amount.amount))
    return min(share, whole - before)


def take(
    connection: Connection,
    payment: Payment,
    *,
    amount: Decimal,
    reason: str,
    actor: str,
    now: datetime,
) -> Taken:
    """Take `amount` of credits back: out of what is left of the payment's, the rest as debt."""
    credits.expire(connection, now=now)
    there = shares(payment)
    need = min(amount, _left(payment, there))
    lines: list[tuple[UUID | None, Decimal]] = []
    for grant_id, rest in there.items():
        part = min(need, rest)
        if part > 0:
            lines.append((grant_id, part))
            need -= part
    spent = amount - sum((part for _, part in lines), ZERO)
    if spent > 0:
        lines.append((None, spent))
    _write(connection, payment, lines, sign=-1, reason=reason, actor=actor, now=now)
    credits.pay_debt(connection, now=now)
    return Taken(tuple(lines))


def take_disputed(connection: Connection, payment: Payment, row: Dispute, *, now: datetime) -> None:
    """Take what goes with a dispute's amount and is not held back yet; the caller saves the row."""
    need = due(payment, row.amount.amount, besides=row.pk)
    if payment.purpose == Payment.Purpose.OVERAGE and not payment.flag:
        # What the card had paid is owed again.
        need = min(row.amount.amount, payment.amount.amount - payment.refunded)
    need -= row.credits_taken + row.debt_made
    if need <= ZERO:
        return
    taken = take(
        connection, payment, amount=need, reason="Payment disputed", actor=NETWORK, now=now
    )
    row.taken = [*row.taken, *taken.stored()]
    row.credits_taken += taken.credits
    row.debt_made += taken.debt


def take_rest(connection: Connection, payment: Payment, *, now: datetime) -> None:
    """After a refund failed and its credits were given back: the disputes that hold the same money
    take what the refund had taken before them."""
    for row in _disputes(payment, besides=None).order_by("pk"):
        take_disputed(connection, payment, row, now=now)
        row.save()


def take_refunded(connection: Connection, row: Refund, *, amount: Decimal, now: datetime) -> None:
    """Take `amount` of credits for a refund, and flag it where they were spent."""
    taken = take(
        connection,
        row.payment,
        amount=amount,
        reason=f"Refund of {money.show(row.amount)}: {row.reason}",
        actor=row.actor,
        now=now,
    )
    row.taken = [*row.taken, *taken.stored()]
    row.credits_taken += taken.credits
    row.debt_made += taken.debt
    if row.debt_made > 0:
        owed = money.display(row.debt_made, connection.currency)
        row.flag = f"{owed} of its credits was spent already and became debt."
    row.save()


def take_rest_refunded(connection: Connection, payment: Payment, *, now: datetime) -> None:
    """After a dispute was won and its credits given back: the refunds of the same money, for which
    the bank may have decided so, take what the dispute had taken before them."""
    whole, price = granted(payment), payment.amount.amount
    rows = list(
        Refund.objects.filter(payment=payment).exclude(status=Refund.Status.FAILED).order_by("pk")
    )
    for row in rows:
        share = money.round_fee(Fraction(whole) * Fraction(row.amount.amount) / Fraction(price))
        rest = whole - sum(_taken_before(payment), ZERO)
        is_last = row is rows[-1] and payment.refunded >= price
        need = rest if is_last else min(share - row.credits_taken - row.debt_made, rest)
        if need > ZERO:
            take_refunded(connection, row, amount=need, now=now)


def give_back(
    connection: Connection,
    payment: Payment,
    taken: Sequence[Sequence[str | None]],
    *,
    reason: str,
    actor: str,
    now: datetime,
) -> None:
    """Undo a `take`. Credits return to the grants they came from; of those that have ended they
    end at once. Debt that was paid meanwhile comes back as a grant of its own."""
    lines = [(UUID(grant) if grant else None, Decimal(amount or 0)) for grant, amount in taken]
    owed = sum((amount for grant, amount in lines if grant is None), ZERO)
    credits.expire(connection, now=now)
    connection.refresh_from_db(fields=["debt", "collecting"])
    off = min(owed, connection.debt - connection.collecting)
    for grant_id, amount in lines:
        if grant_id is None:
            continue
        is_over = _is_over(connection, payment, grant_id, amount, now=now)
        _write(
            connection, payment, [(grant_id, amount)], sign=1, reason=reason, actor=actor, now=now
        )
        if is_over:
            ledger.append(connection, kind="expire", amount=-amount, grant_id=grant_id, now=now)
    if off > 0:
        _write(connection, payment, [(None, off)], sign=1, reason=reason, actor=actor, now=now)
    if owed > off:
        credits.grant(
            connection,
            source=CreditGrant.Source.RETURNED,
            amount=owed - off,
            now=now,
            reason=reason,
            actor=actor,
        )
    credits.pay_debt(connection, now=now)


def _is_over(
    connection: Connection, payment: Payment, grant_id: UUID, amount: Decimal, *, now: datetime
) -> bool:
    """Whether a grant has ended since so much was taken of it, as for a request taken back."""
    line = LedgerEntry.objects.filter(
        connection=connection, grant_id=grant_id, payment=payment, kind="clawback", amount=-amount
    ).latest("seq")
    return bool(
        ledger.call(
            "SELECT billing_has_ended(%s, %s, %s, %s)", grant_id, connection.pk, line.seq, now
        )
    )


def shares(payment: Payment) -> dict[UUID, Decimal]:
    """What is left of a payment's credits, by the grant it is in now."""
    own = list(
        CreditGrant.objects.filter(payment=payment, source__in=_BOUGHT)
        .order_by("pk")
        .values_list("pk", "remaining")
    )
    rolls = list(
        LedgerEntry.objects.filter(connection_id=payment.connection_id, kind="roll")
        .order_by("seq")
        .values_list("grant_id", "amount")
    )
    rolled = {grant_id for grant_id, _ in rolls}
    if not any(grant_id in rolled for grant_id, _ in own):
        return {grant_id: rest for grant_id, rest in own if rest > 0}
    found: dict[UUID, Decimal] = {}
    for grant_id, pieces in _replay(rolls).items():
        mine = sum((amount for owner, amount in pieces if owner == payment.pk), ZERO)
        if mine > 0:
            found[grant_id] = mine
    # A second grant of the same payment that never rolled.
    return found | {grant: rest for grant, rest in own if grant not in rolled and rest > 0}


Piece = tuple[UUID | None, Decimal]


def _replay(rolls: list[tuple[UUID, Decimal]]) -> dict[UUID, list[Piece]]:
    """Whose credits each rolled grant holds now: (payment, amount), the oldest first.

    Each roll is written as lines out of the old grants and then one line into the new one. Sums
    suffice for the rest: within a grant the oldest is spent first, whenever that was.
    """
    grants = {grant_id for grant_id, _ in rolls}
    spent: dict[UUID, Decimal] = {}
    clawed: dict[UUID, list[Piece]] = {}
    # A clawback is of its payment's credits, whatever else is in the grant.
    lines = (
        LedgerEntry.objects.filter(grant_id__in=grants)
        .exclude(kind__in=("grant", "roll"))
        .annotate(owner=Case(When(kind="clawback", then=F("payment_id"))))
        .values_list("grant_id", "owner")
        .annotate(sum=Sum("amount"))
        .order_by()
    )
    for grant_id, owner, total in lines:
        if owner is None:
            spent[grant_id] = -total
        else:
            clawed.setdefault(grant_id, []).append((owner, -total))

    def after(grant_id: UUID, pieces: list[Piece]) -> list[Piece]:
        for owner, amount in clawed.get(grant_id, []):
            pieces = _without(pieces, amount, owner=owner)
        return _without(pieces, spent.get(grant_id, ZERO))

    holds: dict[UUID, list[Piece]] = {
        grant_id: after(grant_id, [(payment_id, amount)])
        for grant_id, payment_id, amount in CreditGrant.objects.filter(pk__in=grants)
        .exclude(source=CreditGrant.Source.ROLLOVER)
        .values_list("pk", "payment_id", "amount")
    }
    carried: list[Piece] = []
    for grant_id, amount in rolls:
        if amount > 0:
            holds[grant_id] = after(grant_id, carried)
            carried = []
        else:
            pieces = holds.get(grant_id, [])
            holds[grant_id] = _without(pieces, -amount)
            carried += _front(pieces, -amount)
    return holds


def _without(pieces: list[Piece], amount: Decimal, *, owner: UUID | None = None) -> list[Piece]:
    """The pieces after `amount` was spent: of `owner` first where one is named, else in order."""
    kept: list[Piece] = []
    for whose, rest in pieces:
        part = min(amount, rest) if owner is None or whose == owner else ZERO
        amount -= part
        if rest > part:
            kept.append((whose, rest - part))
    return kept if owner is None or amount <= 0 else _without(kept, amount)


def _front(pieces: list[Piece], amount: Decimal) -> list[Piece]:
    """The first pieces, up to `amount` of them."""
    found: list[Piece] = []
    for whose, rest in pieces:
        part = min(amount, rest)
        if part > 0:
            found.append((whose, part))
        amount -= part
    return found


def _write(
    connection: Connection,
    payment: Payment,
    lines: Sequence[tuple[UUID | None, Decimal]],
    *,
    sign: int,
    reason: str,
    actor: str,
    now: datetime,
) -> None:
    for grant_id, amount in lines:
        ledger.append(
            connection,
            kind="clawback",
            amount=sign * amount,
            grant_id=grant_id,
            payment_id=payment.pk,
            reason=reason[:255],
            actor=actor[:255],
            now=now,
        )


def _disputes(payment: Payment, *, besides: UUID | None) -> Any:
    """The disputes that hold a payment's money back."""
    rows = Dispute.objects.filter(payment=payment, status__in=Dispute.TAKEN_BACK)
    return rows.exclude(pk=besides)


def _taken_before(payment: Payment, *, besides: UUID | None = None) -> tuple[Decimal, Decimal]:
    """What refunds and disputes of a payment hold back: of credits, and as debt."""
    sums = [
        Refund.objects.filter(payment=payment).exclude(status=Refund.Status.FAILED),
        _disputes(payment, besides=besides),
    ]
    credits_taken = debt_made = ZERO
    for rows in sums:
        found = rows.aggregate(credits=Sum("credits_taken"), debt=Sum("debt_made"))
        credits_taken += found["credits"] or ZERO
        debt_made += found["debt"] or ZERO
    return credits_taken, debt_made


def _back_before(payment: Payment, *, besides: UUID | None = None) -> Decimal:
    """The money that refunds and disputes of a payment have given back."""
    disputed = _disputes(payment, besides=besides).aggregate(sum=Sum("amount"))["sum"]
    refunded = Payment.objects.values_list("refunded", flat=True).get(pk=payment.pk)
    return refunded + (disputed or ZERO)
