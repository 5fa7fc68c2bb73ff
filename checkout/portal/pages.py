"""What each page of the portal shows: the template and its words. Reads rows, writes none."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.urls import reverse
from django.utils.translation import gettext, gettext_noop

from billing import changes, credits, locales, money
from billing.models import Connection, Merchant, Plan, Subscription
from checkout import dialing, languages, pages, phones, summary
from checkout.models import PortalVisit
from checkout.pages import Alert, Page
from checkout.portal import activity, reading, switching
from checkout.portal.access import Browser

Change = Subscription.PendingChange
STEPS = (
    "phone", "code", "resend", "restart", "sign-out", "cancel", "resume", "switch", "top-up",
    "credits", "card", "activity", "csv",
)  # fmt: skip
# Ledger lines of the front page.
RECENT = 12

# What was done, said on the page after it; anything else in the address says nothing.
DONE = {
    "cancelled": (
        gettext_noop("Your plan is cancelled"),
        gettext_noop("Nothing more is charged for it. You can resume it."),
    ),
    "resumed": (gettext_noop("Your plan goes on"), gettext_noop("Nothing else has changed.")),
    "switched": (gettext_noop("You switched plan"), gettext_noop("The new one is active.")),
    "scheduled": (
        gettext_noop("The switch is planned"),
        gettext_noop("You can take it back until then."),
    ),
    "top-up-on": (
        gettext_noop("Auto top-up is on"),
        gettext_noop("You can switch it off at any time."),
    ),
    "top-up-off": (
        gettext_noop("Auto top-up is off"),
        gettext_noop("Nothing is bought unless you do it."),
    ),
    "checking": (
        gettext_noop("Your bank is checking the payment"),
        gettext_noop("You need not pay again. The new plan starts once it is through."),
    ),
}


def address(merchant: Merchant) -> str:
    """The absolute address of a merchant's portal."""
    return f"{settings.LAVA_BASE_URL}{reverse('portal', args=[merchant.public_id])}"


def frame(who: Browser, title: str) -> dict[str, Any]:
    """What every page of a merchant's portal carries."""
    merchant = who.merchant
    urls = {
        step.replace("-", "_"): languages.address(f"portal-{step}", merchant.public_id)
        for step in STEPS
    }
    signed_in = who.visit is not None and who.visit.verified_at is not None
    return {
        "title": f"{title} \u2013 {merchant.name}",
        "brand": pages.brand_of(merchant),
        "nonce": who.token,
        "urls": urls | {"page": languages.address("portal", merchant.public_id)},
        # For forms that look, whose address loses its query.
        "asked_locale": languages.asked(),
        "who": dialing.masked(who.visit.phone) if who.visit is not None and signed_in else "",
    }


def start(
    who: Browser,
    *,
    country: dialing.Country,
    phone: str = "",
    problem: str = "",
    alert: Alert | None = None,
) -> Page:
    """The phone; the checkout's own form."""
    name = who.merchant.name
    return Page(
        "checkout/start.html",
        frame(who, gettext("Sign in"))
        | {
            "heading": gettext("Your credits and plan"),
            "lead": gettext("Sign in with the phone number that {merchant} knows you by.").format(
                merchant=name
            ),
            "countries": dialing.countries(),
            "chosen": country,
            "phone": phone,
            "problem": problem,
            "alert": alert,
        },
    )


def code(
    who: Browser,
    visit: PortalVisit,
    *,
    now: datetime,
    problem: str = "",
    alert: Alert | None = None,
) -> Page:
    """The code; the checkout's own form."""
    wait = phones.resend_wait(visit, now=now)
    return Page(
        "checkout/code.html",
        frame(who, gettext("Enter your code"))
        | {
            "masked_phone": dialing.masked(visit.phone),
            "valid_for": pages.valid_for(),
            "wait": wait,
            "wait_text": f"{wait // 60}:{wait % 60:02d}",
            "can_change": True,
            "problem": problem,
            "alert": alert,
        },
    )


def nobody(who: Browser) -> Page:
    """Signed in, and a customer of nobody here."""
    name = who.merchant.name
    return Page(
        "portal/nobody.html",
        frame(who, gettext("No plan"))
        | {
            "heading": gettext("There is nothing for this number"),
            "lead": gettext(
                "{merchant} has no customer with it. If you signed up with another number, sign "
                "out and use that one."
            ).format(merchant=name),
        },
    )


def home(
    who: Browser, connection: Connection, *, now: datetime, done: str = "", alert: Any = None
) -> Page:
    """The portal itself."""
    current = connection.subscription
    balance = credits.balance(connection, now=now)
    if done in DONE:
        title, text = DONE[done]
        alert = Alert(gettext(title), gettext(text), kind="done")
    main, past, tail = money.pieces(abs(balance.total), balance.currency)
    context = frame(who, gettext("Billing")) | {
        "balance": {"main": main, "past": past, "tail": tail},
        "heading": gettext("Credits left") if balance.total >= 0 else gettext("You owe"),
        "activity": activity.page(connection, now=now, most=RECENT),
        "papers": reading.papers(connection),
        "saved_card": pages.shown_card(connection.card),
        "alert": alert or _standing(connection, current),
        "plan": None,
        "can_act": connection.status == Connection.Status.ACTIVE,
    }
    if current is None:
        return Page("portal/home.html", context)
    used = reading.usage(connection, current)
    sells = current.plan.live_bundles.filter(cost__gt=0).exists()
    plain: dict[str, Any] = {
        "plan": current.plan,
        "plan_price": reading.plan_price(current.plan),
        "facts": reading.plan_facts(current),
        "usage": used,
        "parts": reading.parts(balance, used, plan=current.plan, collecting=connection.collecting),
        "outlook": reading.outlook(balance, used, current, now=now),
        "sells": sells,
        "top_up": reading.top_up(current, now=now),
        "is_cancelled": current.pending_change == Change.CANCELLATION,
        "keeps": gettext("Keep {plan}").format(plan=current.plan.name)
        if current.pending_change and current.cycle_end > now
        else "",
        "can_switch": switching.offered(current).exists(),
    }
    return Page("portal/home.html", context | plain)


def _standing(connection: Connection, current: Subscription | None) -> Alert | None:
    """What has to be read first."""
    merchant = connection.merchant
    if connection.status == Connection.Status.DISABLED:
        return Alert(
            gettext("Billing is paused"),
            gettext("{merchant} paused it: nothing is charged. Write to them to go on.").format(
                merchant=merchant.name
            ),
            kind="notice",
            focus=False,
        )
    if current is not None and current.status == Subscription.Status.PAST_DUE:
        until = current.grace_ends_at
        date = summary.day(until, merchant.time_zone, year=True) if until is not None else ""
        return Alert(
            gettext("Your plan’s payment did not go through"),
            gettext(
                "It is tried again in the next days. Requests are served until {date}. With "
                "another card it may go through."
            ).format(date=date),
            focus=False,
        )
    return None


def older(who: Browser, connection: Connection, *, now: datetime, below: int | None) -> Page:
    """All lines of the credits, page by page."""
    shown = activity.page(connection, now=now, below=below)
    older = who.merchant.public_id, str(shown.older or "")
    return Page(
        "portal/activity.html",
        frame(who, gettext("Activity"))
        | {
            "activity": shown,
            "older_url": languages.address("portal-activity", older[0], before=older[1])
            if shown.older
            else "",
            "is_newest": below is None,
        },
    )


def cancel(who: Browser, current: Subscription) -> Page:
    """What a cancellation does, before it is done."""
    zone, plan = current.merchant.time_zone, current.plan
    end = summary.day(current.cycle_end, zone, year=True)
    keeps = plan.bundle_rollover_type == Plan.Rollover.FULL
    price = summary.show(plan.price)
    unused = (
        gettext("End on {date}, and pack credits stay yours")
        if keeps
        else gettext("End on {date}, and pack credits end with it")
    )
    facts = [
        (gettext("Until then"), gettext("Everything works as before")),
        (gettext("Unused credits"), unused.format(date=end)),
        (gettext("You can resume it"), gettext("Until {date}").format(date=end)),
    ]
    if current.auto_top_up_bundle_id:
        facts.append((gettext("Auto top-up"), gettext("Goes on until {date}").format(date=end)))
    lead = (
        gettext("Nothing is charged for it any more.")
        if plan.is_free
        else gettext("The {price} due on {date} is not charged, nor any later one.")
    )
    return Page(
        "portal/act.html",
        frame(who, gettext("Cancel your plan"))
        | {
            "heading": gettext("Cancel {plan} on {date}?").format(plan=plan.name, date=end),
            "lead": lead.format(price=price, date=end),
            "facts": facts,
            "post_to": languages.address("portal-cancel", who.merchant.public_id),
            "action": gettext("Cancel {plan}").format(plan=plan.name),
            "busy": gettext("Cancelling..."),
            "back": gettext("Keep {plan}").format(plan=plan.name),
            "is_grave": True,
        },
    )


def choose(who: Browser, current: Subscription) -> Page:
    """The other plans."""
    return Page(
        "portal/choose.html",
        frame(who, gettext("Switch plan"))
        | {
            "heading": gettext("Switch plan"),
            "lead": gettext(
                "You are on {plan}, {price}. Nothing changes before you have seen what it costs."
            ).format(plan=current.plan.name, price=reading.plan_price(current.plan)),
            "choices": switching.choices(current),
        },
    )


def switch(
    who: Browser, current: Subscription, plan: Plan, *, now: datetime, alert: Alert | None = None
) -> Page:
    """One other plan: what switching to it costs and gives.

    Raises:
        billing.errors.Conflict, NotFound: it cannot be switched to.
    """
    offer = switching.offer(current, changes.preview(current, plan=plan, now=now))
    return Page(
        "portal/act.html",
        frame(who, offer.heading)
        | {
            "heading": offer.heading,
            "lead": offer.lead,
            "sum": offer.sum,
            "facts": offer.facts,
            "consent": offer.consent,
            "action": offer.action,
            "busy": offer.busy,
            "needs_card": offer.needs_card,
            "post_to": languages.address("portal-switch", who.merchant.public_id),
            "hidden": [("plan", plan.public_id), ("price", money.wire(plan.price.amount))],
            "back": gettext("Choose another plan"),
            "back_to": languages.address("portal-switch", who.merchant.public_id),
            "alert": alert,
        },
    )


def top_up(
    who: Browser,
    current: Subscription,
    *,
    typed: dict[str, str] | None = None,
    problem: str = "",
) -> Page:
    """The form of the automatic top-up, with its own consent."""
    merchant, currency = who.merchant, current.plan.currency
    bundles = list(current.plan.live_bundles.filter(cost__gt=0))
    chosen = current.auto_top_up_bundle or (bundles[0] if bundles else None)
    cap = current.top_up_monthly_cap
    if cap is None and current.auto_top_up_bundle_id is None and bundles:
        cap = Decimal(bundles[0].cost.amount) * 3
    values = typed or {
        "bundle": chosen.public_id if chosen else "",
        "cap": locales.plain_amount(cap, currency) if cap is not None else "",
    }
    card = current.connection.card
    lead = gettext("When credits run out, a pack is bought by itself, so that requests go on.")
    consent = gettext(
        "By switching it on you let {merchant} charge {card} the price of this pack each time "
        "credits run out, as many packs at once as are missing, up to the limit in a calendar "
        "month, without asking you each time, until you switch it off."
    )
    if current.top_up_threshold:
        lead = gettext(
            "When credits fall below {amount}, a pack is bought by itself, so that requests go on."
        )
        consent = gettext(
            "By switching it on you let {merchant} charge {card} the price of this pack each time "
            "credits fall below {amount}, as many packs at once as are missing, up to the limit in "
            "a calendar month, without asking you each time, until you switch it off."
        )
    mark = money.display(current.top_up_threshold, currency)
    return Page(
        "portal/top_up.html",
        frame(who, gettext("Auto top-up"))
        | {
            "heading": gettext("Auto top-up"),
            "lead": lead.format(amount=mark),
            "bundles": [
                {
                    "id": bundle.public_id,
                    "name": bundle.name,
                    "gives": summary.of_credits(money.display(bundle.credit_amount, currency)),
                    "price": summary.show(bundle.cost),
                }
                for bundle in bundles
            ],
            "values": values,
            "currency": currency,
            "problem": problem,
            "is_on": current.auto_top_up_bundle_id is not None,
            "saved_card": pages.shown_card(card),
            "consent": consent.format(merchant=merchant.name, card=card, amount=mark),
        },
    )
