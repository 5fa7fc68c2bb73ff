"""Plans: make, change and archive what is sold, and the bundles a plan offers.

The only writer of `Plan` and `CreditBundle`; called by the console. What a customer of a plan
agreed to (price and interval) never changes once somebody has subscribed (money.md, Changing
plans); the rest of its terms count from the next cycle or the next purchase on.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Count, Q
from moneyed import Money

from billing import errors, money
from billing.models import CreditBundle, Merchant, Plan, Subscription

# What a card amount's column holds: 14 digits, 3 of them decimals.
LARGEST = Decimal(10) ** 11
LONGEST_NAME = 80
MOST_BUNDLES = 20
LONGEST_GRACE_DAYS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a plan says. Amounts in the merchant's currency, whole minor units; None: no cap."""

    name: str
    price: Decimal
    included_credit: Decimal
    billing_interval: str = Plan.Interval.MONTH
    rollover_type: str = Plan.Rollover.NONE
    bundle_rollover_type: str = Plan.Rollover.FULL
    rollover_cap: Decimal | None = None
    when_depleted: str = Plan.WhenDepleted.OVERAGE
    overage_threshold: Decimal = Decimal(10)
    overage_cap: Decimal | None = None


def of(plan: Plan) -> Terms:
    """The terms a plan has now."""
    return Terms(
        name=plan.name,
        price=plan.price.amount,
        included_credit=plan.included_credit,
        billing_interval=plan.billing_interval,
        rollover_type=plan.rollover_type,
        bundle_rollover_type=plan.bundle_rollover_type,
        rollover_cap=plan.rollover_cap,
        when_depleted=plan.when_depleted,
        overage_threshold=plan.overage_threshold,
        overage_cap=plan.overage_cap,
    )


def as_fields(terms: Terms) -> dict[str, Any]:
    """Terms by their names, for a change of some of them."""
    return asdict(terms)


@transaction.atomic
def create(merchant: Merchant, *, terms: Terms, now: datetime) -> Plan:
    """Make a plan.

    Raises:
        billing.errors.Invalid: a missing name, an amount no card can pay, an unknown choice.
    """
    validate(terms, currency=merchant.currency)
    plan = Plan(merchant=merchant, created_at=now)
    _write(plan, terms, currency=merchant.currency)
    return plan


@transaction.atomic
def update(plan: Plan, *, terms: Terms) -> Plan:
    """Change a plan's terms.

    Raises:
        billing.errors.Invalid: as `create`.
        billing.errors.Conflict: another price or interval, and somebody has subscribed.
    """
    # FOR UPDATE also waits for a subscription that is being opened on the plan right now.
    plan = Plan.objects.select_for_update().get(pk=plan.pk)
    validate(terms, currency=plan.currency)
    for field, same in (
        ("price", terms.price == plan.price.amount),
        ("billing_interval", terms.billing_interval == plan.billing_interval),
    ):
        if not same and was_sold(plan):
            raise errors.Conflict(
                "Customers have subscribed at these terms, so the price and the interval stay. "
                "Make a new version of the plan for another price.",
                code="plan_has_subscribers",
                param=field,
            )
    _write(plan, terms, currency=plan.currency)
    return plan


@transaction.atomic
def new_version(plan: Plan, *, terms: Terms, now: datetime, keep_offering: bool = False) -> Plan:
    """Make the next version of a plan, with its bundles; whoever is subscribed stays on theirs.

    `billing.moves` moves them. The version before is offered no more, unless `keep_offering`.
    Meters attach to plans a floor above: call `meters.prices.new_plan_version`, which brings them.

    Raises:
        billing.errors.Invalid: as `create`.
    """
    plan = Plan.objects.select_for_update().select_related("merchant").get(pk=plan.pk)
    validate(terms, currency=plan.currency)
    # The head's row counts its versions: two at once take turns.
    Plan.objects.select_for_update().get(pk=plan.head_id)
    last = versions(plan)[-1].version
    made = Plan(
        merchant=plan.merchant,
        created_at=now,
        family_id=plan.head_id,
        version=last + 1,
        low_credit_threshold=plan.low_credit_threshold,
        grace_days=plan.grace_days,
    )
    _write(made, terms, currency=plan.currency)
    for bundle in plan.live_bundles:
        CreditBundle(
            merchant=plan.merchant,
            plan=made,
            name=bundle.name,
            cost=bundle.cost,
            credit_amount=bundle.credit_amount,
            position=bundle.position,
            created_at=now,
        ).save()
    if not keep_offering:
        archive(plan, now=now)
    return made


def versions(plan: Plan) -> list[Plan]:
    """All versions of a plan, first to last; `subscribers` of each: how many are on it now."""
    current = Count("subscriptions", filter=Q(subscriptions__status__in=Subscription.CURRENT))
    rows = Plan.objects.filter(Q(pk=plan.head_id) | Q(family_id=plan.head_id))
    return list(rows.annotate(subscribers=current).order_by("version"))


@transaction.atomic
def set_limits(plan: Plan, *, low_credit_threshold: Decimal | None, grace_days: int) -> Plan:
    """Say below which balance customers hear that credits run low (None: never), and how many days
    after a declined renewal the gateway goes on serving.

    The threshold counts from each subscriber's next cycle on, the days at once.

    Raises:
        billing.errors.Invalid: a negative amount, or not 0 to 30 days.
    """
    plan = Plan.objects.select_for_update().get(pk=plan.pk)
    if low_credit_threshold is not None:
        _amount(low_credit_threshold, "low_credit_threshold", plan.currency)
    if not 0 <= grace_days <= LONGEST_GRACE_DAYS:
        raise errors.Invalid(f"Choose 0 to {LONGEST_GRACE_DAYS} days.", param="grace_days")
    plan.low_credit_threshold, plan.grace_days = low_credit_threshold, grace_days
    plan.save(update_fields=["low_credit_threshold", "grace_days"])
    return plan


@transaction.atomic
def archive(plan: Plan, *, now: datetime) -> Plan:
    """Offer a plan no more; who is on it stays and renews. Archived twice, it stays archived."""
    plan = Plan.objects.select_for_update().get(pk=plan.pk)
    if plan.archived_at is None:
        plan.archived_at = now
        plan.save(update_fields=["archived_at"])
    return plan


def was_sold(plan: Plan) -> bool:
    """Whether anybody is or was subscribed to the plan."""
    return bool(Subscription.objects.filter(plan=plan).exists())


@transaction.atomic
def put_bundle(
    plan: Plan,
    *,
    name: str,
    cost: Decimal,
    credit: Decimal,
    now: datetime,
    position: int = 0,
    bundle_id: UUID | None = None,
) -> CreditBundle:
    """Add a bundle to a plan, or change the one with that id.

    A payment keeps the amount and the credit it was made with, so a change counts from the next
    purchase on.

    Raises:
        billing.errors.Invalid: a missing name, or an amount of 0 or that no card can pay.
        billing.errors.NotFound: the plan has no bundle of that id.
        billing.errors.Conflict: the plan has 20 bundles already.
    """
    plan = Plan.objects.select_for_update().select_related("merchant").get(pk=plan.pk)
    validate_bundle(name=name, cost=cost, credit=credit, currency=plan.currency)
    if bundle_id is not None:
        bundle = plan.live_bundles.filter(pk=bundle_id).first()
        if bundle is None:
            raise errors.NotFound("This plan has no such bundle.")
    else:
        if plan.live_bundles.count() >= MOST_BUNDLES:
            raise errors.Conflict(f"A plan has at most {MOST_BUNDLES} bundles.")
        bundle = CreditBundle(merchant=plan.merchant, plan=plan, created_at=now)
    bundle.name = name.strip()
    bundle.cost = Money(cost, plan.currency)
    bundle.credit_amount = credit
    bundle.position = position
    bundle.save()
    return bundle  # type: ignore[no-any-return]


@transaction.atomic
def remove_bundle(bundle: CreditBundle, *, now: datetime) -> None:
    """Offer a bundle no more; what was bought stays. Who topped up with it tops up no more."""
    if bundle.deleted_at is None:
        bundle.deleted_at = now
        bundle.save(update_fields=["deleted_at"])
        Subscription.objects.filter(auto_top_up_bundle=bundle).update(auto_top_up_bundle=None)
        Plan.objects.filter(default_auto_top_up_bundle=bundle).update(
            default_auto_top_up_bundle=None
        )


def set_default_top_up(plan: Plan, bundle: CreditBundle | None) -> None:
    """Have who subscribes from now on top up with a bundle of the plan; None: nobody.

    Raises:
        billing.errors.NotFound: the bundle is another plan's, or removed.
    """
    if bundle is not None and (bundle.plan_id != plan.pk or bundle.deleted_at is not None):
        raise errors.NotFound("This plan has no such bundle.")
    Plan.objects.filter(pk=plan.pk).update(default_auto_top_up_bundle=bundle)


def validate(terms: Terms, *, currency: str) -> None:
    """Check what a plan says, before it is written.

    Raises:
        billing.errors.Invalid: naming the field.
    """
    _name(terms.name, "name")
    _amount(terms.price, "price", currency)
    if 0 < terms.price < money.minimum_charge(currency):
        least = money.display(money.minimum_charge(currency), currency)
        raise errors.Invalid(f"A card pays at least {least}. Write 0 for free.", param="price")
    _amount(terms.included_credit, "included_credit", currency)
    _amount(terms.overage_threshold, "overage_threshold", currency)
    for value, name in (
        (terms.rollover_cap, "rollover_cap"),
        (terms.overage_cap, "overage_cap"),
    ):
        if value is not None:
            _amount(value, name, currency)
    for chosen, options, name in (
        (terms.billing_interval, Plan.Interval.values, "billing_interval"),
        (terms.rollover_type, Plan.Rollover.values, "rollover_type"),
        (terms.bundle_rollover_type, Plan.Rollover.values, "bundle_rollover_type"),
        (terms.when_depleted, Plan.WhenDepleted.values, "when_depleted"),
    ):
        if chosen not in options:
            raise errors.Invalid(f"Choose one of {', '.join(options)}.", param=name)


def validate_bundle(*, name: str, cost: Decimal, credit: Decimal, currency: str) -> None:
    """Check a bundle before it is written.

    Raises:
        billing.errors.Invalid: naming the field: `name`, `cost` or `credit`.
    """
    _name(name, "name")
    _amount(cost, "cost", currency)
    least = money.minimum_charge(currency)
    if cost < least:
        raise errors.Invalid(
            f"A card pays at least {money.display(least, currency)}.", param="cost"
        )
    _amount(credit, "credit", currency)
    if credit == 0:
        raise errors.Invalid("Give an amount above 0.", param="credit")


def _write(plan: Plan, terms: Terms, *, currency: str) -> None:
    plan.name = terms.name.strip()
    plan.price = Money(terms.price, currency)
    plan.included_credit = terms.included_credit
    plan.billing_interval = terms.billing_interval
    plan.rollover_type = terms.rollover_type
    plan.bundle_rollover_type = terms.bundle_rollover_type
    plan.rollover_cap = terms.rollover_cap
    plan.when_depleted = terms.when_depleted
    plan.overage_threshold = terms.overage_threshold
    plan.overage_cap = terms.overage_cap
    plan.save()


def _name(text: str, param: str) -> None:
    if not text.strip():
        raise errors.Invalid("Write a name.", param=param)
    if len(text.strip()) > LONGEST_NAME:
        raise errors.Invalid(f"Use at most {LONGEST_NAME} characters.", param=param)


def _amount(amount: Decimal, param: str, currency: str) -> None:
    if not amount.is_finite() or not 0 <= amount < LARGEST:
        raise errors.Invalid("Write an amount of 0 or more, below 100 billion.", param=param)
    if not money.is_whole_minor(amount, currency):
        decimals = money.minor_units(currency)
        finest = f"at most {decimals} decimals" if decimals else "a whole number"
        raise errors.Invalid(f"Write {finest}: a card pays no finer amount.", param=param)
