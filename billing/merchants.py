"""Businesses: make one with its two sets of books and its owner; keep its logo.

Called by the first-run page, the demo and the console's settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils.text import slugify

from billing import errors
from billing.models import Membership, Merchant, Organization, User

LOGO_BYTES = 64 * 1024


@transaction.atomic
def create(
    *, name: str, owner: User, currency: str = "USD", time_zone: str = "UTC", **brand: str
) -> Organization:
    """A business with live books, a sandbox, and its first owner.

    Raises:
        billing.errors.Invalid: no name.
    """
    if not name.strip():
        raise errors.Invalid("Name the business.", param="name")
    slug = base = slugify(name)[:32] or "merchant"
    count = 1
    while Organization.objects.filter(slug=slug).exists():
        count += 1
        slug = f"{base}-{count}"
    words = [word for word in name.upper().split() if word[0].isalnum()]
    organization = Organization(
        name=name.strip()[:80],
        slug=slug,
        receipt_prefix="".join(word[0] for word in words if word[0].isascii())[:3] or "R",
        **brand,
    )
    if not organization.receipt_prefix[0].isalpha():
        organization.receipt_prefix = "R"
    organization.save()
    for mode in (Merchant.Mode.SANDBOX, Merchant.Mode.LIVE):
        Merchant(
            organization=organization, mode=mode, currency=currency, time_zone=time_zone
        ).save()
    Membership.objects.create(user=owner, organization=organization, role=Membership.Role.OWNER)
    return organization


def set_logo(organization: Organization, data: bytes) -> None:
    """Keep a logo, PNG or JPEG, at most 64 kB, or none (`b""`).

    Raises:
        billing.errors.Invalid: another kind of file, or too large.
    """
    if len(data) > LOGO_BYTES:
        raise errors.Invalid("Use an image of at most 64 kB.", param="logo")
    if not data:
        kind = ""
    elif data.startswith(b"\x89PNG\r\n\x1a\n"):
        kind = "image/png"
    elif data.startswith(b"\xff\xd8\xff"):
        kind = "image/jpeg"
    else:
        raise errors.Invalid("Use a PNG or JPEG image.", param="logo")
    organization.logo, organization.logo_type = data, kind
    organization.save(update_fields=["logo", "logo_type"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Brand:
    """What customers know a business by, and the zone its days are in."""

    name: str
    brand_color: str
    support_email: str
    terms_url: str
    privacy_url: str
    receipt_prefix: str
    time_zone: str


@transaction.atomic
def rebrand(organization: Organization, brand: Brand) -> Organization:
    """Change what customers see, and the zone of both books; running cycles stay as they are.

    Raises:
        billing.errors.Invalid: with `fields` in its details, a sentence for each that is wrong.
    """
    organization = Organization.objects.select_for_update().get(pk=organization.pk)
    organization.name = brand.name.strip()
    organization.brand_color = brand.brand_color.strip().lower()
    organization.support_email = brand.support_email.strip()
    organization.terms_url = brand.terms_url.strip()
    organization.privacy_url = brand.privacy_url.strip()
    organization.receipt_prefix = brand.receipt_prefix.strip().upper()
    books = list(organization.merchants.select_for_update(no_key=True).order_by("pk"))
    problems: dict[str, str] = {}
    for row in books:
        row.time_zone = brand.time_zone
    for changed in (organization, *books):
        try:
            changed.clean_fields()
        except ValidationError as error:
            for field, sentences in error.message_dict.items():
                problems[field] = _SENTENCES.get(field, sentences[0])
    for field, address in (("terms_url", brand.terms_url), ("privacy_url", brand.privacy_url)):
        if address.strip() and urlsplit(address.strip()).scheme not in ("https", "http"):
            problems[field] = _SENTENCES[field]
    if problems:
        field, sentence = next(iter(problems.items()))
        raise errors.Invalid(sentence, param=field, fields=problems)
    organization.save()
    for row in books:
        row.save(update_fields=["time_zone"])
    return organization


_SENTENCES = {
    "name": "Name the business, with at most 80 characters.",
    "support_email": "Write an e-mail address, such as help@example.com.",
    "terms_url": "Write a web address that begins with https://.",
    "privacy_url": "Write a web address that begins with https://.",
    "time_zone": "Choose a zone of the list.",
}
