"""The live preview beside the plan builder: the checkout's own summary of what is typed, and the
worked example in money."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal
from typing import Any

from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_POST
from moneyed import Money

from billing import money
from billing.models import CreditBundle, Plan
from checkout import summary
from lava.console import access, typed
from lava.console.plans.builder import ZERO, Builder, read
from lava.console.plans.finding import find, meters_of
from meters.models import Meter

# Charges in the worked example: some whole ones and a rest.
_EXAMPLE = Decimal("3.6")
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(slots=True)
class _Offered:
    """The bundles of a draft, as the checkout's summary asks for them."""

    rows: list[CreditBundle]

    def order_by(self, *_: str) -> _Offered:
        return _Offered(sorted(self.rows, key=lambda row: row.cost.amount))

    def first(self) -> CreditBundle | None:
        return self.rows[0] if self.rows else None


class _Draft:
    """A plan that is not saved, with meters and bundles beside it, for the checkout's summary."""

    def __init__(self, plan: Plan, meters: Any, live_bundles: _Offered) -> None:
        self._plan, self.meters, self.live_bundles = plan, meters, live_bundles

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plan, name)


@access.requires("billing.view_plan")
@require_POST
def preview(request: access.ConsoleRequest) -> HttpResponse:
    """The preview of what is typed, as a fragment of the page; nothing is saved."""
    merchant = request.merchant
    builder = read(request)
    sold = request.POST.get("plan")
    if sold:
        plan = find(merchant, sold)
        builder.form.values.setdefault("price", typed.plain(plan.price.amount))
        builder.form.values.setdefault("billing_interval", plan.billing_interval)
    builder.check_bundles(merchant.currency)
    return render(
        request,
        "console/plans/_preview.html",
        shown(merchant, builder, meters_of(merchant)),
    )


def shown(merchant: Any, builder: Builder, meters: list[Meter]) -> dict[str, Any]:
    """The checkout's summary of what is typed, and the worked example in money."""
    currency = merchant.currency
    form = typed.Form(dict(builder.form.values))
    pick = {
        name: form.text(name) if form.text(name) in options else options[0]
        for name, options in (
            ("billing_interval", Plan.Interval.values),
            ("rollover_type", Plan.Rollover.values),
            ("bundle_rollover_type", Plan.Rollover.values),
            ("when_depleted", Plan.WhenDepleted.values),
        )
    }
    if not form.text("billing_interval"):
        pick["billing_interval"] = Plan.Interval.MONTH
    plan = Plan(
        merchant=merchant,
        name=form.text("name") or "Your plan",
        price=Money(form.amount("price", blank=ZERO), currency),
        included_credit=form.amount("included_credit", blank=ZERO),
        rollover_cap=form.optional("rollover_cap"),
        overage_threshold=form.amount("overage_threshold", blank=Decimal(10)),
        overage_cap=form.optional("overage_cap"),
        **pick,
    )
    offered = _Offered(
        [
            CreditBundle(name=row.name, cost=Money(row.amounts[0], currency))
            for row in builder.bundles
            if row.amounts is not None and not row.removed
        ]
    )
    chosen = [meter.pk for meter in meters if meter.public_id in builder.meters]
    draft: Any = _Draft(plan, Meter.objects.of(merchant).filter(pk__in=chosen), offered)
    return {
        "summary": summary.of_plan(draft, now=merchant.now(), zone=merchant.time_zone),
        "example": example(plan),
        "merchant_name": merchant.organization.name,
        "brand_color": merchant.organization.brand_color,
        "monogram": merchant.organization.name[:1].upper(),
        "draft": plan,
    }


def example(plan: Plan) -> str:
    """What one customer of a plan pays, in a sentence with real sums."""
    currency, interval = plan.currency, plan.billing_interval

    def show(amount: Decimal) -> str:
        return money.display(amount, currency)

    credit = plan.included_credit
    if plan.when_depleted == Plan.WhenDepleted.BLOCK:
        return (
            f"A customer who has used their {show(credit)} is refused until they buy a bundle, or "
            f"until the next {interval} begins."
        )
    charge = max(plan.overage_threshold, money.minimum_charge(currency))
    past = money.floor_minor(charge * _EXAMPLE, currency)
    capped = plan.overage_cap is not None and plan.overage_cap < past
    if capped:
        assert plan.overage_cap is not None
        past = plan.overage_cap
    count = int((past / charge).to_integral_value(rounding=ROUND_FLOOR))
    rest = past - count * charge
    parts = []
    if count:
        word = _NUMBERS[count] if count < len(_NUMBERS) else str(count)
        parts.append(f"{word} charge{'' if count == 1 else 's'} of {show(charge)}")
    if rest:
        parts.append(f"{show(rest)} when the {interval} ends")
    paid = "nothing" if plan.is_free else show(plan.price.amount)
    text = (
        f"A customer who uses {show(credit + past)} in a {interval} pays {paid} at renewal and "
        f"{show(past)} past the credit"
    )
    text += f": {', and '.join(parts)}." if parts else "."
    return f"{text} Then requests are refused until renewal." if capped else text
