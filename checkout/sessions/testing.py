"""All a customer does, in one call, for an integrator's own tests. Sandbox only."""

from __future__ import annotations

from datetime import datetime

from billing import cards, errors, payments
from billing.models import Payment
from checkout import phones
from checkout.models import CheckoutSession
from checkout.sessions import paying, steps, terms

Mode = CheckoutSession.Mode
State = CheckoutSession.State


def complete_with_test_card(
    session: CheckoutSession,
    *,
    phone: str,
    card: str,
    now: datetime,
    name: str = "",
    email: str = "",
) -> CheckoutSession:
    """Do all a customer does, for an integrator's tests: phone, code, card. Sandbox only.

    Raises:
        billing.errors.Forbidden: live books.
        billing.errors.CardDeclined, CardNeedsAction: as the test card says; nothing was charged.
        billing.errors.Conflict, Gone: as on the page.
    """
    if not session.merchant.is_sandbox:
        raise errors.Forbidden("Test helpers work with test keys only.", code="sandbox_only")
    if session.state not in (State.VERIFIED, State.PAYING) or session.phone != phone:
        session = _confirm(session, phone=phone, now=now)
    if session.mode == Mode.TOPUP and session.bundle is None:
        first = session.buyer.subscription
        bundle = first.plan.live_bundles.filter(cost__gt=0).first() if first else None
        session = steps.choose_bundle(
            session, bundle_id=bundle.pk if bundle else None, nonce=session.nonce, now=now
        )
    nonce = paying.form_nonce(session)
    session = paying.begin(session, nonce=nonce, name=name, email=email, now=now)
    means = terms.means(session)
    payment = paying.intent_row(session, now=now) if means == terms.Means.PAYMENT else None
    if payment is not None:
        card_id = cards.from_test_card(session.merchant, card)
        payments.present(payment, now=now)
        payment.refresh_from_db()
        _raise_unless_paid(payments.confirm(payment, card_id=card_id, now=now))
        payment.refresh_from_db()
        paying.complete_for_payment(payment, now=now)
    else:
        if means == terms.Means.SETUP:
            _save_test_card(session, card=card, now=now)
        paying.complete(session, now=now)
    done: CheckoutSession = CheckoutSession.objects.select_related(*CheckoutSession.NEIGHBOURS).get(
        pk=session.pk
    )
    return done


def _confirm(session: CheckoutSession, *, phone: str, now: datetime) -> CheckoutSession:
    """The phone's two steps, with the code that was sent."""
    given = session.buyer.customer.phone if session.connection_is_given else ""
    if given and given != phone:
        raise errors.Conflict("This checkout is for another phone number.", param="phone")
    expect = (State.OPEN, State.PHONE_SENT, State.VERIFIED)
    with steps.step(session, nonce=session.nonce, now=now, expect=expect) as locked:
        steps.forget_phone(locked)
        code = steps.send(locked, phone=phone, address=None, now=now)
        if not phones.check(locked, code=code, now=now):
            raise errors.Conflict("The code was replaced by another.", code="stale_page")
        steps.confirm(locked, now=now)
    return locked


def _save_test_card(session: CheckoutSession, *, card: str, now: datetime) -> None:
    card_id = cards.from_test_card(session.merchant, card)
    intent = cards.begin_setup(session.buyer, key=session.public_id)
    cards.confirm_setup(session.buyer, setup_intent_id=intent.id, card_id=card_id)
    cards.finish_setup(session.buyer, setup_intent_id=intent.id, now=now)


def _raise_unless_paid(payment: Payment) -> None:
    outcome = paying.outcome_of(payment)
    if outcome == paying.Outcome.DONE:
        return
    if payment.status == Payment.Status.REQUIRES_ACTION:
        raise errors.CardNeedsAction("The card wants its owner. Nothing was charged.")
    if outcome == paying.Outcome.WAITING:
        raise errors.CardUnknown("The card network has not answered yet.")
    raise errors.CardDeclined(
        payment.failure_message or "The card was declined. Nothing was charged.",
        code=payment.failure_code or None,
    )
