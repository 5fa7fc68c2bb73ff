"""Who sells: the business, its people, its two sets of books, and the keys its backends use.

Written by the console's pages and by `billing.merchants`; read by everybody.
"""

from __future__ import annotations

import zoneinfo
from datetime import datetime, timedelta
from typing import Any, ClassVar

from django.contrib import auth
from django.contrib.auth.models import AbstractBaseUser, BaseUserManager
from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.db import models
from django.utils import timezone

from billing import ids
from billing.models.base import Keyed, Tenant, bounded, credit_field


class UserManager(BaseUserManager["User"]):
    def create_user(self, email: str, password: str | None = None, **fields: Any) -> User:
        """Make a person who may sign in; the e-mail is the name and is kept in lower case."""
        user = self.model(email=email.strip().lower(), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> User:
        """An operator of the installation. Sees no merchant's books without a membership."""
        return self.create_user(email, password, is_operator=True, **fields)

    def get_by_natural_key(self, username: str | None) -> User:
        return self.get(email=(username or "").strip().lower())


class User(AbstractBaseUser):
    """A person who signs in to the console. What they may do is said by their `Membership`."""

    email = models.EmailField(unique=True)
    name = models.CharField(max_length=120, blank=True)
    is_active = models.BooleanField(default=True)
    # An operator runs the installation (first-run page, doctor). It opens no merchant's books.
    is_operator = models.BooleanField(default=False)
    date_joined = models.DateTimeField(default=timezone.now)

    USERNAME_FIELD = "email"
    objects: ClassVar[UserManager] = UserManager()

    def __str__(self) -> str:
        return self.name or self.email

    @property
    def is_staff(self) -> bool:
        """Django's admin asks this: members of an organization may enter the console."""
        return self.is_active and self.memberships.exists()

    @property
    def is_superuser(self) -> bool:
        """Never: rights come from the role in the organization alone (billing.tenancy)."""
        return False

    def has_perm(self, perm: str, obj: Any = None) -> bool:
        """Whether the open membership allows it (billing.tenancy)."""
        return any(
            backend.has_perm(self, perm, obj)
            for backend in auth.get_backends()
            if hasattr(backend, "has_perm")
        )

    def has_module_perms(self, app_label: str) -> bool:
        return self.has_perm(f"{app_label}.view_any")

    def get_full_name(self) -> str:
        return self.name

    def get_short_name(self) -> str:
        return self.name.split(" ")[0] if self.name else self.email

    @property
    def initials(self) -> str:
        words = (self.name or self.email).split()
        return "".join(word[0] for word in words[:2]).upper()


class Organization(Keyed):
    """A business: what its customers know it by, and its team. It has two `Merchant`s."""

    name = models.CharField(max_length=80)
    slug = models.SlugField(max_length=40, unique=True)
    brand_color = models.CharField(
        max_length=7,
        default="#0b5f8f",
        validators=[RegexValidator(r"^#[0-9a-fA-F]{6}$", "Write the colour as #rrggbb.")],
    )
    # An image of at most 64 kB, PNG or JPEG, checked by `billing.merchants.set_logo`; empty: a
    # monogram is drawn instead.
    logo = models.BinaryField(blank=True, default=b"", editable=False)
    logo_type = models.CharField(max_length=20, blank=True)
    support_email = models.EmailField(blank=True)
    terms_url = models.URLField(blank=True)
    privacy_url = models.URLField(blank=True)
    # Letters before receipt numbers, e.g. "NV" in NV-3107.
    receipt_prefix = models.CharField(
        max_length=6,
        default="R",
        validators=[RegexValidator(r"^[A-Z][A-Z0-9]{0,5}$", "Use 1 to 6 capital letters.")],
    )
    # Above it refunds and credits by hand need a second person; null: one person is enough.
    # In the currency of the books. `billing.approvals` writes both limits.
    second_person_above = credit_field(null=True, blank=True)
    # Up to it support may refund of a payment; null: all of it.
    support_refunds_up_to = credit_field(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=(models.Q(second_person_above=None) | bounded("second_person_above"))
                & (models.Q(support_refunds_up_to=None) | bounded("support_refunds_up_to")),
                name="a_limit_is_an_amount",
            )
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def live(self) -> Merchant:
        return self.merchants.get(mode=Merchant.Mode.LIVE)

    @property
    def sandbox(self) -> Merchant:
        return self.merchants.get(mode=Merchant.Mode.SANDBOX)


class Membership(models.Model):
    """A person's role in an organization. Written by its owners in the console."""

    class Role(models.TextChoices):
        OWNER = "owner", "Owner"
        DEVELOPER = "developer", "Developer"
        SUPPORT = "support", "Support"
        VIEWER = "viewer", "Read only"

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    organization = models.ForeignKey(
        Organization, on_delete=models.CASCADE, related_name="memberships"
    )
    role = models.CharField(max_length=12, choices=Role)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["user", "organization"], name="a_person_has_one_role_in_an_organization"
            )
        ]

    def __str__(self) -> str:
        return f"{self.user}, {self.get_role_display()}"


class Invitation(Keyed):
    """A place in a team offered to an e-mail address; `billing.team` makes, spends and ends it.

    Only the hash of its link is kept; the link works once, until it ends or is taken back.
    """

    organization = models.ForeignKey(
        Organization, on_delete=models.CASCADE, related_name="invitations"
    )
    email = models.EmailField()
    role = models.CharField(max_length=12, choices=Membership.Role)
    # SHA-256 of the link's secret, 32 bytes.
    token_hash = models.BinaryField(max_length=32, unique=True, editable=False)
    invited_by = models.ForeignKey(
        User, null=True, on_delete=models.SET_NULL, related_name="+", editable=False
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField()
    accepted_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "email"],
                name="an_address_has_one_open_invitation",
                condition=models.Q(accepted_at=None, revoked_at=None),
            )
        ]

    def __str__(self) -> str:
        return f"{self.email}, {self.get_role_display()}"

    @property
    def public_id(self) -> str:
        return ids.public("inv", self.pk)


class AuditEntry(models.Model):
    """One thing a person changed in the console: who, what, before and after. Append-only.

    Written by `billing.trail` in the transaction of the change; a trigger refuses UPDATE and
    DELETE. It names people by words, so that it outlives their accounts.
    """

    id = models.BigAutoField(primary_key=True)
    organization = models.ForeignKey(
        Organization, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    # Null for what belongs to the business and not to one of its books.
    merchant = models.ForeignKey(
        "billing.Merchant", null=True, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    actor = models.CharField(max_length=255)
    actor_email = models.EmailField()
    # Noun and verb, e.g. `plan.changed`.
    action = models.CharField(max_length=64)
    # The public id of what was changed, and its name then.
    target = models.CharField(max_length=80, blank=True)
    target_name = models.CharField(max_length=255, blank=True)
    # Only the fields that differ; amounts as strings.
    before = models.JSONField(default=dict)
    after = models.JSONField(default=dict)
    # In real time, whatever a sandbox's clock says.
    occurred_at = models.DateTimeField(default=timezone.now)

    class Meta:
        verbose_name_plural = "audit entries"
        indexes = [models.Index(fields=["organization", "-id"], name="audit_by_organization")]

    def __str__(self) -> str:
        return f"{self.actor}: {self.action} {self.target_name}".strip()


def _valid_zone(name: str) -> None:
    if name not in zoneinfo.available_timezones():
        raise ValidationError("Choose a time zone of the IANA list, such as Europe/Amsterdam.")


class Merchant(Keyed):
    """One set of books of an organization: live or sandbox. Everything hangs on one of the two.

    The sandbox has its own clock: `now()` is real time plus `clock_offset`, which only
    `billing.clock` may move, and only forward. Live books always run on real time (a CHECK).
    """

    class Mode(models.TextChoices):
        LIVE = "live", "Live"
        SANDBOX = "sandbox", "Sandbox"

    organization = models.ForeignKey(
        Organization, on_delete=models.PROTECT, related_name="merchants"
    )
    mode = models.CharField(max_length=8, choices=Mode)
    currency = models.CharField(max_length=3, default="USD")
    time_zone = models.CharField(max_length=64, default="UTC", validators=[_valid_zone])
    clock_offset = models.DurationField(default=timedelta(0))
    # Numbers receipts without gaps; taken under this row's lock by `billing.payments`.
    receipt_count = models.BigIntegerField(default=3000, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "mode"], name="an_organization_has_one_book_a_mode"
            ),
            models.CheckConstraint(
                condition=models.Q(mode="sandbox") | models.Q(clock_offset=timedelta(0)),
                name="only_the_sandbox_has_a_clock_of_its_own",
            ),
            models.CheckConstraint(
                # Below 0 only while a story is told in a fresh sandbox (billing.clock.begin).
                condition=models.Q(clock_offset__gt=timedelta(days=-366)),
                name="the_sandbox_clock_is_at_most_a_year_behind",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.organization.name} ({self.get_mode_display().lower()})"

    @property
    def _books_are_sandbox(self) -> bool:
        return self.is_sandbox

    @property
    def public_id(self) -> str:
        return ids.public("mer", self.pk)

    @property
    def is_sandbox(self) -> bool:
        return self.mode == self.Mode.SANDBOX

    @property
    def name(self) -> str:
        return self.organization.name

    def now(self) -> datetime:
        """This instant on the merchant's clock, in UTC. Call it once, at the edge of a verb."""
        return timezone.now() + self.clock_offset


class SecretKey(Tenant):
    """A backend's key. Only its SHA-256 is kept; `billing.keys` makes and revokes it."""

    ID_PREFIX = "key"

    name = models.CharField(max_length=80)
    # SHA-256 of the whole key, 32 bytes.
    secret_hash = models.BinaryField(max_length=32, unique=True, editable=False)
    # First and last characters, enough to recognise it and never enough to use it.
    hint = models.CharField(max_length=32, editable=False)
    created_by = models.ForeignKey(
        User, null=True, blank=True, on_delete=models.SET_NULL, related_name="+", editable=False
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        verbose_name = "API key"
        indexes = [models.Index(fields=["merchant", "created_at"], name="key_by_merchant")]

    def __str__(self) -> str:
        return self.name

    @property
    def is_active(self) -> bool:
        return self.revoked_at is None
