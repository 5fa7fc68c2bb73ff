"""What each page of the portal shows: the template and its words. Reads rows, writes none."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.urls import reverse

from billing import credits, money
from billing.models import Connection, Merchant, Plan, Subscription
from checkout import dialing, pages, phones, summary
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
    "cancelled": ("Your plan is cancelled", "Nothing more is charged for it. You can resume it."),
    "resumed": ("Your plan goes on", "Nothing else has changed."),
    "switched": ("You switched plan", "The new one is active."),
    "scheduled": ("The switch is planned", "You can take it back until then."),
    "top-up-on": ("Auto top-up is on", "You can switch it off at any time."),
    "top-up-off": ("Auto top-up is off", "Nothing is bought unless you do it."),
    "checking": (
        "Your bank is checking the payment",
        "You need not pay again. The new plan starts once it is through.",
    ),
}


def address(merchant: Merchant) -> str:
    """The absolute address of a merchant's portal."""
    return f"{settings.LAVA_BASE_URL}{reverse('portal', args=[merchant.public_id])}"


def frame(who: Browser, title: str) -> dict[str, Any]:
    """What every page of a merchant's portal carries."""
    merchant = who.merchant
    urls = {
        step.replace("-", "_"): reverse(f"portal-{step}", args=[merchant.public_id])
        for step in STEPS
    }
    signed_in = who.visit is not None and who.visit.verified_at is not None
    return {
        "title": f"{title} \u2013 {merchant.name}",
        "brand": pages.brand_of(merchant),
        "nonce": who.token,
        "urls": urls | {"page": reverse("portal", args=[merchant.public_id])},
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
        frame(who, "Sign in")
        | {
            "heading": "Your credits and plan",
            "lead": f"Sign in with the phone number that {name} knows you by.",
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
        frame(who, "Enter your code")
        | {
            "masked_phone": dialing.masked(visit.phone),
            "valid_for": f"{phones.VALID_FOR.seconds // 60} minutes",
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
        frame(who, "No plan")
        | {
            "heading": "There is nothing for this number",
            "lead": f"{name} has no customer with it. If you signed up with another number, sign "
            "out and use that one.",
        },
    )


def home(
    who: Browser, connection: Connection, *, now: datetime, done: str = "", alert: Any = None
) -> Page:
    """The portal itself."""
    current = connection.subscription
    balance = credits.balance(connection, now=now)
    main, past = money.parts(balance.total, balance.currency)
    if done in DONE:
        alert = Alert(*DONE[done], kind="done")
    context = frame(who, "Billing") | {
        "balance": {"main": main, "past": past},
        "heading": "Credits left" if balance.total >= 0 else "You owe",
        "activity": activity.page(connection, now=now, most=RECENT),
        "papers": reading.papers(connection),
        "saved_card": pages.shown_card(connection.card),
        "alert": alert or _standing(connection, current),
        "plan": None,
        "can_act": connection.status == Connection.Status.ACTIVE,
    }
    if balance.total < 0:
        main, past = money.parts(-balance.total, balance.currency)
        context["balance"] = {"main": main, "past": past}
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
        "keeps": f"Keep {current.plan.name}"
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
            "Billing is paused",
            f"{merchant.name} paused it: nothing is charged. Write to them to go on.",
            kind="notice",
            focus=False,
        )
    if current is not None and current.status == Subscription.Status.PAST_DUE:
        until = current.grace_ends_at
        date = summary.day(until, merchant.time_zone, year=True) if until is not None else ""
        return Alert(
            "Your plan\u2019s payment did not go through",
            f"It is tried again in the next days. Requests are served until {date}. "
            "With another card it may go through.",
            focus=False,
        )
    return None


def older(who: Browser, connection: Connection, *, now: datetime, below: int | None) -> Page:
    """All lines of the credits, page by page."""
    return Page(
        "portal/activity.html",
        frame(who, "Activity")
        | {"activity": activity.page(connection, now=now, below=below), "is_newest": below is None},
    )


def cancel(who: Browser, current: Subscription) -> Page:
    """What a cancellation does, before it is done."""
    zone, plan = current.merchant.time_zone, current.plan
    end = summary.day(current.cycle_end, zone, year=True)
    keeps = plan.bundle_rollover_type == Plan.Rollover.FULL
    price = summary.show(plan.price)
    packs = "and pack credits stay yours" if keeps else "and pack credits end with it"
    facts = [
        ("Until then", "Everything works as before"),
        ("Unused credits", f"End on {end}, {packs}"),
        ("You can resume it", f"Until {end}"),
    ]
    if current.auto_top_up_bundle_id:
        facts.append(("Auto top-up", f"Goes on until {end}"))
    return Page(
        "portal/act.html",
        frame(who, "Cancel your plan")
        | {
            "heading": f"Cancel {plan.name} on {end}?",
            "lead": "Nothing is charged for it any more."
            if plan.is_free
            else f"The {price} due on {end} is not charged, nor any later one.",
            "facts": facts,
            "post_to": reverse("portal-cancel", args=[who.merchant.public_id]),
            "action": f"Cancel {plan.name}",
            "busy": "Cancelling...",
            "back": f"Keep {plan.name}",
            "is_grave": True,
        },
    )


def choose(who: Browser, current: Subscription) -> Page:
    """The other plans."""
    return Page(
        "portal/choose.html",
        frame(who, "Switch plan")
        | {
            "heading": "Switch plan",
            "lead": f"You are on {current.plan.name}, {reading.plan_price(current.plan)}. "
            "Nothing changes before you have seen what it costs.",
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
    offer = switching.offer(current, plan, now=now)
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
            "post_to": reverse("portal-switch", args=[who.merchant.public_id]),
            "hidden": [("plan", plan.public_id), ("price", money.wire(plan.price.amount))],
            "back": "Choose another plan",
            "back_to": reverse("portal-switch", args=[who.merchant.public_id]),
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
        "cap": _plain(cap, currency) if cap is not None else "",
    }
    card = current.connection.card
    when = "run out"
    if current.top_up_threshold:
        when = f"fall below {money.display(current.top_up_threshold, currency)}"
    return Page(
        "portal/top_up.html",
        frame(who, "Auto top-up")
        | {
            "heading": "Auto top-up",
            "lead": f"When credits {when}, a pack is bought by itself, so that requests go on.",
            "bundles": [
                {
                    "id": bundle.public_id,
                    "name": bundle.name,
                    "gives": f"{money.display(bundle.credit_amount, currency)} of credits",
                    "price": summary.show(bundle.cost),
                }
                for bundle in bundles
            ],
            "values": values,
            "currency": currency,
            "problem": problem,
            "is_on": current.auto_top_up_bundle_id is not None,
            "saved_card": pages.shown_card(card),
            "consent": f"By switching it on you let {merchant.name} charge {card} the price of "
            f"this pack each time credits {when}, as many packs at once as are missing, up to the "
            "limit in a calendar month, without asking you each time, until you switch it off.",
        },
    )


def _plain(amount: Decimal, currency: str) -> str:
    """An amount for a field: 30.00."""
    return f"{amount:.{money.minor_units(currency)}f}"
