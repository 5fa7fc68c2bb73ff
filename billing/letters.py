"""What each mail to a customer says. Words alone: no row is read, nothing is sent.

Each function takes amounts, dates and names as they are shown and gives a `Letter`, in the language
of now (`billing.locales`). `billing.receipts` and `billing.notices` fill them from rows; the
console previews them with made-up ones.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.utils.translation import gettext

Rows = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Link:
    """Where a letter leads: the button's words and its address."""

    words: str
    url: str


@dataclass(frozen=True, slots=True)
class Letter:
    """A mail in words: its page has one large heading, one button, and rows of facts."""

    subject: str
    heading: str
    lead: str
    link: Link
    paragraphs: tuple[str, ...] = ()
    facts: Rows = ()
    # A sum: its lines, its total, what is said after it.
    lines: Rows = ()
    total: tuple[str, str] | None = None
    notes: Rows = ()
    second: Link | None = None


def portal(url: str) -> Link:
    """The link to the customer's billing page."""
    return Link(gettext("See your credits and plan"), url)


def another_card(url: str) -> Link:
    """The link that replaces the saved card."""
    return Link(gettext("Use another card"), url)


def add_credits(url: str) -> Link:
    """The link to the billing page, for who needs credits."""
    return Link(gettext("Add credits"), url)


def welcome(*, merchant: str, plan: str, gives: str, renews: str, price: str, url: str) -> Letter:
    """A plan has begun."""
    facts = [(gettext("Plan"), f"{plan}, {price}")]
    if gives:
        facts.append((gettext("You get"), gettext("{amount} of credits").format(amount=gives)))
    facts.append((gettext("Renews"), renews))
    return Letter(
        subject=gettext("Welcome to {merchant}: {plan} is active").format(
            merchant=merchant, plan=plan
        ),
        heading=gettext("{plan} is active").format(plan=plan),
        lead=gettext("Your plan at {merchant} has begun and is ready to use.").format(
            merchant=merchant
        ),
        facts=tuple(facts),
        paragraphs=(
            gettext(
                "Your billing page shows what used your credits. There you can switch or cancel "
                "the plan, replace the card and find every receipt."
            ),
        ),
        link=portal(url),
    )


def receipt(
    *,
    merchant: str,
    number: str,
    amount: str,
    heading: str,
    lead: str,
    facts: Rows,
    lines: Rows,
    total: tuple[str, str],
    notes: Rows,
    url: str,
    pdf_url: str,
    is_refund: bool,
) -> Letter:
    """Money was paid, or went back."""
    subject = (
        gettext("Refund {number} from {merchant}: {amount}")
        if is_refund
        else gettext("Receipt {number} from {merchant}: {amount}")
    )
    return Letter(
        subject=subject.format(number=number, merchant=merchant, amount=amount),
        heading=heading,
        lead=lead,
        facts=facts,
        lines=lines,
        total=total,
        notes=notes,
        link=Link(gettext("View receipt"), url),
        second=Link(gettext("Save as PDF"), pdf_url),
    )


def card_asks(*, merchant: str, amount: str, what: str, card: str, until: str, url: str) -> Letter:
    """The bank wants its customer before it lets a charge through."""
    return Letter(
        subject=gettext("Confirm your payment of {amount} to {merchant}").format(
            amount=amount, merchant=merchant
        ),
        heading=gettext("Confirm {amount}").format(amount=amount),
        lead=gettext(
            "Your bank wants you to confirm {amount} for {what} on {card}. Nothing was charged yet."
        ).format(amount=amount, what=what, card=card),
        paragraphs=(
            gettext("Confirm it by {moment}. You can pay with another card there too.").format(
                moment=until
            ),
        ),
        link=Link(gettext("Confirm {amount}").format(amount=amount), url),
    )


def declined(*, merchant: str, amount: str, what: str, card: str, day: str, url: str) -> Letter:
    """A charge did not go through; it is tried again."""
    return Letter(
        subject=gettext("{merchant} could not charge {card}").format(merchant=merchant, card=card),
        heading=gettext("{amount} could not be charged").format(amount=amount),
        lead=gettext(
            "{amount} for {what} was declined on {date} by the bank of {card}. Nothing was charged."
        ).format(amount=amount, what=what, date=day, card=card),
        paragraphs=(
            gettext(
                "We will try again in the next days. Check that the card is valid and has enough "
                "funds, or use another one."
            ),
        ),
        link=another_card(url),
    )


def card_disputed(*, merchant: str, amount: str, what: str, card: str, url: str) -> Letter:
    """A charge was not made, since the customer disputes what its card paid."""
    return Letter(
        subject=gettext("{merchant} needs another card for {amount}").format(
            merchant=merchant, amount=amount
        ),
        heading=gettext("{amount} needs another card").format(amount=amount),
        lead=gettext(
            "{amount} for {what} is due. A payment made with {card} is disputed at its bank, so "
            "that card is not charged."
        ).format(amount=amount, what=what, card=card),
        paragraphs=(
            gettext(
                "Use another card to go on. If the dispute was a mistake, ask your bank to take it "
                "back."
            ),
        ),
        link=another_card(url),
    )


def last_try(*, merchant: str, plan: str, amount: str, what: str, day: str, url: str) -> Letter:
    """Declined again, and the next try is the last."""
    return Letter(
        subject=gettext("Last try: your {plan} plan at {merchant} ends on {date}").format(
            plan=plan, merchant=merchant, date=day
        ),
        heading=gettext("We try once more on {date}").format(date=day),
        lead=gettext(
            "{amount} for {what} could not be charged again. If it cannot be charged on {date} "
            "either, the plan ends."
        ).format(amount=amount, what=what, date=day),
        paragraphs=(
            gettext("Check that the card is valid and has enough funds, or use another one."),
        ),
        link=another_card(url),
    )


def ended_unpaid(*, merchant: str, plan: str, amount: str, what: str, url: str) -> Letter:
    """The last try was declined."""
    return Letter(
        subject=gettext("Your {plan} plan at {merchant} has ended").format(
            plan=plan, merchant=merchant
        ),
        heading=gettext("{plan} has ended").format(plan=plan),
        lead=gettext(
            "{amount} for {what} could not be charged, so the plan has ended. Nothing more is "
            "charged for it."
        ).format(amount=amount, what=what),
        paragraphs=(gettext("You can subscribe again at any time."),),
        link=portal(url),
    )


def credits_low(*, merchant: str, left: str, url: str) -> Letter:
    """Credits have fallen below the mark of the plan."""
    return Letter(
        subject=gettext("Your credits at {merchant} run low: {amount} left").format(
            merchant=merchant, amount=left
        ),
        heading=gettext("{amount} of credits left").format(amount=left),
        lead=gettext("Your credits at {merchant} run low.").format(merchant=merchant),
        paragraphs=(
            gettext("Your billing page shows what used them, and when the plan adds more."),
        ),
        link=add_credits(url),
    )


def depleted(*, merchant: str, then: str, url: str) -> Letter:
    """Credits have run out; `then` says what happens now."""
    return Letter(
        subject=gettext("Your credits at {merchant} have run out").format(merchant=merchant),
        heading=gettext("Your credits have run out"),
        lead=gettext("You have used up your credits at {merchant}.").format(merchant=merchant),
        paragraphs=(then,),
        link=add_credits(url),
    )


def goes_on_by_card(card: str) -> str:
    """What happens once credits are used up: use is charged."""
    if not card:
        return gettext("Everything keeps working. What you use from now on is owed.")
    return gettext(
        "Everything keeps working. What you use from now on is charged to {card}."
    ).format(card=card)


def pauses() -> str:
    """What happens once credits are used up: nothing more."""
    return gettext("New requests are refused until you add credits.")


def top_up_capped(*, merchant: str, cap: str, day: str, url: str) -> Letter:
    """The automatic top-up stands at its monthly limit."""
    return Letter(
        subject=gettext("Your automatic top-up at {merchant} has reached its limit").format(
            merchant=merchant
        ),
        heading=gettext("Auto top-up has reached its limit"),
        lead=gettext(
            "Your credits are below the level you chose, and automatic top-ups stand at your limit "
            "of {cap} a month. Nothing was charged."
        ).format(cap=cap),
        paragraphs=(
            gettext("They go on {date}; raise the limit or add credits to go on now.").format(
                date=day
            ),
        ),
        link=Link(gettext("Change the limit"), url),
    )


def changed(*, merchant: str, old: str, new: str, price: str, renews: str, url: str) -> Letter:
    """A plan took the place of another."""
    return Letter(
        subject=gettext("You switched to {plan} at {merchant}").format(plan=new, merchant=merchant),
        heading=gettext("You are on {plan} now").format(plan=new),
        lead=gettext("{plan} has taken the place of {old}.").format(plan=new, old=old),
        facts=(
            (gettext("Plan"), f"{new}, {price}"),
            (gettext("Renews"), renews),
        ),
        link=portal(url),
    )


def change_planned(*, merchant: str, old: str, new: str, price: str, day: str, url: str) -> Letter:
    """A plan takes the place of another at the end of the cycle."""
    return Letter(
        subject=gettext("You switch to {plan} at {merchant} on {date}").format(
            plan=new, merchant=merchant, date=day
        ),
        heading=gettext("You switch to {plan} on {date}").format(plan=new, date=day),
        lead=gettext(
            "Until then you stay on {plan}. Nothing was charged, and you can take it back."
        ).format(plan=old),
        facts=((gettext("From then on"), f"{new}, {price}"),),
        link=portal(url),
    )


def cancelled(*, merchant: str, plan: str, day: str, packs_stay: bool, url: str) -> Letter:
    """A plan ends with its cycle."""
    packs = (
        gettext("Unused credits end then; pack credits stay yours.")
        if packs_stay
        else gettext("Unused credits end then, and pack credits with them.")
    )
    return Letter(
        subject=gettext("Your {plan} plan at {merchant} ends on {date}").format(
            plan=plan, merchant=merchant, date=day
        ),
        heading=gettext("{plan} ends on {date}").format(plan=plan, date=day),
        lead=gettext("You cancelled it. Nothing more is charged for it."),
        paragraphs=(
            gettext("Until then everything works as before. {packs}").format(packs=packs),
            gettext("Changed your mind? You can resume the plan until that day."),
        ),
        link=Link(gettext("Resume the plan"), url),
    )
