"""What a refund would do, and how far one can go. Asks, never writes."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from billing import clawback, errors, money
from billing.models import Dispute, Payment


@dataclass(frozen=True, slots=True)
class Preview:
    """What a refund would do, and how far one can go. All in the connection's currency."""

    # Money that goes back to the card.
    amount: Decimal
    # Credits taken out of what is left, and what becomes debt because it was spent.
    credits_taken: Decimal
    debt_made: Decimal
    # The most that goes back as things stand: the unspent share of the price; and with force.
    refundable: Decimal
    most: Decimal
    # What the payment bought, and what of it is unspent.
    granted: Decimal
    left: Decimal
    currency: str


def preview(payment: Payment, *, amount: Decimal | None = None, force: bool = False) -> Preview:
    """What a refund of `amount` would do now; without one, of all that can go back.

    Raises:
        billing.errors.Refused, Invalid: as `refund`.
    """
    payment = Payment.objects.get(pk=payment.pk)
    reach = _reach(payment)
    if amount is None:
        amount = reach.most if force else reach.refundable
    _check(payment, amount, most=reach.most, refundable=reach.refundable, force=force)
    due = clawback.due(payment, amount)
    if not force and amount == reach.refundable:
        # All that can go back takes all that is left: no dust stays behind.
        due = min(max(due, reach.left), reach.granted)
    taken = min(due, reach.left)
    return Preview(
        amount=amount,
        credits_taken=taken,
        debt_made=due - taken,
        refundable=reach.refundable,
        most=reach.most,
        granted=reach.granted,
        left=reach.left,
        currency=str(payment.amount.currency),
    )


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a refund can go: `refundable` without force, `most` with it."""

    refundable: Decimal
    most: Decimal
    granted: Decimal
    left: Decimal


def reach(payment: Payment) -> Reach:
    """How far a refund can go as things stand.

    Raises:
        billing.errors.Refused: nothing can go back at all, with the reason.
    """
    payment = Payment.objects.get(pk=payment.pk)
    found = _reach(payment)
    _check(payment, found.most, most=found.most, refundable=found.refundable, force=True)
    return found


def _reach(payment: Payment) -> Reach:
    granted, left = clawback.granted(payment), clawback.left(payment)
    most = payment.amount.amount - payment.refunded
    refundable = most
    if granted:
        share = Fraction(payment.amount.amount) * Fraction(left) / Fraction(granted)
        refundable = min(
            most, money.floor_minor(money.round_fee(share), str(payment.amount.currency))
        )
    return Reach(refundable=refundable, most=most, granted=granted, left=left)


def _check(
    payment: Payment, amount: Decimal, *, most: Decimal, refundable: Decimal, force: bool
) -> None:
    currency = str(payment.amount.currency)
    if not amount.is_finite() or amount < 0:
        raise errors.Invalid("Give an amount above 0.", param="amount")
    if payment.status != Payment.Status.SUCCEEDED:
        raise errors.Refused("Nothing was paid here: there is nothing to give back.")
    if payment.disputes.filter(status__in=Dispute.TAKEN_BACK).exists():
        raise errors.Refused(
            "The customer disputed this payment: the bank decides where its money goes.",
            code="payment_disputed",
        )
    if most <= 0:
        raise errors.Refused("All of it went back already.", code="already_refunded")
    if amount > most:
        raise errors.Refused(
            f"At most {money.display(most, currency)} of this payment can go back.",
            code="more_than_paid",
            param="amount",
        )
    if not force and amount > refundable:
        raise errors.Refused(
            f"Its credits are spent but for {money.display(refundable, currency)}. More can go "
            "back by force: what was spent becomes debt.",
            code="credits_spent",
            param="amount",
        )
    if amount <= 0 or not money.is_whole_minor(amount, currency):
        if amount == refundable:
            raise errors.Refused(
                "All of its credits are spent. Money can go back by force: what was spent becomes "
                "debt.",
                code="credits_spent",
            )
        raise errors.Invalid(
            f"Give an amount above 0 that a card can get in {currency}.", param="amount"
        )
