"""The stage: each business as the product's verbs make it, with its sandbox set to day 0.

Built in one transaction, so that a business is there with all it sells or not at all; found again
by its name and owner.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from django.db import transaction
from django.utils import timezone

from billing import clock, errors, keys, merchants, plans
from billing.models import CreditBundle, Membership, Merchant, Plan, SecretKey, User
from lava.demo.story import cast
from meters import prices, pricing
from meters.models import Meter

KEY_NAME = "Demo backend"


@dataclass(frozen=True, slots=True)
class Stage:
    """A business and its sandbox, with what it sells by name and slug."""

    business: cast.Business
    merchant: Merchant
    plans: dict[str, Plan]
    bundles: dict[str, CreditBundle]
    meters: dict[str, Meter]

    @property
    def began(self) -> datetime:
        """Day 0's instant: when the first plan was made."""
        return min(plan.created_at for plan in self.plans.values())

    @property
    def is_told(self) -> bool:
        """Whether the sandbox has reached the present."""
        return self.merchant.clock_offset >= timedelta(0)


def owner(password: str) -> User:
    """The one person of the story, made with this password if they are not there."""
    found = User.objects.filter(email=cast.OWNER_EMAIL).first()
    return found or User.objects.create_user(cast.OWNER_EMAIL, password, name=cast.OWNER_NAME)


def all_told() -> bool:
    """Whether every business is there and its sandbox has reached the present."""
    who = User.objects.filter(email=cast.OWNER_EMAIL).first()
    if who is None:
        return False
    stages = [find(business, who) for business in cast.BUSINESSES]
    return all(found is not None and found.is_told for found in stages)


def build(business: cast.Business, who: User) -> Stage:
    """The business, made if it is not there."""
    return find(business, who) or _make(business, who)


def find(business: cast.Business, who: User) -> Stage | None:
    """The business, if it is there."""
    mine = Membership.objects.filter(
        user=who, role=Membership.Role.OWNER, organization__name=business.name
    )
    found = mine.select_related("organization").order_by("organization__created_at").first()
    if found is None:
        return None
    merchant = found.organization.sandbox
    return Stage(
        business=business,
        merchant=Merchant.objects.select_related("organization").get(pk=merchant.pk),
        plans={plan.name: plan for plan in _own_plans(merchant, business)},
        bundles={bundle.name: bundle for bundle in CreditBundle.objects.of(merchant)},
        meters={meter.slug: meter for meter in Meter.objects.of(merchant)},
    )


def _own_plans(merchant: Merchant, business: cast.Business) -> list[Plan]:
    """The story's plans, the oldest of a name last: whatever was made beside them since."""
    names = [plan.name for plan in business.plans]
    return list(Plan.objects.of(merchant).filter(name__in=names).order_by("-pk"))


@transaction.atomic
def _make(business: cast.Business, who: User) -> Stage:
    organization = merchants.create(
        name=business.name,
        owner=who,
        currency=business.currency,
        time_zone=business.time_zone,
        brand_color=business.brand_color,
        support_email=business.support_email,
    )
    merchant = Merchant.objects.select_related("organization").get(pk=organization.sandbox.pk)
    now = clock.begin(merchant, at=timezone.now() - timedelta(days=cast.DAYS))
    sold: dict[str, Plan] = {}
    bundles: dict[str, CreditBundle] = {}
    for plan in business.plans:
        made = sold[plan.name] = plans.create(merchant, terms=terms_of(plan), now=now)
        name, cost, credit = plan.bundle
        bundles[name] = plans.put_bundle(
            made, name=name, cost=Decimal(cost), credit=Decimal(credit), now=now
        )
    meters: dict[str, Meter] = {}
    for meter in business.meters:
        row = meters[meter.slug] = prices.create_meter(
            merchant,
            slug=meter.slug,
            name=meter.name,
            terms=price_of(meter, meter.tiers),
            actor=who.email,
            now=now,
        )
        for each in sold.values():
            prices.attach(row, each)
    return Stage(business, merchant, sold, bundles, meters)


def terms_of(plan: cast.Plan) -> plans.Terms:
    """A plan of the cast as the product's terms."""
    return plans.Terms(
        name=plan.name,
        price=Decimal(plan.price),
        included_credit=Decimal(plan.credit),
        rollover_type=plan.rollover,
        when_depleted=plan.when_depleted,
        overage_threshold=Decimal(plan.threshold),
        overage_cap=None if plan.cap is None else Decimal(plan.cap),
    )


def price_of(meter: cast.Meter, tiers: tuple[tuple[str, str], ...]) -> prices.Terms:
    """A meter of the cast at these tiers, as the product's terms."""
    return prices.Terms(
        tiers=[pricing.Tier(start=Decimal(start), rate=Decimal(rate)) for start, rate in tiers],
        rate_type=meter.rate_type,
        unit=meter.unit,
        tier_window=meter.tier_window,
        base_cost_payer=meter.base_cost_payer,
    )


def key_of(merchant: Merchant, kept: str, who: User) -> str:
    """The demo's secret key: the one kept, if it still works here, else a new one."""
    if kept:
        try:
            if keys.find(kept).merchant_id == merchant.pk:
                return kept
        except errors.Unauthenticated:
            pass
    for old in SecretKey.objects.of(merchant).filter(name=KEY_NAME, revoked_at=None):
        # Its text is lost: nobody can use it any more, so it is not left open.
        keys.revoke(old)
    return keys.make(merchant, name=KEY_NAME, user=who)[1]
