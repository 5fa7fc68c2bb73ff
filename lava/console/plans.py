"""The plan builder: the list of plans, one plan's form, and the live preview beside it.

Parses what was typed, calls the verbs of `billing.plans` and `meters.prices`, and shows the offer
with the very words of the checkout (`checkout.summary`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import ROUND_FLOOR, Decimal
from typing import Any

import segno
from django.conf import settings
from django.contrib import messages
from django.db import transaction
from django.db.models import Count, Prefetch, Q
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.urls import URLPattern, path
from django.utils.safestring import SafeString, mark_safe
from django.views.decorators.http import require_GET, require_POST
from moneyed import Money

from billing import errors, money, plans
from billing.models import CreditBundle, Plan, Subscription
from checkout import offers, summary
from lava.console import access, trail, typed
from meters import prices
from meters.models import Meter

ZERO = Decimal(0)
PER = {"day": "a day", "week": "a week", "month": "a month", "year": "a year"}
# Charges in the worked example: some whole ones and a rest.
_EXAMPLE = Decimal("3.6")
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_CHOICES = ("billing_interval", "rollover_type", "bundle_rollover_type", "when_depleted")


@dataclass(slots=True)
class BundleRow:
    """One row of bundles as it stands in the form; `key` is empty for a new one."""

    number: int
    key: str = ""
    name: str = ""
    cost: str = ""
    credit: str = ""
    removed: bool = False
    problems: dict[str, str] = field(default_factory=dict)
    amounts: tuple[Decimal, Decimal] | None = None

    @property
    def is_blank(self) -> bool:
        return not (self.key or self.name or self.cost or self.credit)

    @property
    def saving(self) -> str:
        """What a buyer saves against paying for the credit, in percent; `none` for nothing."""
        if self.amounts is None or self.amounts[1] <= self.amounts[0]:
            return "none"
        cost, credit = self.amounts
        return f"{(credit - cost) * 100 / credit:.1f} %"


@dataclass(slots=True)
class Builder:
    """The whole form: texts, problems, bundle rows, chosen meters."""

    form: typed.Form
    bundles: list[BundleRow]
    meters: set[str]

    @property
    def is_sound(self) -> bool:
        return not self.form.problems and not any(
            row.problems for row in self.bundles if not row.removed
        )

    def terms(self, currency: str) -> plans.Terms:
        """The terms as typed; what cannot be read is a problem and counts as 0."""
        form = self.form
        choices = {name: form.text(name) for name in _CHOICES}
        terms = plans.Terms(
            name=form.text("name"),
            price=form.amount("price"),
            included_credit=form.amount("included_credit", blank=ZERO),
            rollover_cap=form.optional("rollover_cap"),
            overage_threshold=form.amount("overage_threshold", blank=Decimal(10)),
            overage_cap=form.optional("overage_cap"),
            **choices,
        )
        try:
            plans.validate(terms, currency=currency)
        except errors.Invalid as error:
            form.refuse(error)
        return terms

    def check_bundles(self, currency: str) -> None:
        """Read the amounts of each row that stays; what is wrong is said in its row."""
        for row in self.bundles:
            if row.removed or row.is_blank:
                continue
            cells = typed.Form({"cost": row.cost, "credit": row.credit})
            cost, credit = cells.amount("cost"), cells.amount("credit")
            row.problems |= cells.problems
            row.amounts = (cost, credit)
            if not row.problems:
                try:
                    plans.validate_bundle(
                        name=row.name, cost=cost, credit=credit, currency=currency
                    )
                except errors.Invalid as error:
                    row.problems[error.param or "name"] = error.message


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
@require_GET
def listing(request: access.ConsoleRequest) -> HttpResponse:
    """Every plan with how many customers are on it."""
    merchant = request.merchant
    rows = (
        Plan.objects.of(merchant)
        .annotate(
            customers=Count(
                "subscriptions", filter=Q(subscriptions__status__in=Subscription.CURRENT)
            )
        )
        .prefetch_related(
            Prefetch("meters", Meter.objects.filter(archived_at=None).order_by("name"))
        )
        .order_by("archived_at", "price", "id")
    )
    found = list(rows)
    return render(
        request,
        "console/plans/list.html",
        {
            "plans": [row for row in found if row.archived_at is None],
            "archived": [row for row in found if row.archived_at is not None],
            "total": sum(row.customers for row in found if row.archived_at is None),
            "per": PER,
        },
    )


@access.requires("billing.change_plan")
def new(request: access.ConsoleRequest) -> HttpResponse:
    """Make a plan."""
    merchant = request.merchant
    meters = meters_of(merchant)
    if request.method == "POST":
        builder = read(request)
        terms = builder.terms(merchant.currency)
        builder.check_bundles(merchant.currency)
        if builder.is_sound:
            with transaction.atomic():
                plan = plans.create(merchant, terms=terms, now=merchant.now())
                _save_parts(plan, builder, meters)
                trail.record(request, "plan.made", plan, after=facts(plan))
            messages.success(request, f"{plan.name} is ready to sell.")
            return redirect(f"/console/plans/{plan.public_id}")
    else:
        builder = _empty(merchant.currency, meters)
        builder.check_bundles(merchant.currency)
    return page(request, builder, plan=None, meters=meters)


@access.requires("billing.view_plan")
def one(request: access.ConsoleRequest, key: str) -> HttpResponse:
    """A plan's form; posting saves it, or archives it."""
    merchant = request.merchant
    plan = find(merchant, key)
    meters = meters_of(merchant)
    if request.method == "POST":
        return _save(request, plan, meters)
    builder = filled(plan)
    builder.check_bundles(plan.currency)
    return page(request, builder, plan=plan, meters=meters)


@access.requires("billing.change_plan")
def _save(request: access.ConsoleRequest, plan: Plan, meters: list[Meter]) -> HttpResponse:
    builder = read(request)
    if plans.was_sold(plan):
        # Locked fields are not sent; what a customer agreed to stays.
        builder.form.values.setdefault("price", typed.plain(plan.price.amount))
        builder.form.values.setdefault("billing_interval", plan.billing_interval)
    terms = builder.terms(plan.currency)
    builder.check_bundles(plan.currency)
    if builder.is_sound:
        try:
            with transaction.atomic():
                before = facts(plan)
                plan = plans.update(plan, terms=terms)
                _save_parts(plan, builder, meters)
                trail.record(request, "plan.changed", plan, before=before, after=facts(plan))
        except errors.LavaError as error:
            builder.form.refuse(error)
        else:
            messages.success(request, "Saved.")
            return redirect(f"/console/plans/{plan.public_id}")
    return page(request, builder, plan=plan, meters=meters)


@access.requires("billing.change_plan")
def archive(request: access.ConsoleRequest, key: str) -> HttpResponse:
    """Say who keeps the plan and who can no longer buy it; then archive it."""
    merchant = request.merchant
    plan = find(merchant, key)
    if request.method == "POST":
        with transaction.atomic():
            before = {"archived": plan.archived_at is not None}
            plan = plans.archive(plan, now=merchant.now())
            trail.record(request, "plan.archived", plan, before=before, after={"archived": True})
        messages.success(request, f"{plan.name} is archived.")
        return redirect("/console/plans/")
    customers = Subscription.objects.of(merchant).current().filter(plan=plan).count()
    return render(request, "console/plans/archive.html", {"plan": plan, "customers": customers})


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
        _preview(merchant, builder, meters_of(merchant)),
    )


def page(
    request: access.ConsoleRequest,
    builder: Builder,
    *,
    plan: Plan | None,
    meters: list[Meter],
    version_of: Plan | None = None,
) -> HttpResponse:
    """The builder's page: for a new plan, for one that is, or for the next version of one."""
    merchant = request.merchant
    counts = {"now": 0, "ever": 0}
    if plan is not None:
        counts = Subscription.objects.filter(plan=plan).aggregate(
            now=Count("id", filter=Q(status__in=Subscription.CURRENT)), ever=Count("id")
        )
    context = _preview(merchant, builder, meters) | {
        "plan": plan,
        "builder": builder,
        "form": builder.form,
        "meters": [(meter, meter.public_id in builder.meters) for meter in meters],
        "version_of": version_of,
        "customers": counts["now"],
        "locked": counts["ever"] > 0,
        "versions": plans.versions(plan) if plan is not None else [],
        "per": PER,
        "symbol": symbol(merchant.currency),
        "intervals": Plan.Interval.choices,
        "blank": BundleRow(number=len(builder.bundles)),
        "template_row": BundleRow(number=-1),
        "base_url": settings.LAVA_BASE_URL,
        "offer_url": offers.address(plan) if plan is not None else "",
        "offer_code": _qr_code(offers.address(plan)) if plan is not None else "",
        "sandbox": merchant.is_sandbox,
    }
    status = 200 if builder.is_sound or request.method == "GET" else 422
    return render(request, "console/plans/form.html", context, status=status)


def _qr_code(url: str) -> SafeString:
    """An address to scan, dark on light in every theme; scanners want it so."""
    drawn = segno.make(url, error="m", micro=False).svg_inline(
        scale=3, border=4, dark="#15191e", light="#ffffff", omitsize=True, title="QR code"
    )
    # segno writes shapes alone, and the address is ours.
    return mark_safe(drawn)  # noqa: S308


def _preview(merchant: Any, builder: Builder, meters: list[Meter]) -> dict[str, Any]:
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


def facts(plan: Plan) -> dict[str, Any]:
    """What a plan says, as the audit trail keeps it."""
    found: dict[str, Any] = {name: getattr(plan, name) for name in ("name", *_CHOICES)}
    found["price"] = typed.plain(plan.price.amount)
    for name in ("included_credit", "rollover_cap", "overage_threshold", "overage_cap"):
        found[name] = typed.plain(getattr(plan, name))
    found["bundles"] = [
        f"{row.name}: {typed.plain(row.cost.amount)} for {typed.plain(row.credit_amount)}"
        for row in plan.live_bundles
    ]
    found["meters"] = sorted(plan.meters.values_list("slug", flat=True))
    return found


def symbol(currency: str) -> str:
    """What stands before an amount of a currency, e.g. $."""
    return money.display(ZERO, currency).rstrip("0.,")


def find(merchant: Any, key: str) -> Plan:
    """A plan of the open books by its public id; another's is not found."""
    try:
        found: Plan = Plan.objects.of(merchant).select_related("merchant").by_public_id(key)
    except errors.NotFound as error:
        raise Http404 from error
    return found


def meters_of(merchant: Any) -> list[Meter]:
    """The meters that a plan can have."""
    rows = Meter.objects.of(merchant).filter(archived_at=None).select_related("price")
    return list(rows.order_by("name", "id"))


def _empty(currency: str, meters: list[Meter]) -> Builder:
    """A new plan: the choices most merchants make, every meter on."""
    places = money.minor_units(currency)
    values = {
        "billing_interval": Plan.Interval.MONTH,
        "rollover_type": Plan.Rollover.FULL,
        "bundle_rollover_type": Plan.Rollover.FULL,
        "when_depleted": Plan.WhenDepleted.OVERAGE,
        "overage_threshold": typed.plain(Decimal(10), places=places),
    }
    return Builder(typed.Form(dict(values)), [], {meter.public_id for meter in meters})


def filled(plan: Plan) -> Builder:
    """The form of a plan as it stands."""
    places = money.minor_units(plan.currency)
    values = {name: str(getattr(plan, name)) for name in ("name", *_CHOICES)}
    for name in ("included_credit", "rollover_cap", "overage_threshold", "overage_cap"):
        values[name] = typed.plain(getattr(plan, name), places=places)
    values["price"] = typed.plain(plan.price.amount, places=places)
    rows = [
        BundleRow(
            number=number,
            key=bundle.public_id,
            name=bundle.name,
            cost=typed.plain(bundle.cost.amount, places=places),
            credit=typed.plain(bundle.credit_amount, places=places),
        )
        for number, bundle in enumerate(plan.live_bundles)
    ]
    chosen = {meter.public_id for meter in plan.meters.all()}
    return Builder(typed.Form(values), rows, chosen)


def read(request: access.ConsoleRequest) -> Builder:
    """The form as it was posted; rows are numbered as they came, empty ones left out."""
    form = typed.Form.read(request.POST.dict())
    form.values.pop("csrfmiddlewaretoken", None)
    numbers = sorted(
        {
            int(middle)
            for name in form.values
            if name.startswith("bundle-") and (middle := name.split("-")[1]).isdecimal()
        }
    )[: plans.MOST_BUNDLES * 2]
    rows: list[BundleRow] = []
    for number in numbers:
        row = BundleRow(
            number=len(rows),
            key=form.text(f"bundle-{number}-id"),
            name=form.text(f"bundle-{number}-name"),
            cost=form.text(f"bundle-{number}-cost"),
            credit=form.text(f"bundle-{number}-credit"),
            removed=bool(form.text(f"bundle-{number}-remove")),
        )
        if not row.is_blank and not (row.removed and not row.key):
            rows.append(row)
    return Builder(form, rows, set(request.POST.getlist("meters")))


def _save_parts(plan: Plan, builder: Builder, meters: list[Meter]) -> None:
    """Write the bundles and the meters of a plan, in the transaction that saved it."""
    now = plan.merchant.now()
    for position, row in enumerate(builder.bundles):
        key = plan.live_bundles.by_public_id(row.key).pk if row.key else None
        if row.removed:
            plans.remove_bundle(plan.live_bundles.get(pk=key), now=now)
        elif row.amounts is not None:
            plans.put_bundle(
                plan,
                bundle_id=key,
                name=row.name,
                cost=row.amounts[0],
                credit=row.amounts[1],
                position=position,
                now=now,
            )
    attached = set(plan.meters.values_list("pk", flat=True))
    for meter in meters:
        wanted = meter.public_id in builder.meters
        if wanted and meter.pk not in attached:
            prices.attach(meter, plan)
        elif not wanted and meter.pk in attached:
            prices.detach(meter, plan)


urls: list[URLPattern] = [
    path("plans/", listing, name="plans"),
    path("plans/new", new, name="plan-new"),
    path("plans/preview", preview, name="plan-preview"),
    path("plans/<str:key>", one, name="plan"),
    path("plans/<str:key>/archive", archive, name="plan-archive"),
]
