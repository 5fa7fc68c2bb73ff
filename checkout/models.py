"""Checkout's tables: a session (one customer's way to one purchase), a visit to the portal, and the
codes sent for either.

Written by `checkout.sessions`, `checkout.portal.visits` and `checkout.phones` alone, under the row
lock of the session or the visit.
"""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.utils.crypto import salted_hmac
from djmoney.models.fields import MoneyField

from billing import ids
from billing.models import Connection, CreditBundle, Payment, Plan, Tenant, TenantQuerySet

# How long a session can be used, on the merchant's clock (money.md, Who is who).
LIFETIME = timedelta(hours=24)
SECRET_PREFIX = "css_"


def new_nonce() -> str:
    """A fresh word for the next step's form."""
    return secrets.token_urlsafe(18)


class CheckoutSessionQuerySet(TenantQuerySet):
    def by_secret(self, secret: str) -> Any:
        """The session of a secret, or None; looked up by hash, so it takes the same time always."""
        return (
            self.filter(secret_hash=ids.secret_hash(secret))
            .select_related(*CheckoutSession.NEIGHBOURS)
            .first()
        )

    def locked(self, key: Any) -> Any:
        """The session of a key, its row locked for the transaction and read anew."""
        return (
            self.select_for_update(of=("self",), no_key=True)
            .select_related(*CheckoutSession.NEIGHBOURS)
            .get(pk=key)
        )


class CheckoutSession(Tenant):
    """One way in: what is offered, how far the customer has come, what they paid.

    `state` moves along `open -> phone_sent -> verified -> paying -> completed`, back to `open` when
    the number is changed, and to `expired` from anywhere but `completed`.
    """

    ID_PREFIX = "cs"
    NEIGHBOURS = (
        "merchant__organization",
        "connection__customer",
        "connection__merchant",
        "plan",
        "bundle__plan",
        "payment__card",
    )

    class Mode(models.TextChoices):
        SUBSCRIPTION = "subscription", "Start a plan"
        CREDIT_BUNDLE = "credit_bundle", "Buy a bundle"
        TOPUP = "topup", "Choose a bundle and buy it"
        ONBOARDING = "onboarding", "Save a card"

    class State(models.TextChoices):
        OPEN = "open", "Opened"
        PHONE_SENT = "phone_sent", "Code sent"
        VERIFIED = "verified", "Phone confirmed"
        PAYING = "paying", "Paying"
        COMPLETED = "completed", "Completed"
        EXPIRED = "expired", "Expired"

    # States that still lead somewhere.
    UNDER_WAY = (State.OPEN, State.PHONE_SENT, State.VERIFIED, State.PAYING)

    mode = models.CharField(max_length=13, choices=Mode)
    state = models.CharField(max_length=10, choices=State, default=State.OPEN)
    # SHA-256 of the secret; the secret itself is derived again from the id (`secret`).
    secret_hash = models.BinaryField(max_length=32, unique=True, editable=False)
    # Changes with each step; a form that was shown before the last step is refused.
    nonce = models.CharField(max_length=32, default=new_nonce, editable=False)
    plan = models.ForeignKey(
        Plan, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    bundle = models.ForeignKey(
        CreditBundle, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    # The price that was offered, fixed when the plan or bundle is: a page never charges another.
    amount = MoneyField(max_digits=14, decimal_places=3, null=True, default_currency=None)
    # The customer: named by the merchant (`connection_is_given`), else found by their phone.
    connection = models.ForeignKey(
        Connection, null=True, blank=True, on_delete=models.PROTECT, related_name="checkouts"
    )
    connection_is_given = models.BooleanField(default=False)
    # E.164; empty until a code was sent to it.
    phone = models.CharField(max_length=16, blank=True)
    verified_at = models.DateTimeField(null=True, blank=True)
    # At most one payment a session, whatever is pressed how often.
    payment = models.OneToOneField(
        Payment, null=True, blank=True, on_delete=models.PROTECT, related_name="checkout"
    )
    # Where a card is saved without a charge: the card network's attempt.
    setup_intent_id = models.CharField(max_length=64, blank=True)
    # The only origin that may frame the page and that is told how it went.
    origin_url = models.CharField(max_length=255)
    # Of the same origin; empty: none.
    return_url = models.CharField(max_length=2000, blank=True)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    completed_at = models.DateTimeField(null=True, blank=True)

    objects: ClassVar[Any] = CheckoutSessionQuerySet.as_manager()

    class Meta:
        verbose_name = "checkout session"
        indexes = [
            models.Index(fields=["merchant", "-created_at"], name="checkout_by_time"),
            models.Index(
                fields=["expires_at"],
                name="checkout_under_way",
                condition=models.Q(state__in=["open", "phone_sent", "verified", "paying"]),
            ),
        ]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(state="completed", completed_at__isnull=False)
                | (~models.Q(state="completed") & models.Q(completed_at=None)),
                name="a_completed_checkout_says_when",
            ),
            models.CheckConstraint(
                condition=~models.Q(mode="subscription") | models.Q(plan__isnull=False),
                name="a_subscription_checkout_names_a_plan",
            ),
            models.CheckConstraint(
                condition=~models.Q(mode="credit_bundle") | models.Q(bundle__isnull=False),
                name="a_bundle_checkout_names_a_bundle",
            ),
            models.CheckConstraint(
                condition=models.Q(plan=None, bundle=None) | models.Q(amount__isnull=False),
                name="what_is_sold_has_a_price",
            ),
            models.CheckConstraint(
                condition=models.Q(state__in=["open", "phone_sent", "expired"])
                | models.Q(connection__isnull=False, verified_at__isnull=False),
                name="only_a_confirmed_phone_comes_to_the_payment",
            ),
            models.CheckConstraint(
                condition=models.Q(connection_is_given=False) | models.Q(connection__isnull=False),
                name="a_given_connection_is_there",
            ),
            models.CheckConstraint(
                condition=models.Q(expires_at__gt=models.F("created_at")),
                name="a_checkout_expires_after_it_is_made",
            ),
            models.CheckConstraint(
                condition=models.Q(origin_url__regex=r"^https?://[a-z0-9._-]+(:[0-9]{1,5})?$"),
                name="an_origin_is_one_plain_origin",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_mode_display()}, {self.public_id}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if self.pk is None:
            self.pk = ids.new(sandbox=self.merchant.is_sandbox)
            self.secret_hash = ids.secret_hash(self.secret)
        super().save(*args, **kwargs)

    @property
    def secret(self) -> str:
        """256 bits derived from the id and SECRET_KEY, so that it can be shown again unstored."""
        digest = salted_hmac("checkout.secret", self.pk.hex, algorithm="sha256").digest()
        return SECRET_PREFIX + ids.base62(digest, 43)

    @property
    def url(self) -> str:
        """The address of the page that stands alone."""
        return f"{settings.LAVA_BASE_URL}/checkout/{self.secret}"

    @property
    def buyer(self) -> Connection:
        """Whom it is for; only where a phone is confirmed, or the merchant named them."""
        assert self.connection is not None
        return self.connection

    @property
    def is_under_way(self) -> bool:
        return self.state in self.UNDER_WAY


class PortalVisit(Tenant):
    """One browser at one merchant's portal, from the first code it asked for to its sign-out.

    Signed in once `verified_at` is set; `connection` is then whose portal it is, null where nobody
    of that phone buys from the merchant.
    """

    ID_PREFIX = "pvs"

    # SHA-256 of what the browser's cookie holds; another one from the sign-in on.
    secret_hash = models.BinaryField(max_length=32, unique=True, editable=False)
    # E.164, where the code went.
    phone = models.CharField(max_length=16)
    connection = models.ForeignKey(
        Connection, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    created_at = models.DateTimeField()
    # When it was last heard of, to the minute: half an hour of silence ends it.
    seen_at = models.DateTimeField()
    verified_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = "portal visit"
        indexes = [
            models.Index(
                fields=["seen_at"],
                name="visit_under_way",
                condition=models.Q(ended_at=None),
            ),
        ]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(connection=None) | models.Q(verified_at__isnull=False),
                name="only_a_confirmed_phone_opens_a_portal",
            ),
        ]

    def __str__(self) -> str:
        return f"Visit of {self.phone}"


class PhoneVerification(Tenant):
    """One code sent to one phone for one session or visit. The code itself is never stored."""

    ID_PREFIX = "phv"

    # Who asked for it: one of the two.
    session = models.ForeignKey(
        CheckoutSession,
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="verifications",
    )
    visit = models.ForeignKey(
        PortalVisit, null=True, blank=True, on_delete=models.CASCADE, related_name="verifications"
    )
    # E.164.
    phone = models.CharField(max_length=16)
    # HMAC-SHA256 of asker, phone and code under SECRET_KEY.
    code_hash = models.BinaryField(max_length=32, editable=False)
    # The network address that asked, for the limits; null: the sandbox's test helper asked.
    address = models.GenericIPAddressField(null=True, blank=True)
    # Wrong tries so far; five burn the code.
    attempts = models.PositiveSmallIntegerField(default=0)
    sent_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    consumed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = "phone code"
        indexes = [
            models.Index(fields=["session", "-sent_at"], name="code_by_session"),
            models.Index(fields=["visit", "-sent_at"], name="code_by_visit"),
            models.Index(fields=["merchant", "phone", "-sent_at"], name="code_by_phone"),
            models.Index(fields=["merchant", "address", "-sent_at"], name="code_by_address"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(attempts__lte=5), name="a_code_takes_five_wrong_tries"
            ),
            models.CheckConstraint(
                condition=models.Q(consumed_at=None) | models.Q(attempts__lt=5),
                name="a_burnt_code_confirms_nothing",
            ),
            models.CheckConstraint(
                condition=models.Q(session__isnull=False, visit=None)
                | models.Q(session=None, visit__isnull=False),
                name="a_code_is_asked_for_by_one",
            ),
        ]

    def __str__(self) -> str:
        return f"Code for {self.phone}"
