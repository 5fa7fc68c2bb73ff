"""The plan builder's form: what was typed, what is wrong with it, the terms it makes."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from billing import errors, money, plans
from billing.models import Plan
from lava.console import access, typed
from meters.models import Meter

ZERO = Decimal(0)
CHOICES = ("billing_interval", "rollover_type", "bundle_rollover_type", "when_depleted")


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
        choices = {name: form.text(name) for name in CHOICES}
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


def facts(plan: Plan) -> dict[str, Any]:
    """What a plan says, as the audit trail keeps it."""
    found: dict[str, Any] = {name: getattr(plan, name) for name in ("name", *CHOICES)}
    found["price"] = typed.plain(plan.price.amount)
    for name in ("included_credit", "rollover_cap", "overage_threshold", "overage_cap"):
        found[name] = typed.plain(getattr(plan, name))
    found["bundles"] = [
        f"{row.name}: {typed.plain(row.cost.amount)} for {typed.plain(row.credit_amount)}"
        for row in plan.live_bundles
    ]
    found["meters"] = sorted(plan.meters.values_list("slug", flat=True))
    return found


def empty(currency: str, meters: list[Meter]) -> Builder:
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
    values = {name: str(getattr(plan, name)) for name in ("name", *CHOICES)}
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
