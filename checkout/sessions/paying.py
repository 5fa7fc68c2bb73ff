"""From the confirmed phone to the completed session: begin the payment, learn of it, complete.

The payment's row is written with the session as its key, so a session has at most one, however
often and from wherever it is pressed. The network is asked with no lock held.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum

import structlog
from django.db import transaction

from billing import (
    cards,
    changes,
    connections,
    errors,
    events,
    ledger,
    locales,
    payments,
    subscriptions,
    upgrades,
)
from billing.models import Connection, Merchant, Payment
from billing.stripe import ClientIntent
from checkout.models import CheckoutSession, new_nonce
from checkout.sessions import steps, terms
from checkout.sessions.terms import Change, Means, Standing

Mode = CheckoutSession.Mode
State = CheckoutSession.State

log = structlog.get_logger(__name__)

# While another tab's call is on its way at the network: how often to ask again, after which pause.
PATIENCE = 2
PAUSE_S = 0.4


class Outcome(StrEnum):
    """What became of a press on the pay button."""

    DONE = "done"
    DECLINED = "declined"
    # The network or the bank is still at it.
    WAITING = "waiting"
    # Not confirmed yet: the customer has not paid.
    UNPAID = "unpaid"
    # A newer checkout of the same customer took its place; nothing was charged here.
    WITHDRAWN = "withdrawn"


def begin_payment(
    session: CheckoutSession, *, nonce: str, name: str = "", email: str = "", now: datetime
) -> ClientIntent | None:
    """Take name and e-mail, write the payment's row, and give the page what it confirms. None: a
    change of plan came to nothing to pay, and is made.

    Safe to call any number of times: the row's key is the session, the network's key is the row.

    Raises:
        billing.errors.Conflict: they cannot buy this (see `standing`), or there is no card to ask.
        billing.errors.CardUnknown, Unavailable: the network is away; nothing was charged.
    """
    locked = begin(session, nonce=nonce, name=name, email=email, now=now)
    if terms.means(locked) == Means.NONE:
        raise errors.Conflict("Nothing is paid here.", code="step_skipped")
    if terms.means(locked) == Means.PAYMENT:
        payment = intent_row(locked, now=now)
        if payment is None:
            complete(locked, now=now)
            return None
        return _patiently(lambda: payments.present(payment, now=now))
    intent = _patiently(lambda: cards.begin_setup(locked.buyer, key=locked.public_id))
    CheckoutSession.objects.filter(pk=locked.pk).update(setup_intent_id=intent.id)
    return intent


def begin_free(
    session: CheckoutSession, *, nonce: str, name: str, email: str, now: datetime
) -> CheckoutSession:
    """Take name and e-mail and complete a session in which nothing can ever be charged."""
    if terms.means(session) != Means.NONE:
        raise errors.Conflict("This checkout is paid by card.", code="step_skipped")
    locked = begin(session, nonce=nonce, name=name, email=email, now=now)
    complete(locked, now=now)
    return locked


def finish_payment(session: CheckoutSession, *, now: datetime) -> Outcome:
    """Ask what became of the payment or the saved card, and complete the session if it is there.

    Raises:
        billing.errors.Conflict: nothing was begun.
        billing.errors.CardUnknown, Unavailable: the network is away.
    """
    session = CheckoutSession.objects.select_related(*CheckoutSession.NEIGHBOURS).get(pk=session.pk)
    if session.state == State.COMPLETED:
        return Outcome.DONE
    if session.payment is not None:
        payment = payments.refresh(session.payment, now=now)
        outcome = outcome_of(payment)
        if outcome == Outcome.DONE:
            complete_for_payment(payment, now=now)
        return outcome
    if session.setup_intent_id:
        try:
            cards.finish_setup(session.buyer, setup_intent_id=session.setup_intent_id, now=now)
        except errors.CardDeclined:
            return Outcome.DECLINED
        complete(session, now=now)
        return Outcome.DONE
    raise errors.Conflict("Nothing was paid yet.", code="step_skipped")


@transaction.atomic
def complete_for_payment(payment: Payment, *, now: datetime) -> None:
    """Complete the session of a settled payment; called by the answer and by the webhook alike.

    A payment without a session, or one that is not settled, changes nothing.
    """
    session = (
        CheckoutSession.objects.select_for_update(of=("self",), no_key=True)
        .filter(payment_id=payment.pk, completed_at=None)
        .first()
    )
    if session is not None and payment.status == Payment.Status.SUCCEEDED:
        _mark_completed(session, now=now)


def complete_for_setup(setup_intent_id: str) -> None:
    """Complete the session whose card was saved, when its browser has gone: for the webhook."""
    session = (
        CheckoutSession.objects.select_related("merchant")
        .filter(setup_intent_id=setup_intent_id, state=State.PAYING)
        .first()
    )
    if session is not None:
        finish_payment(session, now=session.merchant.now())


def expire(*, now: datetime) -> int:
    """Mark sessions whose day is over on their merchant's clock (`now` is real time); how many.

    One whose payment is still open is asked about first: it may be paid, and its browser and its
    webhook lost. One that is paid, whose process died before it was marked, is completed.
    """
    count = 0
    under_way = CheckoutSession.objects.filter(state__in=CheckoutSession.UNDER_WAY)
    for merchant in Merchant.objects.filter(pk__in=under_way.values("merchant_id")):
        there = now + merchant.clock_offset
        stale = under_way.of(merchant).filter(expires_at__lte=there)
        paid_or_open = (*Payment.OPEN, Payment.Status.SUCCEEDED)
        for session in stale.filter(payment__status__in=paid_or_open).exclude(
            payment__intent_id=""
        ):
            try:
                finish_payment(session, now=there)
            except (errors.CardError, errors.Unavailable) as error:
                # Left under way for the next run: it may be paid.
                log.warning("checkout_unanswered", session=str(session.pk), code=error.code)
                stale = stale.exclude(pk=session.pk)
        over = stale.exclude(payment__status=Payment.Status.UNKNOWN).values_list("pk", flat=True)
        # Asked again row by row: one of them may have been completed meanwhile.
        count += under_way.filter(pk__in=list(over)).update(state=State.EXPIRED)
    return count


def _patiently(ask: Callable[[], ClientIntent]) -> ClientIntent:
    """Ask again while another tab's call for the same thing is on its way at the network."""
    for _ in range(PATIENCE):
        try:
            return ask()
        except errors.CardUnknown:
            time.sleep(PAUSE_S)
    return ask()


def begin(
    session: CheckoutSession, *, nonce: str, name: str, email: str, now: datetime
) -> CheckoutSession:
    """Enter the paying state: from here the terms and the customer are fixed."""
    with transaction.atomic():
        expect = (State.VERIFIED, State.PAYING)
        locked = steps.lock(session, nonce=nonce, now=now, expect=expect)
        if locked.mode == Mode.TOPUP and locked.bundle is None:
            raise errors.Conflict("Choose a pack first.", code="step_skipped")
        if nonce.partition(".")[2] != terms.change(locked):
            # Since the page was shown they started, switched or left a plan.
            raise errors.Conflict("That page was out of date.", code="stale_page")
        barrier = terms.standing(locked)
        if barrier != Standing.CLEAR:
            raise errors.Conflict("This cannot be bought now. Nothing was charged.", code=barrier)
        if name or email:
            customer = locked.buyer.customer
            connections.name_customer(customer, name=name, email=email)
        connections.hear(locked.buyer.customer, language=locales.current())
        locked.state = State.PAYING
        locked.save(update_fields=["state"])
    return locked


def form_nonce(session: CheckoutSession) -> str:
    """The nonce of the payment's form: it also says whether it starts a plan or changes one, so
    that nobody presses for the one and gets the other."""
    moves = terms.change(session)
    return f"{session.nonce}.{moves}" if moves else session.nonce


def intent_row(session: CheckoutSession, *, now: datetime) -> Payment | None:
    """The session's one payment; made on the first call, found on every other. None: an upgrade
    that costs nothing, made just now."""
    key = f"checkout:{session.public_id}"
    current = session.buyer.subscription
    payment: Payment | None
    if terms.change(session) == Change.UPGRADE and current is not None and session.plan is not None:
        payment = upgrades.begin(current, plan=session.plan, key=key, now=now)
        if payment is None:
            return None
    else:
        starts = session.plan is not None
        payment = payments.intend(
            session.buyer,
            purpose=Payment.Purpose.SUBSCRIPTION if starts else Payment.Purpose.BUNDLE,
            amount=session.amount,
            plan=session.plan,
            bundle=session.bundle,
            key=key,
            now=now,
        )
    if payment.status == Payment.Status.CANCELLED:
        raise errors.Conflict(
            "A newer checkout took this one's place. Nothing was charged.", code="withdrawn"
        )
    CheckoutSession.objects.filter(pk=session.pk, payment=None).update(payment=payment)
    session.payment = payment
    return payment


def outcome_of(payment: Payment) -> Outcome:
    """What a payment's status means to the customer at the page."""
    if payment.status == Payment.Status.SUCCEEDED:
        return Outcome.DONE
    if payment.status == Payment.Status.UNKNOWN:
        return Outcome.WAITING
    if payment.status == Payment.Status.CANCELLED:
        return Outcome.WITHDRAWN
    if payment.failure_code or payment.status == Payment.Status.FAILED:
        return Outcome.DECLINED
    return Outcome.UNPAID


def complete(session: CheckoutSession, *, now: datetime) -> None:
    """Complete a session that needs no payment: open the free plan, plan the switch, or make the
    card's owner billable. Twice is once."""
    with transaction.atomic():
        locked: CheckoutSession = CheckoutSession.objects.locked(session.pk)
        if locked.state == State.COMPLETED:
            return
        connection = ledger.lock(locked.buyer.pk)
        current = connection.subscription
        if locked.plan is not None and current is None:
            subscriptions.open(connection, plan=locked.plan, now=now)
        elif locked.plan is not None and current is not None:
            # An upgrade that cost nothing has been made; anything else waits for its cycle's end.
            if current.plan_id != locked.plan_id:
                changes.schedule(current, plan=locked.plan, now=now)
        elif connection.status == Connection.Status.PENDING:
            subscriptions.activate(connection, now=now)
            events.record(connection.merchant, "connection.created", now=now, connection=connection)
        _mark_completed(locked, now=now)


def _mark_completed(locked: CheckoutSession, *, now: datetime) -> None:
    locked.state = State.COMPLETED
    locked.completed_at = now
    locked.nonce = new_nonce()
    locked.save(update_fields=["state", "completed_at", "nonce"])
