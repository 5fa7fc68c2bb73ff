"""What each hosted page shows: the template and its words for a session where it stands.

Called by `checkout.views`; reads rows, writes none, asks no network. A page is a `Page`: template,
context and status.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from django.templatetags.static import static
from django.urls import reverse
from django.utils.translation import gettext, ngettext
from moneyed import Money

from billing import brand, changes, credits, money, periods, stripe
from billing.models import Connection, Merchant, Organization, PaymentMethod, Subscription
from billing.stripe import ClientIntent
from checkout import dialing, languages, phones, results, sessions, summary
from checkout.models import CheckoutSession
from checkout.portal import switching

Mode = CheckoutSession.Mode
State = CheckoutSession.State

DEFAULT_BRAND = Organization._meta.get_field("brand_color").default
# Who is on what, and what leaving it for the session's plan costs and gives.
_Change = tuple[Subscription, changes.Preview]
_CARD_IMAGES = ("visa", "mastercard", "amex", "discover")


@dataclass
class Page:
    """A template with its words."""

    template: str
    context: dict[str, Any] = field(default_factory=dict)
    status: int = 200


@dataclass(frozen=True)
class Alert:
    """A box that says what happened, what did not, and what to do."""

    title: str
    text: str
    # "notice": nothing is wrong, but something has to be read.
    kind: str = ""
    focus: bool = True


def brand_of(merchant: Merchant) -> dict[str, Any]:
    """The merchant as its customers know it: name, logo, colour, legal addresses."""
    organization = merchant.organization
    color = organization.brand_color
    css_url = logo_url = ""
    if color.lower() != DEFAULT_BRAND:
        css_url = reverse("hosted-brand", args=[organization.pk, brand.fingerprint(color)])
    if organization.logo:
        logo_url = reverse("hosted-logo", args=[organization.pk, logo_fingerprint(organization)])
    return {
        "name": organization.name,
        "monogram": next((c for c in organization.name if c.isalnum()), "?").upper(),
        "logo_url": logo_url,
        "css_url": css_url,
        "sandbox": merchant.is_sandbox,
        "terms_url": organization.terms_url,
        "terms_text": _bare(organization.terms_url),
        "privacy_url": organization.privacy_url,
        "privacy_text": _bare(organization.privacy_url),
    }


def logo_fingerprint(organization: Organization) -> str:
    """Names one version of a logo, so that it may be cached for ever."""
    return brand.logo_fingerprint(bytes(organization.logo))


def frame(session: CheckoutSession, *, embedded: bool, title: str) -> dict[str, Any]:
    """What every page of a session carries."""
    name = "embed-checkout" if embedded else "checkout"
    secret = session.secret
    steps = ("phone", "code", "resend", "restart", "bundle", "pay", "complete")
    urls = {step: languages.address(f"{name}-{step}", secret) for step in steps}
    return {
        "title": f"{title} \u2013 {session.merchant.name}",
        "brand": brand_of(session.merchant),
        "embedded": embedded,
        "nonce": session.nonce,
        "urls": urls | {"page": languages.address(name, secret)},
        "origin": session.origin_url,
        "session_id": session.public_id,
        "return_url": session.return_url,
    }


def start(
    session: CheckoutSession,
    *,
    embedded: bool,
    now: datetime,
    country: dialing.Country,
    phone: str = "",
    problem: str = "",
    alert: Alert | None = None,
) -> Page:
    """Step 1: what it costs and gives, then the phone."""
    offer = _offer(session, _change(session, now=now), now=now)
    known = (
        session.connection_is_given
        and session.connection is not None
        and bool(session.connection.customer.phone)
    )
    heading = gettext("Confirm it is you") if known else gettext("Confirm your phone")
    context = frame(session, embedded=embedded, title=heading) | {
        "summary": offer,
        "step": _step(session, 1),
        "heading": heading if offer else _topic(session),
        "lead": _purpose(session),
        "known_phone": dialing.masked(session.connection.customer.phone)
        if known and session.connection is not None
        else "",
        "countries": dialing.countries(),
        "chosen": country,
        "phone": phone,
        "problem": problem,
        "alert": alert,
    }
    return Page("checkout/start.html", context)


def code(
    session: CheckoutSession,
    *,
    embedded: bool,
    now: datetime,
    problem: str = "",
    alert: Alert | None = None,
) -> Page:
    """Step 2: the code."""
    wait = phones.resend_wait(session, now=now)
    context = frame(session, embedded=embedded, title=gettext("Enter your code")) | {
        "summary": _offer(session, _change(session, now=now), now=now),
        "step": _step(session, 2),
        "masked_phone": dialing.masked(session.phone),
        "valid_for": valid_for(),
        "wait": wait,
        "wait_text": f"{wait // 60}:{wait % 60:02d}",
        "can_change": not (session.connection_is_given and session.buyer.customer.phone),
        "problem": problem,
        "alert": alert,
    }
    return Page("checkout/code.html", context)


def valid_for() -> str:
    """How long a code is good for."""
    minutes = phones.VALID_FOR.seconds // 60
    return ngettext("{count} minute", "{count} minutes", minutes).format(count=minutes)


def choose(
    session: CheckoutSession, *, embedded: bool, now: datetime, alert: Alert | None = None
) -> Page:
    """A top-up's packs."""
    connection = session.connection
    assert connection is not None and connection.subscription is not None
    balance = credits.balance(connection, now=now)
    bundles = connection.subscription.plan.live_bundles.filter(cost__gt=0)
    context = frame(session, embedded=embedded, title=gettext("Add credits")) | {
        "heading": gettext("Add credits"),
        "lead": _balance_sentence(balance),
        "bundles": [
            {
                "id": bundle.public_id,
                "name": bundle.name,
                "gives": summary.of_credits(
                    money.display(bundle.credit_amount, bundle.plan.currency)
                ),
                "price": summary.show(bundle.cost),
            }
            for bundle in bundles
        ],
        "alert": alert,
    }
    return Page("checkout/choose.html", context)


def pay(
    session: CheckoutSession,
    *,
    embedded: bool,
    now: datetime,
    typed: dict[str, str] | None = None,
    problems: dict[str, str] | None = None,
    alert: Alert | None = None,
) -> Page:
    """Step 3: name, e-mail, card; what is due and what is agreed to."""
    connection = session.connection
    assert connection is not None
    customer = connection.customer
    means = sessions.means(session)
    saved = connection.card if means == sessions.Means.PAYMENT else None
    typed = typed or {"name": customer.name, "email": customer.email}
    asks = not (saved and customer.name and customer.email) or bool(problems)
    begun = session.state == State.PAYING
    moves = sessions.change(session) != sessions.Change.NONE
    change = _change(session, now=now)
    context = frame(session, embedded=embedded, title=gettext("Payment")) | {
        "summary": _offer(session, change, now=now, saved=saved),
        "step": "" if saved or moves else _step(session, 3),
        "heading": {
            sessions.Means.NONE: gettext("Your details"),
            sessions.Means.SETUP: gettext("Your card"),
        }.get(means, gettext("Payment")),
        "card": None
        if means == sessions.Means.NONE
        else card_fields(session.merchant, charge=_charge(session, change), phone=session.phone),
        "saved_card": shown_card(saved),
        "masked_phone": dialing.masked(session.phone),
        "can_change": not session.connection_is_given and not begun,
        "can_rechoose": session.mode == Mode.TOPUP and not begun,
        "ask_name": asks,
        "problems": problems or {},
        "alert": alert,
        "nonce": sessions.form_nonce(session),
        "moves": moves,
    }
    terms = _terms(session, change, now=now, saved=saved)
    return Page("checkout/pay.html", context | typed | terms)


def done(session: CheckoutSession, *, embedded: bool, now: datetime) -> Page:
    """What they have now, and what was paid; without any of it once the session's day is over."""
    connection = session.connection
    assert connection is not None
    context = frame(session, embedded=embedded, title=gettext("Done")) | {
        "completed": True,
        "connection_id": connection.public_id,
        "portal_url": languages.address("portal", session.merchant.public_id),
    }
    if session.expires_at <= now:
        context |= {
            "kind": "ok",
            "heading": gettext("This checkout is done"),
            "lead": gettext("There is nothing left to pay here. Go back to {merchant}.").format(
                merchant=session.merchant.name
            ),
        }
        return Page("checkout/notice.html", context, 410)
    return Page("checkout/done.html", context | results.of(session, now=now))


def notice(
    session: CheckoutSession,
    *,
    embedded: bool,
    kind: str,
    heading: str,
    lead: str,
    status: int = 200,
    **more: Any,
) -> Page:
    """A page with one thing to say."""
    context = frame(session, embedded=embedded, title=heading)
    return Page(
        "checkout/notice.html",
        context | {"kind": kind, "heading": heading, "lead": lead} | more,
        status,
    )


def missing() -> Page:
    """No such checkout; there is nobody to name."""
    return Page("hosted/not_found.html", status=404)


def _change(session: CheckoutSession, *, now: datetime) -> _Change | None:
    """The change of plan that a session is for, reckoned once for a whole page. Told only to the
    customer whose plan it is: their phone is confirmed."""
    current = session.connection.subscription if session.connection is not None else None
    plan = session.plan
    if session.state not in (State.VERIFIED, State.PAYING) or plan is None or current is None:
        return None
    if sessions.change(session) == sessions.Change.NONE:
        return None
    return current, changes.preview(current, plan=plan, now=now)


def _offer(
    session: CheckoutSession,
    change: _Change | None,
    *,
    now: datetime,
    saved: PaymentMethod | None = None,
) -> summary.Summary | None:
    zone = session.merchant.time_zone
    if change is not None:
        return switching.as_summary(*change)
    if session.plan is not None:
        return summary.of_plan(session.plan, now=now, zone=zone)
    if session.bundle is None:
        return None
    if saved is not None and session.connection is not None:
        balance = credits.balance(session.connection, now=now)
        return summary.of_bundle_for(session.bundle, balance=balance.total)
    return summary.of_bundle(session.bundle, now=now, zone=zone)


def _terms(
    session: CheckoutSession,
    change: _Change | None,
    *,
    now: datetime,
    saved: PaymentMethod | None,
) -> dict[str, Any]:
    """Due today, the consent, and the button's words."""
    name, zone = session.merchant.name, session.merchant.time_zone
    means = sessions.means(session)
    if session.bundle is not None:
        current = session.connection.subscription if session.connection else None
        assert current is not None
        price = summary.show(session.bundle.cost)
        return {
            "due": "" if saved else price,
            "due_for": gettext("{pack}, once").format(pack=session.bundle.name),
            "consent": summary.consent_to_bundle(
                session.bundle, merchant=name, subscription=current, zone=zone
            ),
            "action": gettext("Pay {price}").format(price=price),
            "busy": gettext("Paying..."),
        }
    if session.plan is None:
        return {
            "due": money.display(Decimal(0), session.merchant.currency),
            "due_for": gettext("The card is saved, not charged"),
            "consent": gettext(
                "By saving it you let {merchant} charge this card for what you order later. "
                "Nothing is charged today."
            ).format(merchant=name),
            "action": gettext("Save card"),
            "busy": gettext("Saving..."),
        }
    plan = session.plan
    if change is not None:
        # Another card than the saved one may be chosen.
        offer = switching.offer(*change, card=gettext("this card"))
        begun = session.payment
        return {
            "due": "",
            "consent": offer.consent,
            # Once begun it is what was quoted then.
            "action": switching.pay_and_switch(begun.amount) if begun else offer.action,
            "busy": offer.busy,
        }
    end = periods.cycle(now, plan.billing_interval, 0, zone).end
    consent = summary.consent_to_plan(plan, merchant=name, now=now, zone=zone)
    if means == sessions.Means.NONE:
        consent = gettext("No card is needed: nothing of this plan is ever charged.")
    action = gettext("Start {plan}") if plan.is_free else gettext("Pay {price}")
    return {
        "due": summary.show(plan.price),
        "due_for": gettext("{plan}, {start} to {end}").format(
            plan=plan.name, start=summary.day(now, zone), end=summary.day(end, zone)
        ),
        "consent": f"{consent} {results.cancelling(session)}",
        "action": action.format(plan=plan.name, price=summary.show(plan.price)),
        "busy": gettext("Starting...") if plan.is_free else gettext("Paying..."),
    }


def _balance_sentence(balance: credits.Balance) -> str:
    if balance.total < 0:
        owed = money.display(-balance.total, balance.currency)
        return gettext("You owe {amount} for past use. It is paid first.").format(amount=owed)
    amount = money.display(balance.total, balance.currency)
    return gettext("You have {amount} of credits.").format(amount=amount)


def _step(session: CheckoutSession, number: int) -> str:
    """New customers see how far it is; returning ones have no count."""
    counted = session.mode in (Mode.SUBSCRIPTION, Mode.ONBOARDING)
    if not counted or session.connection_is_given:
        return ""
    return gettext("Step {number} of 3").format(number=number)


def _topic(session: CheckoutSession) -> str:
    return gettext("Add credits") if session.mode == Mode.TOPUP else gettext("Save a card")


def _purpose(session: CheckoutSession) -> str:
    if session.mode == Mode.TOPUP:
        return gettext("Confirm that it is you, then choose how much.")
    return gettext(
        "{merchant} keeps it for what you order later. Nothing is charged today."
    ).format(merchant=session.merchant.name)


def card_fields(merchant: Merchant, *, charge: Money | None, phone: str) -> dict[str, str]:
    """What the page's script makes Stripe's Payment Element of; `charge` None: the card is saved
    only. What is charged in the end is what the intent says, made when the button is pressed."""
    network = stripe.page_keys(merchant)
    return {
        "script_url": network.script_url,
        "publishable_key": network.publishable_key,
        "account": network.account,
        "kind": "setup" if charge is None else "payment",
        "amount": "" if charge is None else str(money.to_minor(charge)),
        "currency": merchant.currency.lower() if charge is None else str(charge.currency).lower(),
        "country": dialing.region(phone),
        # A sandbox's cards are test cards: wallets hold real ones.
        "wallets": "never" if merchant.is_sandbox else "auto",
    }


def intent_json(
    intent: ClientIntent,
    connection: Connection | None,
    *,
    card: str,
    name: str = "",
    email: str = "",
) -> dict[str, Any]:
    """What the page's script confirms, and with which card: `card` is `saved` or `new`. Without a
    name and an address of now it is those that are known."""
    saved = connection.card if connection is not None and card == "saved" else None
    customer = connection.customer if connection is not None else None
    return {
        "kind": intent.kind,
        "client_secret": intent.client_secret,
        "amount": intent.amount_minor,
        "currency": intent.currency.lower(),
        "payment_method": saved.card_id if saved else "",
        "name": name or (customer.name if customer else ""),
        "email": email or (customer.email if customer else ""),
    }


def _charge(session: CheckoutSession, change: _Change | None) -> Money | None:
    """What the button will ask for, as far as it is known before; None: nothing is charged."""
    if sessions.means(session) != sessions.Means.PAYMENT:
        return None
    if session.payment is not None:
        begun: Money = session.payment.amount
        return begun
    if session.bundle is not None:
        cost: Money = session.bundle.cost
        return cost
    plan = session.plan
    assert plan is not None
    if change is not None and change[1].charge.amount > 0:
        return change[1].charge
    price: Money = plan.price
    return price


def shown_card(saved: PaymentMethod | None) -> dict[str, str] | None:
    """A saved card as the pages show it; None without one."""
    if saved is None:
        return None
    image = saved.brand if saved.brand in _CARD_IMAGES else "unknown"
    return {
        "title": str(saved),
        "expires": f"{saved.exp_month:02d}/{saved.exp_year % 100:02d}",
        "image": static(f"hosted/cards/{image}.svg"),
    }


def _bare(url: str) -> str:
    """An address to read: host and path."""
    parts = urlsplit(url)
    return f"{parts.netloc}{parts.path}".rstrip("/")
