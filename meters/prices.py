"""Meters and the versions of their prices: make, publish, rename, attach, detach.

The only writer of `Meter`, `MeterPrice` and `MeterPlan`; called by the console. A published price
never changes (a trigger refuses it): another price is the next version, from that instant on, and
each request keeps the version it was priced with (money.md, Meters).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from django.db import IntegrityError, transaction

from billing import errors, plans
from billing.models import Merchant, Plan, Subscription
from meters import pricing
from meters.gateway.models import GatewayCall
from meters.models import Meter, MeterPlan, MeterPosition, MeterPrice

_SLUG = re.compile(r"[a-z0-9]([a-z0-9_-]*[a-z0-9])?")
LONGEST_SLUG = 64
LONGEST_NAME = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a version of a price says; `tiers` as in `meters.pricing`, the first from 0."""

    tiers: Sequence[pricing.Tier]
    rate_type: str = MeterPrice.RateType.FIXED
    unit: str = MeterPrice.Unit.TOKENS
    token_basis: str = MeterPrice.TokenBasis.BOTH
    tier_window: str = MeterPrice.TierWindow.LIFETIME
    base_cost_payer: str = MeterPrice.Payer.MERCHANT
    free_allowance: Decimal = Decimal(0)
    package_size: Decimal = Decimal(0)
    package_rounding: str = MeterPrice.PackageRounding.UP
    tier_mode: str = MeterPrice.TierMode.GRADUATED

    @property
    def price(self) -> pricing.Price:
        """The terms as `meters.pricing` computes with them."""
        return pricing.Price(
            rate_type=self.rate_type,
            unit=self.unit,
            token_basis=self.token_basis,
            tiers=tuple(self.tiers),
            free_allowance=self.free_allowance,
            package_size=self.package_size,
            package_rounding=self.package_rounding,
            tier_mode=self.tier_mode,
        )


def of(price: MeterPrice) -> Terms:
    """The terms of a published version."""
    return Terms(
        tiers=price.tiers,
        rate_type=price.rate_type,
        unit=price.unit,
        token_basis=price.token_basis,
        tier_window=price.tier_window,
        base_cost_payer=price.base_cost_payer,
        free_allowance=price.free_allowance,
        package_size=price.package_size,
        package_rounding=price.package_rounding,
        tier_mode=price.tier_mode,
    )


def validate(terms: Terms) -> None:
    """Check terms before they are published.

    Raises:
        billing.errors.Invalid: naming the field, e.g. `tiers[2].start`.
    """
    pricing.validate(terms.price)
    if (
        terms.tier_mode == MeterPrice.TierMode.VOLUME
        and terms.tier_window == MeterPrice.TierWindow.LIFETIME
    ):
        raise errors.Invalid(
            "Tiers by volume are settled at the end of a cycle: count by cycle.",
            param="tier_window",
        )
    for chosen, options, name in (
        (terms.tier_window, MeterPrice.TierWindow.values, "tier_window"),
        (terms.base_cost_payer, MeterPrice.Payer.values, "base_cost_payer"),
    ):
        if chosen not in options:
            raise errors.Invalid(f"Choose one of {', '.join(options)}.", param=name)


@transaction.atomic
def create_meter(
    merchant: Merchant, *, slug: str, name: str, terms: Terms, actor: str, now: datetime
) -> Meter:
    """Make a meter with the first version of its price.

    Raises:
        billing.errors.Invalid: no name, a slug that programs cannot send, terms as `validate`.
        billing.errors.Conflict: the merchant has a meter of that slug.
    """
    slug = slug.strip()
    if len(slug) > LONGEST_SLUG or not _SLUG.fullmatch(slug):
        raise errors.Invalid(
            "Use small letters, digits, - and _; start and end with a letter or digit.",
            param="slug",
        )
    if slug.startswith("prd_"):
        raise errors.Invalid("A slug cannot begin like an id, prd_.", param="slug")
    validate(terms)
    meter = Meter(merchant=merchant, slug=slug, name=_name(name), created_at=now)
    try:
        with transaction.atomic():
            meter.save()
    except IntegrityError as error:
        raise errors.Conflict(
            f"There is a meter with the slug {slug!r} already.", code="slug_taken", param="slug"
        ) from error
    _publish(meter, terms, version=1, actor=actor, now=now)
    return meter


@transaction.atomic
def publish(meter: Meter, *, terms: Terms, actor: str, now: datetime) -> MeterPrice:
    """Make terms the price of a meter from `now` on: its next version, by the name of `actor`.

    The terms already in force make no new version; the version in force is given back.

    Raises:
        billing.errors.Invalid: as `validate`.
        billing.errors.Conflict: another unit, and the meter was used: its positions count the old.
    """
    validate(terms)
    meter = (
        # Its price is read once it is locked: who waited for another edit finds that one's.
        Meter.objects.select_for_update(of=("self",)).select_related("merchant").get(pk=meter.pk)
    )
    assert meter.price is not None
    if _same(of(meter.price), terms):
        return meter.price
    if terms.unit != meter.price.unit and was_used(meter):
        raise errors.Conflict(
            "Requests were counted in this unit, so it stays. Make a new meter for another unit.",
            code="meter_was_used",
            param="unit",
        )
    latest = MeterPrice.objects.filter(meter=meter).latest("version")
    return _publish(meter, terms, version=latest.version + 1, actor=actor, now=now)


@transaction.atomic
def rename(meter: Meter, *, name: str) -> Meter:
    """Give a meter another name; its slug stays, since programs send it.

    Raises:
        billing.errors.Invalid: no name, or a long one.
    """
    meter.name = _name(name)
    meter.save(update_fields=["name"])
    return meter


def attach(meter: Meter, plan: Plan) -> None:
    """Make a meter active on a plan, from the next request on. Attached twice, it stays attached.

    Raises:
        billing.errors.NotFound: the plan is another merchant's.
    """
    if meter.merchant_id != plan.merchant_id:
        raise errors.NotFound("No such plan.")
    MeterPlan.objects.get_or_create(
        meter=meter, plan=plan, defaults={"merchant_id": meter.merchant_id}
    )


@transaction.atomic
def new_plan_version(
    plan: Plan, *, terms: plans.Terms, now: datetime, keep_offering: bool = False
) -> Plan:
    """Make the next version of a plan (`billing.plans.new_version`) with the meters of this one.

    Raises:
        billing.errors.Invalid: as `billing.plans.create`.
    """
    made = plans.new_version(plan, terms=terms, now=now, keep_offering=keep_offering)
    for meter in Meter.objects.filter(links__plan=plan):
        attach(meter, made)
    return made


def detach(meter: Meter, plan: Plan) -> None:
    """Refuse a meter's requests on a plan, from the next one on; what was charged stays."""
    MeterPlan.objects.filter(meter=meter, plan=plan).delete()


@transaction.atomic
def archive(meter: Meter, *, now: datetime) -> Meter:
    """Count no more with a meter; its requests and prices stay, and so does its slug.

    Raises:
        billing.errors.Conflict: it is active on a plan that is offered or that somebody is on.
    """
    meter = Meter.objects.select_for_update(of=("self",)).get(pk=meter.pk)
    plans = Plan.objects.filter(meter_links__meter=meter)
    using = plans.filter(archived_at=None) | plans.filter(
        subscriptions__status__in=Subscription.CURRENT
    )
    plan = using.order_by("name").first()
    if plan is not None:
        raise errors.Conflict(
            f"The plan {plan.name!r} has this meter. Take it off the plan first.",
            code="meter_in_use",
        )
    if meter.archived_at is None:
        meter.archived_at = now
        meter.save(update_fields=["archived_at"])
    return meter


def was_used(meter: Meter) -> bool:
    """Whether a request was ever charged by the meter, or a call runs that will be."""
    # By the positions: they are few, while the requests have no index by meter.
    return bool(
        MeterPosition.objects.filter(
            connection__merchant_id=meter.merchant_id, meter_id=meter.pk
        ).exists()
        or GatewayCall.objects.filter(
            status=GatewayCall.Status.PENDING, meter_id=meter.pk, hold_id__isnull=False
        ).exists()
    )


def _publish(meter: Meter, terms: Terms, *, version: int, actor: str, now: datetime) -> MeterPrice:
    later = terms.tiers[len(terms.price.live.tiers) :]
    price = MeterPrice(
        merchant=meter.merchant,
        meter=meter,
        version=version,
        rate_type=terms.rate_type,
        unit=terms.unit,
        token_basis=terms.token_basis,
        tier_window=terms.tier_window,
        base_cost_payer=terms.base_cost_payer,
        tier_starts=[tier.start for tier in terms.price.live.tiers],
        tier_rates=[tier.rate for tier in terms.price.live.tiers],
        volume_starts=[tier.start for tier in later],
        volume_rates=[tier.rate for tier in later],
        tier_flats=[tier.flat for tier in terms.tiers] if any(t.flat for t in terms.tiers) else [],
        tier_kinds=[tier.kind for tier in terms.tiers] if terms.tiers[0].kind else [],
        free_allowance=terms.free_allowance,
        package_size=terms.package_size,
        package_rounding=terms.package_rounding,
        created_by=actor,
        created_at=now,
    )
    price.save()
    meter.price = price
    meter.save(update_fields=["price"])
    return price


def _same(one: Terms, other: Terms) -> bool:
    return (
        one.price == other.price
        and one.tier_window == other.tier_window
        and one.base_cost_payer == other.base_cost_payer
    )


def _name(text: str) -> str:
    text = text.strip()
    if not text:
        raise errors.Invalid("Write a name.", param="name")
    if len(text) > LONGEST_NAME:
        raise errors.Invalid(f"Use at most {LONGEST_NAME} characters.", param="name")
    return text
