"""The meter builder's form: what was typed, what is wrong with it, the terms it makes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from billing import errors, money
from lava.console import access, rates, typed
from meters import prices, pricing
from meters.models import Meter, MeterPrice

ZERO = Decimal(0)
CHOICES = ("unit", "token_basis", "tier_window", "base_cost_payer")
_FIELDS = ("name", "slug", "kind", "tier_rate_type", *CHOICES)


@dataclass(slots=True)
class Row:
    """A tier as it stands in the form."""

    number: int
    start: str
    rate: str
    start_problem: str = ""
    rate_problem: str = ""


@dataclass(slots=True)
class Builder:
    """The whole form: texts, problems, tier rows."""

    form: typed.Form
    rows: list[Row]

    @property
    def is_sound(self) -> bool:
        return not self.form.problems and not any(
            row.start_problem or row.rate_problem for row in self.rows
        )

    @property
    def unit(self) -> str:
        unit = self.form.text("unit")
        return unit if unit in rates.WORDS else "tokens_1m"

    @property
    def rate_type(self) -> str:
        kind = self.form.text("kind")
        if kind == "tiers":
            return "percentage" if self.form.text("tier_rate_type") == "percentage" else "fixed"
        return "percentage" if kind == "percent" else "fixed"

    def terms(self, base: prices.Terms | None = None) -> prices.Terms:
        """The terms as typed; what is wrong becomes a problem at its field.

        What this form has no field for (an allowance, packages, flat amounts) stays as in `base`.
        """
        form = self.form
        flats = {tier.start: tier.flat for tier in base.tiers} if base is not None else {}
        rows = self.rows if form.text("kind") == "tiers" else self.rows[:1]
        tiers = []
        for row in rows:
            cells = typed.Form({"start": row.start or "0", "rate": row.rate})
            start = cells.amount("start")
            flat = flats.get(start, ZERO)
            tiers.append(pricing.Tier(start=start, rate=cells.amount("rate"), flat=flat))
            row.start_problem = cells.problems.get("start", "")
            row.rate_problem = cells.problems.get("rate", "")
        terms = prices.Terms(
            tiers=tiers,
            rate_type=self.rate_type,
            **{name: form.text(name) for name in CHOICES},  # type: ignore[arg-type]
        )
        if base is not None:
            terms = replace(
                terms,
                free_allowance=base.free_allowance,
                package_size=base.package_size,
                package_rounding=base.package_rounding,
            )
        if self.is_sound:
            try:
                prices.validate(terms)
            except errors.Invalid as error:
                self.refuse(error)
        return terms

    def refuse(self, error: errors.LavaError) -> None:
        """Show a refusal at its field: `tiers[2].rate` is the rate of the third row."""
        param = error.param or ""
        for row in self.rows:
            if param == f"tiers[{row.number}].start":
                row.start_problem = error.message
                return
            if param == f"tiers[{row.number}].rate":
                row.rate_problem = error.message
                return
        self.form.refuse(error)


def facts(meter: Meter, price: MeterPrice | None) -> dict[str, Any]:
    """What a meter says, as the audit trail keeps it."""
    found: dict[str, Any] = {"name": meter.name, "slug": meter.slug}
    if price is not None:
        found |= {name: getattr(price, name) for name in ("rate_type", *CHOICES)}
        found["version"] = price.version
        found["tiers"] = [
            f"from {typed.plain(tier.start)}: {typed.plain(tier.rate)}" for tier in price.tiers
        ]
    return found


def filled(meter: Meter, currency: str) -> Builder:
    """The form of a meter as it stands."""
    price = meter.price
    assert price is not None
    kind = "tiers" if len(price.tiers) > 1 else "rate"
    if kind == "rate" and price.rate_type == "percentage":
        kind = "percent"
    values = {"name": meter.name, "slug": meter.slug, "kind": kind}
    values |= {name: getattr(price, name) for name in CHOICES}
    values["tier_rate_type"] = price.rate_type
    fewest = 0 if price.rate_type == "percentage" else money.minor_units(currency)
    rows = []
    for number, tier in enumerate(price.tiers):
        places = 4 if fewest == 2 and tier.rate < 1 else fewest
        rows.append(Row(number, f"{int(tier.start):,}", typed.plain(tier.rate, places=places)))
    return Builder(typed.Form(values), rows)


def read(request: access.ConsoleRequest) -> Builder:
    """The form as it was posted: tiers in their order, empty ones left out."""
    form = typed.Form.read(request.POST.dict())
    numbers = sorted(
        {
            int(middle)
            for name in form.values
            if name.startswith("tier-") and (middle := name.split("-")[1]).isdecimal()
        }
    )[: pricing.MOST_TIERS + 1]
    rows: list[Row] = []
    for number in numbers:
        start, given = form.text(f"tier-{number}-start"), form.text(f"tier-{number}-rate")
        if not rows or start or given:
            rows.append(Row(len(rows), start or ("0" if not rows else ""), given))
    rest = ("calculator_quantity", "calculator_cost")
    kept = {name: form.text(name) for name in (*_FIELDS, *rest)}
    return Builder(typed.Form(kept), rows or [Row(0, "0", "")])
