"""Payments: an intent row, then the network, then the settlement.

`intend` commits the row with its key before anything is asked; `present` lets the page confirm it,
`confirm` confirms it from the server, `charge` takes it from the saved card; `refresh` asks what
became of it. What the answers do to the books is `billing.settlement`. No lock is held while the
network is asked. Called by checkout, `billing.renewals`, `overage`, `topups` and `upgrades`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone
from moneyed import Money

from billing import cards, courses, errors, failpoints, ids, ledger, settlement, stripe
from billing.models import Connection, CreditBundle, Dispute, Payment, Plan, Subscription
from billing.stripe import ClientIntent, Intent

# The network remembers our keys for 24 hours; after this a lost call is not made again.
KEY_MEMORY = timedelta(hours=23)
# How often a charge that waits for its customer is asked about without a word from anybody.
WAITING_PAUSE = timedelta(hours=1)


@transaction.atomic
def intend(
    connection: Connection,
    *,
    purpose: str,
    amount: Money,
    key: str,
    now: datetime,
    plan: Plan | None = None,
    bundle: CreditBundle | None = None,
    quantity: int = 1,
    subscription: Subscription | None = None,
    cycle_index: int | None = None,
    off_session: bool = False,
) -> Payment:
    """Write the row of a charge about to be made; the same key gives the same row.

    Raises:
        billing.errors.Conflict: the key was used for something else, the connection is deleted,
            or the customer has a current subscription and `purpose` would start another.
        billing.errors.Invalid: the amount is not in the connection's currency.
    """
    connection = ledger.lock(connection.pk)
    made: Payment | None = (
        Payment.objects.of(connection.merchant)
        .select_related("merchant__organization")
        .filter(key=key)
        .first()
    )
    if made is not None:
        if (made.connection_id, made.purpose, made.amount) != (connection.pk, purpose, amount):
            raise errors.Conflict("That payment was begun with other terms.")
        return made
    if connection.status == Connection.Status.DELETED:
        raise errors.Conflict("This connection is deleted: nothing more is charged.")
    if str(amount.currency) != connection.currency:
        raise errors.Invalid(f"This customer is billed in {connection.currency}.", param="currency")
    if purpose == Payment.Purpose.SUBSCRIPTION and connection.subscription is not None:
        raise errors.Conflict(
            f"This customer is on {connection.subscription.plan} already.",
            code="already_subscribed",
        )
    payment = Payment(
        merchant=connection.merchant,
        connection=connection,
        purpose=purpose,
        amount=amount,
        key=key,
        off_session=off_session,
        plan=plan,
        bundle=bundle,
        quantity=quantity,
        credit_amount=bundle.credit_amount * quantity if bundle is not None else Decimal(0),
        subscription=subscription,
        cycle_index=cycle_index,
        created_at=now,
    )
    payment.save()
    return payment


def present(payment: Payment, *, now: datetime) -> ClientIntent:
    """Make (once) the intent the page confirms, and give the page what it needs.

    An older, unfinished payment of the same purpose is withdrawn first, so that two open tabs
    cannot both pay: the newest one wins.

    Raises:
        billing.errors.Conflict: an older payment turns out to be paid, or this one is, or a newer
            one took its place (`withdrawn`).
        billing.errors.CardUnknown, Unavailable: the network does not answer; nothing was charged.
    """
    if payment.status == Payment.Status.SUCCEEDED:
        raise errors.Conflict("This is paid already.", code="already_paid")
    _refuse_what_is_over(payment)
    if payment.purpose in (Payment.Purpose.SUBSCRIPTION, Payment.Purpose.UPGRADE):
        _withdraw_older(payment, now=now)
    intent = _intent_of(payment)
    return _for_page(intent)


def _refuse_what_is_over(payment: Payment) -> None:
    """Do not let a page pay for what it will not get.

    Raises:
        billing.errors.Conflict: the connection is disabled or deleted meanwhile, or the cycle that
            a change of plan was quoted for is over (`terms_changed`).
    """
    status = Connection.objects.values_list("status", flat=True).get(pk=payment.connection_id)
    if status in (Connection.Status.DISABLED, Connection.Status.DELETED):
        raise errors.Conflict("This connection is not in use: nothing is charged.")
    if payment.purpose != Payment.Purpose.UPGRADE:
        return
    assert payment.subscription is not None
    current = Subscription.objects.get(pk=payment.subscription.pk)
    if current.status not in Subscription.CURRENT or (
        payment.cycle_index != current.cycle_index + 1
    ):
        raise errors.Conflict(
            "Another cycle has begun meanwhile. Nothing was charged.", code="terms_changed"
        )


def confirm(payment: Payment, *, card_id: str, now: datetime) -> Payment:
    """Confirm a customer's payment from the server with a card the caller names.

    Raises:
        billing.errors.Conflict: what it would pay for is not to be had any more.
    """
    _refuse_what_is_over(payment)
    _intent_of(payment)
    try:
        intent = stripe.confirm_intent(payment, card_id=card_id)
    except (errors.CardDeclined, errors.CardNeedsAction):
        intent = stripe.retrieve_intent(payment.merchant, payment.intent_id)
    return settle(payment, intent, now=now)


def charge(payment: Payment, *, now: datetime) -> Payment:
    """Take an off-session payment from the saved card.

    Made twice it is one charge: the network's key is the payment's id. An answer that never came
    leaves it `unknown`; the sweep asks about it. A bank that wants its cardholder leaves it
    `requires_action`: they get a link (`present_action`). A payment that was closed is left as it
    is. A card whose holder disputes what it paid is not asked: that counts as declined.
    """
    card = payment.connection.card
    if card is None:
        return settlement.fail(
            payment.pk, code="no_card", message="There is no saved card.", now=now
        )
    if cards.is_disputed(card):
        return settlement.fail(
            payment.pk,
            code=Dispute.FAILURE_CODE,
            message=f"A payment of {card} is disputed: nothing more is charged to it.",
            now=now,
        )
    failpoints.at(f"{payment.purpose}.intended")
    # Whoever withdraws a payment that was never asked for holds its row: one of us comes first. A
    # connection disabled or deleted since is not charged; `refresh` takes it up again or ends it.
    open_row = Payment.objects.filter(
        pk=payment.pk, status__in=Payment.OPEN, connection__status=Connection.Status.ACTIVE
    )
    if not open_row.update(asked_at=timezone.now()):
        payment.refresh_from_db()
        return payment
    try:
        intent = stripe.create_intent(
            payment, customer_id=cards.customer_id(payment.connection), card_id=card.card_id
        )
        failpoints.at(f"{payment.purpose}.charged")
        return settle(payment, intent, now=now)
    except errors.CardNeedsAction as refusal:
        # Its intent waits at the network for the customer.
        return _ask_about(payment, refusal, now=now)
    except errors.CardDeclined as refusal:
        failpoints.at(f"{payment.purpose}.charged")
        declined = settlement.fail(
            payment.pk, code=refusal.code, message=refusal.message, now=now, **refusal.details
        )
        failpoints.at(f"{payment.purpose}.settled")
        return declined
    except errors.Refused as refusal:
        if refusal.details.get("network_param") == "payment_method":
            # It was removed at the network: it is not asked again.
            cards.forget(payment.merchant, card.card_id, now=now)
        return settlement.fail(payment.pk, code=refusal.code, message=refusal.message, now=now)
    except (errors.CardUnknown, errors.Unavailable):
        return _mark_unknown(payment)


def _for_page(intent: Intent) -> ClientIntent:
    return ClientIntent(
        "payment", intent.id, intent.client_secret, intent.amount_minor, intent.currency
    )


def present_action(payment: Payment, *, now: datetime) -> ClientIntent:
    """What the page needs so that the customer confirms an off-session charge (3-D Secure).

    Raises:
        billing.errors.Conflict: it is paid already (`already_paid`).
        billing.errors.Gone: it is over, or nobody wants it any more (`action_over`).
        billing.errors.CardUnknown, Unavailable: the network does not answer; nothing was charged.
    """
    if payment.status == Payment.Status.SUCCEEDED:
        raise errors.Conflict("This is paid already.", code="already_paid")
    waits = payment.status == Payment.Status.REQUIRES_ACTION and payment.off_session
    if not waits or payment.action_until is None or payment.action_until <= now:
        raise errors.Gone("This link is over. Nothing was charged.", code="action_over")
    if not is_wanted(payment, now=now):
        give_up(payment.pk, now=now)
        raise errors.Gone("There is nothing left to pay here.", code="action_over")
    intent = stripe.open_to_customer(payment)
    return _for_page(intent)


def withdraw(payment: Payment, *, now: datetime) -> Payment:
    """Take back a customer's payment that they did not finish; paid all the same, it is settled.

    Raises:
        billing.errors.CardUnknown, Unavailable: the network does not answer.
    """
    if not payment.intent_id:
        payment = settlement.cancel(payment.pk, now=now)
        if not payment.is_open:
            return payment
    try:
        stripe.cancel_intent(payment.merchant, payment.intent_id)
    except errors.Refused:
        # Not to be cancelled any more: it was paid, or cancelled before.
        pass
    return refresh(payment, now=now)


def give_up(payment_id: UUID, *, now: datetime) -> Payment:
    """Withdraw a charge that its customer did not confirm in time; paid meanwhile, it is settled.

    The next try was set when the bank asked. With the network away it stays as it is.
    """
    payment: Payment = Payment.objects.select_related(
        "merchant__organization", "connection__customer"
    ).get(pk=payment_id)
    if payment.status != Payment.Status.REQUIRES_ACTION or not payment.off_session:
        return payment
    try:
        stripe.cancel_intent(payment.merchant, payment.intent_id)
    except errors.Refused:
        # Not to be cancelled any more: it was paid, or cancelled before.
        pass
    except (errors.CardUnknown, errors.Unavailable):
        return payment
    return refresh(payment, now=now)


def refresh(payment: Payment, *, now: datetime) -> Payment:
    """Ask the network what became of a payment, and settle it. Never charges anew.

    A payment whose call was lost before an intent is known is looked for by our id in the
    network's list; not there, it is asked for again with its own key while the network remembers
    keys, and failed after that. What nobody wants any more (its cycle is over, its subscription
    ended) is not asked for again. One that was given up is looked at too: paid all the same (in
    another tab, by a late confirmation), the money is not left unexplained.
    """
    payment = Payment.objects.select_related("merchant__organization", "connection__customer").get(
        pk=payment.pk
    )
    if not payment.is_open:
        return _look_again(payment, now=now)
    try:
        if payment.intent_id:
            Payment.objects.filter(pk=payment.pk).update(asked_at=timezone.now())
            intent = stripe.retrieve_intent(payment.merchant, payment.intent_id)
            return settle(payment, intent, now=now)
        if not payment.off_session:
            return payment
        found = None
        if payment.asked_at is not None and payment.connection.customer.card_customer_id:
            found = stripe.find_intent(
                payment, customer_id=payment.connection.customer.card_customer_id
            )
        if found is not None:
            return settle(payment, found, now=now)
    except errors.CardUnknown:
        return _mark_unknown(payment)
    if payment.connection.status == Connection.Status.DISABLED:
        # Nothing is charged now; asked for again, or withdrawn, when it is enabled.
        return payment
    remembered = timezone.now() - ids.made_at(payment.pk) < KEY_MEMORY
    if not is_wanted(payment, now=now):
        if payment.asked_at is None:
            return settlement.cancel(payment.pk, now=now)
        if remembered:
            return payment
    elif payment.asked_at is None or remembered:
        return charge(payment, now=now)
    return settlement.fail(
        payment.pk, code="never_reached", message="The card network has no such charge.", now=now
    )


def _look_again(payment: Payment, *, now: datetime) -> Payment:
    """A closed payment whose intent lives on at the network: settle it if it was paid."""
    if payment.status == Payment.Status.SUCCEEDED or not payment.intent_id:
        return payment
    intent = stripe.retrieve_intent(payment.merchant, payment.intent_id)
    return settle(payment, intent, now=now) if intent.status == "succeeded" else payment


def is_wanted(payment: Payment, *, now: datetime) -> bool:
    """Whether a charge that never reached the network is still to be made."""
    if payment.connection.status == Connection.Status.DELETED:
        return False
    if payment.subscription_id is None:
        return True
    subscription = Subscription.objects.select_related("plan", "pending_plan").get(
        pk=payment.subscription_id
    )
    if subscription.status not in Subscription.CURRENT:
        # Overage is owed whoever has left; the rest would buy into what has ended.
        return bool(payment.purpose == Payment.Purpose.OVERAGE)
    if payment.purpose == Payment.Purpose.UPGRADE:
        return bool(payment.cycle_index == subscription.cycle_index + 1)
    if payment.purpose != Payment.Purpose.RENEWAL:
        return True
    index = courses.coming(subscription, onto=payment.plan).index_at(now)
    return bool(subscription.cycle_index < index == payment.cycle_index)


def open_since(moment: datetime) -> Any:
    """Off-session payments left open by a dead process or a lost answer before `moment`.

    One that waits for its customer is heard of by webhook and page; it is asked about more seldom.
    """
    rows = Payment.objects.filter(status__in=Payment.OPEN, off_session=True)
    return rows.exclude(asked_at__gt=moment).exclude(
        status=Payment.Status.REQUIRES_ACTION, asked_at__gt=moment - WAITING_PAUSE
    )


def _intent_of(payment: Payment) -> Intent:
    """The payment's intent at the network, made with its key when it is not there yet."""
    if payment.intent_id:
        return stripe.retrieve_intent(payment.merchant, payment.intent_id)
    intent = stripe.create_intent(payment, customer_id=cards.customer_id(payment.connection))
    Payment.objects.filter(pk=payment.pk, intent_id="", status__in=Payment.OPEN).update(
        intent_id=intent.id, asked_at=timezone.now()
    )
    payment.refresh_from_db()
    if payment.intent_id != intent.id:
        # Withdrawn while the network was asked: nobody has the intent's secret, nobody will pay.
        stripe.cancel_intent(payment.merchant, intent.id)
        raise errors.Conflict(
            "A newer checkout took this one's place. Nothing was charged.", code="withdrawn"
        )
    return intent


def _withdraw_older(payment: Payment, *, now: datetime) -> None:
    older = Payment.objects.filter(
        connection_id=payment.connection_id,
        purpose=payment.purpose,
        status__in=Payment.OPEN,
        off_session=False,
        pk__lt=payment.pk,
    )
    for other in older.select_related("merchant__organization"):
        if withdraw(other, now=now).status == Payment.Status.SUCCEEDED:
            raise errors.Conflict("This is paid already.", code="already_paid")


def settle(payment: Payment, intent: Intent, *, now: datetime) -> Payment:
    """Bring a payment to what the network says of its intent. Not under a lock: it may ask for the
    card."""
    card = None
    if intent.status == "succeeded" and intent.card_id:
        saved = payment.connection.payment_methods.filter(card_id=intent.card_id).first()
        card = cards.describe(payment.merchant, intent.card_id, saved=saved)
    settled = settlement.apply(payment.pk, intent=intent, card=card, now=now)
    failpoints.at(f"{payment.purpose}.settled")
    return settled


def _ask_about(payment: Payment, refusal: errors.CardNeedsAction, *, now: datetime) -> Payment:
    """Bring a payment to its intent, which the network named when it refused."""
    intent_id = str(refusal.details.get("intent_id") or "")
    if not intent_id:
        return settlement.fail(payment.pk, code=refusal.code, message=refusal.message, now=now)
    try:
        intent = stripe.retrieve_intent(payment.merchant, intent_id)
    except (errors.CardUnknown, errors.Unavailable):
        return _mark_unknown(payment)
    return settle(payment, intent, now=now)


def _mark_unknown(payment: Payment) -> Payment:
    Payment.objects.filter(pk=payment.pk, status__in=Payment.OPEN).update(
        status=Payment.Status.UNKNOWN, asked_at=timezone.now()
    )
    payment.refresh_from_db()
    return payment
