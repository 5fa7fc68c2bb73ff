"""Businesses: make one with its two sets of books and its owner; keep its logo.

Called by the first-run page, the demo and the console's settings.
"""

from __future__ import annotations

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
