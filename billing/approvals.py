"""Two limits of a business on what its people give away, and the second person above one of them.

Above `second_person_above` a refund, or credits given or taken by hand, is not done but asked for:
an `Approval` that another person with the same right decides within 7 days. Up to
`support_refunds_up_to` support may refund at all. What is done in small parts counts together: the
refunds of one payment, the credits a connection was given (or lost) by hand within a day. Both
sides are told by mail (`billing.approval_mails`). The only writer of `Approval` and of the two
limits. Called by the console. Locks: connection, approval, then as the act itself; no network in
between.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from django.db import transaction
from django.db.models import Sum
from moneyed import Money

from billing import approval_mails, credits, errors, ledger, money, refunds, tenancy
from billing.models import (
    Approval,
    Connection,
    CreditGrant,
    LedgerEntry,
    Membership,
    Merchant,
    Organization,
    Payment,
    Refund,
    User,
)

# How long a request waits for its second person.
LIFE = timedelta(days=7)
# Credits given by hand to one connection within this time count together.
TOGETHER = timedelta(days=1)
ZERO = Decimal(0)
Act = Approval.Act
State = Approval.State

# What a person needs to do an act, and so to approve it.
NEEDS: dict[str, str] = {
    Act.GIVE: "billing.change_connection",
    Act.TAKE: "billing.change_connection",
    Act.REFUND: "billing.add_refund",
}


@dataclass(frozen=True, slots=True)
class Wish:
    """An act as somebody means to do it: of a connection, and for a refund of a payment."""

    act: str
    connection: Connection
    amount: Decimal
    reason: str
    payment: Payment | None = None
    forced: bool = False


@transaction.atomic
def set_limits(
    organization: Organization,
    *,
    second_person_above: Decimal | None,
    support_refunds_up_to: Decimal | None,
) -> Organization:
    """Set both limits; None is no limit. Requests that wait keep waiting.

    Raises:
        billing.errors.Invalid: a limit below 0.
    """
    for name, limit in (
        ("second_person_above", second_person_above),
        ("support_refunds_up_to", support_refunds_up_to),
    ):
        if limit is not None and not 0 <= limit < 10**12:
            raise errors.Invalid("Write an amount of 0 or more.", param=name)
    row = Organization.objects.select_for_update().get(pk=organization.pk)
    row.second_person_above = second_person_above
    row.support_refunds_up_to = support_refunds_up_to
    row.save(update_fields=["second_person_above", "support_refunds_up_to"])
    return row


def needed(organization: Organization, wish: Wish, *, now: datetime) -> bool:
    """Whether an act needs a second person. Certain only under the connection's lock."""
    limit = organization.second_person_above
    return limit is not None and (wish.amount > limit or wish.amount + _before(wish, now) > limit)


def check_reach(
    membership: Membership, wish: Wish, *, organization: Organization | None = None
) -> None:
    """Whether a person may do or approve an act of this size at all.

    Raises:
        billing.errors.Forbidden: their role may not, or support may not refund so much.
    """
    if not tenancy.may(membership, NEEDS[wish.act]):
        raise errors.Forbidden("Your role may not do this. Ask an owner.")
    limit = (organization or membership.organization).support_refunds_up_to
    if wish.act != Act.REFUND or membership.role != Membership.Role.SUPPORT or limit is None:
        return
    assert wish.payment is not None
    if wish.amount > limit or wish.amount + _gone_back(wish.payment) > limit:
        shown = money.display(limit, wish.connection.currency)
        raise errors.Forbidden(
            f"Support may refund up to {shown} of a payment. Ask an owner for more.",
            code="above_support_limit",
            param="amount",
        )


@transaction.atomic
def ask(wish: Wish, *, by: User, key: str, at: datetime) -> Approval:
    """Write down what somebody means to do, for a second person. The same key again is the same.

    Raises:
        billing.errors.Invalid: no reason, or no positive amount.
        billing.errors.Conflict: the key was used with other terms.
    """
    connection = ledger.lock(wish.connection.pk, merchant_id=wish.connection.merchant_id)
    if not wish.reason.strip():
        raise errors.Invalid("Say why.", param="reason")
    if not wish.amount > 0:
        raise errors.Invalid("Write an amount above 0.", param="amount")
    made: Approval | None = Approval.objects.of(connection.merchant).filter(key=key).first()
    if made is not None:
        terms = (made.act, made.connection_id, made.payment_id, made.amount, made.asked_by_id)
        payment_id = wish.payment.pk if wish.payment else None
        if terms != (wish.act, connection.pk, payment_id, wish.amount, by.pk):
            raise errors.Conflict("That request was made with other terms.")
        return made
    row = Approval(
        merchant=connection.merchant,
        act=wish.act,
        connection=connection,
        payment=wish.payment,
        amount=wish.amount,
        forced=wish.forced,
        reason=wish.reason.strip()[:255],
        key=key,
        asked_by=by,
        asked_name=str(by)[:120],
        asked_at=at,
        expires_at=at + LIFE,
    )
    row.save()
    approval_mails.asked(row, who_may(connection.merchant, row), now=connection.merchant.now())
    return row


@transaction.atomic
def approve(row: Approval, *, by: Membership, now: datetime, at: datetime) -> Approval:
    """Do what was asked, once, under both names. `now` is the books' time, `at` real time.

    A refund is intended here; `refunds.send` it once this is committed. What the act itself
    refuses leaves the request waiting.

    Raises:
        billing.errors.Forbidden: their own request, or not theirs to do.
        billing.errors.Conflict: it is decided already.
        billing.errors.Gone: nobody answered in time.
        billing.errors.LavaError: what the act itself refuses.
    """
    connection, row = _lock(row)
    _check_open(row, at=at)
    if row.asked_by_id == by.user_id:
        raise errors.Forbidden(
            "You asked for this yourself. Another person approves it.", code="own_request"
        )
    check_reach(by, wish(row))
    row.refund = act(connection, wish(row), actor=names(row, by.user), key=_key(row), now=now)
    return _decide(row, State.APPROVED, by=by.user, at=at)


@transaction.atomic
def refuse(row: Approval, *, by: Membership, reason: str, at: datetime) -> Approval:
    """Say no, and why; nothing is done.

    Raises:
        billing.errors.Forbidden: their own request (`withdraw` it), or not theirs to decide.
        billing.errors.Invalid: no reason, or too long a one.
        billing.errors.Conflict: it is decided already.
        billing.errors.Gone: nobody answered in time.
    """
    _, row = _lock(row)
    _check_open(row, at=at)
    if row.asked_by_id == by.user_id:
        raise errors.Forbidden("You asked for this yourself: take it back instead.")
    if not tenancy.may(by, NEEDS[row.act]):
        raise errors.Forbidden("Your role may not decide this. Ask an owner.")
    if not reason.strip():
        raise errors.Invalid("Say why it is refused.", param="answer")
    if len(reason.strip()) > 255:
        raise errors.Invalid("Use at most 255 characters.", param="answer")
    row.answer = reason.strip()
    return _decide(row, State.REFUSED, by=by.user, at=at)


@transaction.atomic
def withdraw(row: Approval, *, by: User, at: datetime) -> Approval:
    """Take one's own request back.

    Raises:
        billing.errors.Forbidden: somebody else's.
        billing.errors.Conflict: it is decided already.
        billing.errors.Gone: nobody answered in time.
    """
    _, row = _lock(row)
    _check_open(row, at=at)
    if row.asked_by_id != by.pk:
        raise errors.Forbidden("Only who asked takes a request back.")
    return _decide(row, State.WITHDRAWN, by=by, at=at)


def act(
    connection: Connection, wish: Wish, *, actor: str, key: str, now: datetime
) -> Refund | None:
    """Do an act under the connection's lock; gives the intent of a refund."""
    if wish.act == Act.GIVE:
        credits.give(connection, amount=wish.amount, reason=wish.reason, actor=actor, now=now)
        return None
    if wish.act == Act.TAKE:
        credits.take(connection, amount=wish.amount, reason=wish.reason, actor=actor, now=now)
        return None
    assert wish.payment is not None
    return refunds.intend(
        wish.payment,
        amount=Money(wish.amount, wish.payment.amount.currency),
        reason=wish.reason,
        actor=actor,
        key=key,
        now=now,
        force=wish.forced,
    )


def wish(row: Approval) -> Wish:
    """What a request asks for."""
    return Wish(
        act=row.act,
        connection=row.connection,
        amount=row.amount,
        reason=row.reason,
        payment=row.payment,
        forced=row.forced,
    )


def names(row: Approval, by: User) -> str:
    """Both people, as the ledger keeps them."""
    return f"{row.asked_name}, approved by {str(by)[:120]}"


def who_may(merchant: Merchant, row: Approval) -> list[Membership]:
    """The members who could approve a request, beside who asked for it."""
    found = []
    for member in tenancy.team(merchant.organization):
        if member.user_id == row.asked_by_id:
            continue
        try:
            check_reach(member, wish(row), organization=merchant.organization)
        except errors.Forbidden:
            continue
        found.append(member)
    return found


def _before(wish: Wish, now: datetime) -> Decimal:
    """What was done before that counts together with an act."""
    if wish.payment is not None:
        return _gone_back(wish.payment)
    since = now - TOGETHER
    if wish.act == Act.GIVE:
        given = CreditGrant.objects.filter(
            connection=wish.connection,
            source=CreditGrant.Source.MANUAL,
            effective_at__gt=since,
        ).aggregate(total=Sum("amount"))
        return given["total"] or ZERO
    taken = (
        LedgerEntry.objects.filter(
            merchant_id=wish.connection.merchant_id,
            connection=wish.connection,
            kind=LedgerEntry.Kind.ADJUST,
            amount__lt=0,
            occurred_at__gt=since,
        )
        .exclude(actor="")
        .aggregate(total=Sum("amount"))
    )
    return -(taken["total"] or ZERO)


def _gone_back(payment: Payment) -> Decimal:
    """What of a payment went back or is on its way."""
    rows = Refund.objects.filter(payment=payment).exclude(status=Refund.Status.FAILED)
    return rows.aggregate(total=Sum("amount"))["total"] or ZERO


def _lock(row: Approval) -> tuple[Connection, Approval]:
    connection = ledger.lock(row.connection_id, merchant_id=row.merchant_id)
    fresh = (
        Approval.objects.select_for_update(of=("self",))
        .select_related("connection__customer", "payment__merchant__organization", "merchant")
        .get(pk=row.pk)
    )
    return connection, fresh


def _check_open(row: Approval, *, at: datetime) -> None:
    if row.state != State.WAITING:
        raise errors.Conflict(
            f"{row.decided_name} decided this already: {row.get_state_display().lower()}.",
            code="already_decided",
        )
    if not row.is_open(at):
        raise errors.Gone(
            "Nobody answered within 7 days, so the request has ended. Ask again.",
            code="request_ended",
        )


def _decide(row: Approval, state: str, *, by: User, at: datetime) -> Approval:
    row.state, row.decided_by, row.decided_name, row.decided_at = state, by, str(by)[:120], at
    row.save()
    if state != State.WITHDRAWN:
        approval_mails.decided(row, now=row.merchant.now())
    return row


def _key(row: Approval) -> str:
    """The key of the refund that a request becomes."""
    return f"approval:{row.public_id}"
