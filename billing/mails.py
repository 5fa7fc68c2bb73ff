"""Mails to customers: one letter as plain text and as the page that mail readers show, in the
language of whom it is for.

`owe` puts it into the outbox, in the transaction of its cause; without an address nothing is owed.
What a letter says is `billing.letters`; when it is sent, `billing.receipts` (payments) and
`billing.notices` (credits and plans) know.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.template import loader
from django.utils.translation import gettext

from billing import brand, locales, outbox
from billing.letters import Letter
from billing.models import Connection, Merchant, Organization


@dataclass(frozen=True, slots=True)
class Written:
    """A letter as it is sent."""

    subject: str
    body: str
    html: str


def owe(connection: Connection, compose: Callable[[], Letter], *, now: datetime) -> None:
    """Owe a customer a letter; `compose` is called in their language."""
    customer, merchant = connection.customer, connection.merchant
    if not customer.email:
        return
    with locales.speak(locales.of_customer(customer)):
        written = write(merchant, compose(), first_name=customer.first_name)
    outbox.mail(
        merchant,
        to=customer.email,
        subject=written.subject,
        body=written.body,
        html=written.html,
        now=now,
    )


def write(merchant: Merchant, letter: Letter, *, first_name: str = "") -> Written:
    """Text and page of a letter, in the language of now."""
    hello = gettext("Hello {name},").format(name=first_name) if first_name else gettext("Hello,")
    return Written(
        subject=letter.subject[:200],
        body=_text(merchant, letter, hello=hello),
        html=loader.render_to_string("mail/letter.html", _page(merchant, letter, hello=hello)),
    )


def portal_address(merchant: Merchant) -> str:
    """The absolute address of a merchant's portal, where most letters lead."""
    return f"{settings.LAVA_BASE_URL}/portal/{merchant.public_id}"


def _text(merchant: Merchant, letter: Letter, *, hello: str) -> str:
    parts = [hello, letter.lead, *letter.paragraphs]
    rows = letter.facts + letter.lines + ((letter.total,) if letter.total else ()) + letter.notes
    if rows:
        parts.append("\n".join(f"{label}: {text}" for label, text in rows))
    parts += [f"{link.words}: {link.url}" for link in (letter.link, letter.second) if link]
    parts.append(questions(merchant))
    return "\n\n".join(part for part in parts if part) + "\n"


def _page(merchant: Merchant, letter: Letter, *, hello: str) -> dict[str, Any]:
    organization = merchant.organization
    return {
        "letter": letter,
        "hello": hello,
        "language": locales.current(),
        "merchant": merchant.name,
        "sandbox": merchant.is_sandbox,
        "monogram": next((c for c in organization.name if c.isalnum()), "?").upper(),
        "logo_url": _logo_address(organization),
        # Mail readers turn light colours dark by themselves; the contrast holds on both.
        "colors": brand.derive(organization.brand_color, ground=brand.LIGHT),
        "questions": questions(merchant),
    }


def _logo_address(organization: Organization) -> str:
    """Where a mail reader finds the logo; empty: there is none that all of them show."""
    if not organization.logo or organization.logo_type not in ("image/png", "image/jpeg"):
        return ""
    version = brand.logo_fingerprint(bytes(organization.logo))
    return f"{settings.LAVA_BASE_URL}/hosted/logo/{organization.pk}/{version}"


def questions(merchant: Merchant) -> str:
    """Whom to ask."""
    support = merchant.organization.support_email
    if support:
        return gettext("Questions? Write to {address}.").format(address=support)
    return gettext("Questions? Ask {merchant}.").format(merchant=merchant.name)
