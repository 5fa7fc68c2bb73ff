"""The meter builder's form: what was typed, what is wrong with it, the terms it makes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from django.utils.text import capfirst

from billing import errors, money
from checkout import prices as words
from lava.console import access, rates, typed
from meters import prices, pricing
from meters.models import Meter, MeterPrice

ZERO = Decimal(0)
CHOICES = ("unit", "token_basis", "tier_mode", "tier_window", "base_cost_payer")
# What a price may have beside its rate, each behind a box of its own.
OPTIONS = ("with_allowance", "with_packages", "with_flats")
# What stands below the rate of each kind of tokens.
KINDS = {
    "input": "What you send to the model and it had not cached.",
    "output": "What the model writes.",
    "cache_read": "Left empty, it pays the rate of input.",
    "cache_write": "Left empty, it pays the rate of input.",
}
# The calculator's own fields, kept when the page comes back.
ASKED = ("quantity", "output", "cache_read", "cache_write", "cost")
_FIELDS = (
    *("name", "slug", "kind", "tier_rate_type"),
    *("free_allowance", "package_size", "package_rounding"),
    *CHOICES,
    *OPTIONS,
    *(f"rate_{kind}" for kind in KINDS),
    *(f"calculator_{name}" for name in ASKED),
)
_OF_A_TIER = re.compile(r"tiers\[(\d+)\]\.(start|rate|flat)")


@dataclass(slots=True)
class Row:
    """A tier as it stands in the form."""

    number: int
    start: str
    rate: str
    flat: str = ""
    start_problem: str = ""
    rate_problem: str = ""
    flat_problem: str = ""


@dataclass(slots=True)
class Builder:
    """The whole form: texts, problems, tier rows."""

    form: typed.Form
    rows: list[Row]
    # The kinds of tokens in the order their rates were given, to show a refusal at its field.
    kinds: list[str] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        return not self.form.problems and not any(
            row.start_problem or row.rate_problem or row.flat_problem for row in self.rows
        )

    @property
    def unit(self) -> str:
        unit = self.form.text("unit")
        return unit if unit in rates.WORDS else "tokens_1m"

    @property
    def by_kind(self) -> bool:
        return self.form.text("kind") == "kinds"

    @property
    def rate_type(self) -> str:
        kind = self.form.text("kind")
        if kind == "tiers":
            return "percentage" if self.form.text("tier_rate_type") == "percentage" else "fixed"
        return "percentage" if kind == "percent" else "fixed"

    @property
    def kind_fields(self) -> list[dict[str, str]]:
        """The fields of the rates by kind of token, for the template."""
        return [
            {
                "name": f"rate_{kind}",
                "label": capfirst(words.kind(kind)),
                "help": help_text,
                "value": self.form.text(f"rate_{kind}"),
                "problem": self.form.problems.get(f"rate_{kind}", ""),
            }
            for kind, help_text in KINDS.items()
        ]

    @property
    def by_volume(self) -> bool:
        form = self.form
        fixed = form.text("kind") == "tiers" and self.rate_type == "fixed"
        return fixed and form.text("tier_mode") == "volume"

    def terms(self, base: prices.Terms | None = None) -> prices.Terms:
        """The terms as typed; what is wrong becomes a problem at its field.

        What the form says nothing of (the order of kinds, the rounding of packages that are none)
        is as in `base`, so that saving a price as it stands is no new version.
        """
        form = self.form
        rounding = form.text("package_rounding") or (base.package_rounding if base else "up")
        terms = prices.Terms(
            tiers=self._rates_by_kind(base) if self.by_kind else self._tiers(),
            rate_type=self.rate_type,
            unit=form.text("unit"),
            # Rates by kind of token count them all.
            token_basis="input+output" if self.by_kind else form.text("token_basis"),
            tier_mode="volume" if self.by_volume else "graduated",
            # Tiers by volume are settled with each cycle.
            tier_window="cycle" if self.by_volume else form.text("tier_window"),
            base_cost_payer=form.text("base_cost_payer"),
            free_allowance=self._count("with_allowance", "free_allowance", "Free allowance"),
            package_size=self._count("with_packages", "package_size", "Packages"),
            package_rounding=rounding,
        )
        self._agree()
        if self.is_sound:
            try:
                prices.validate(terms)
            except errors.Invalid as error:
                self.refuse(error)
        return terms

    def _tiers(self) -> list[pricing.Tier]:
        rows = self.rows if self.form.text("kind") == "tiers" else self.rows[:1]
        with_flats = bool(self.form.text("with_flats"))
        tiers = []
        for row in rows:
            cells = typed.Form({"start": row.start or "0", "rate": row.rate, "flat": row.flat})
            start, rate = cells.amount("start"), cells.amount("rate")
            flat = cells.amount("flat", blank=ZERO) if with_flats else ZERO
            tiers.append(pricing.Tier(start=start, rate=rate, flat=flat))
            row.start_problem = cells.problems.get("start", "")
            row.rate_problem = cells.problems.get("rate", "")
            row.flat_problem = cells.problems.get("flat", "")
        if with_flats and not any(tier.flat for tier in tiers) and self.is_sound:
            rows[0].flat_problem = "Write the amount, such as 5.00, or untick Flat amounts."
        return tiers

    def _rates_by_kind(self, base: prices.Terms | None) -> list[pricing.Tier]:
        """A rate for each kind that has one; input and output must."""
        form = self.form
        told = [tier.kind for tier in base.tiers if tier.kind] if base is not None else []
        tiers = []
        for kind in dict.fromkeys([*told, *KINDS]):
            name = f"rate_{kind}"
            if form.text(name):
                tiers.append(pricing.Tier(start=ZERO, rate=form.amount(name), kind=kind))
            elif kind in ("input", "output"):
                form.problems[name] = "Write what a million costs, such as 3.00. 0 is free."
                tiers.append(pricing.Tier(start=ZERO, rate=ZERO, kind=kind))
        self.kinds = [tier.kind for tier in tiers]
        return tiers

    def _count(self, box: str, name: str, title: str) -> Decimal:
        """A whole number of units behind a ticked box; 0 where it is not ticked."""
        form = self.form
        if not form.text(box):
            return ZERO
        found = form.optional(name)
        if not found or found != found.to_integral_value():
            many = rates.WORDS[self.unit].many
            form.problems[name] = (
                f"Write a whole number of {many} from 1 up, such as 1,000, or untick {title}."
            )
            return ZERO
        return found

    def _agree(self) -> None:
        """What cannot stand together, said at the field with the way out."""
        form = self.form
        if self.by_kind:
            if form.text("unit") != "tokens_1m":
                form.problems["kind"] = "Only tokens have kinds. Choose Tokens, or another price."
            for box, many in zip(OPTIONS, ("allowance", "packages", "flat amounts"), strict=True):
                if form.text(box):
                    form.problems[box] = (
                        f"Rates by kind of token have no {many}. Untick it, or choose another "
                        "price."
                    )
        elif self.by_volume and form.text("with_flats"):
            form.problems["with_flats"] = (
                "Tiers that price all of a cycle have no flat amounts. Untick it, or let a tier "
                "price the units inside it."
            )
        elif self.rate_type == "percentage" and form.text("with_packages"):
            form.problems["with_packages"] = (
                "A share of cost has no packages. Untick it, or choose another price."
            )

    def refuse(self, error: errors.LavaError) -> None:
        """Show a refusal at its field: `tiers[2].rate` is the rate of the third row or kind."""
        named = _OF_A_TIER.fullmatch(error.param or "")
        if named is None:
            self.form.refuse(error)
            return
        place, what = int(named[1]), named[2]
        if self.by_kind and place < len(self.kinds):
            self.form.problems[f"rate_{self.kinds[place]}"] = error.message
        elif not self.by_kind and place < len(self.rows):
            setattr(self.rows[place], f"{what}_problem", error.message)
        else:
            self.form.refuse(error)


def facts(meter: Meter, price: MeterPrice | None) -> dict[str, Any]:
    """What a meter says, as the audit trail keeps it."""
    found: dict[str, Any] = {"name": meter.name, "slug": meter.slug}
    if price is not None:
        found |= {name: getattr(price, name) for name in ("rate_type", *CHOICES)}
        found["version"] = price.version
        found["tiers"] = [_fact(tier) for tier in price.tiers]
        found["free_allowance"] = typed.plain(price.free_allowance)
        found["package_size"] = typed.plain(price.package_size)
        found["package_rounding"] = price.package_rounding
    return found


def _fact(tier: pricing.Tier) -> str:
    if tier.kind:
        return f"{tier.kind}: {typed.plain(tier.rate)}"
    flat = f", {typed.plain(tier.flat)} once" if tier.flat else ""
    return f"from {typed.plain(tier.start)}: {typed.plain(tier.rate)}{flat}"


def filled(meter: Meter, currency: str) -> Builder:
    """The form of a meter as it stands."""
    price = meter.price
    assert price is not None
    percentage = price.rate_type == "percentage"
    fewest = 0 if percentage else money.minor_units(currency)

    def rate(amount: Decimal) -> str:
        return typed.plain(amount, places=4 if fewest == 2 and amount < 1 else fewest)

    kind = "tiers" if len(price.tiers) > 1 else "percent" if percentage else "rate"
    values = {"name": meter.name, "slug": meter.slug, "tier_rate_type": price.rate_type}
    values |= {name: getattr(price, name) for name in CHOICES}
    values["package_rounding"] = price.package_rounding
    if price.free_allowance:
        values |= {"with_allowance": "on", "free_allowance": f"{int(price.free_allowance):,}"}
    if price.package_size:
        values |= {"with_packages": "on", "package_size": f"{int(price.package_size):,}"}
    if price.tier_kinds:
        values["kind"] = "kinds"
        values |= {f"rate_{tier.kind}": rate(tier.rate) for tier in price.tiers}
        return Builder(typed.Form(values), [Row(0, "0", "")])
    values["kind"] = kind
    if price.tier_flats:
        values["with_flats"] = "on"
    rows = [
        Row(
            number,
            f"{int(tier.start):,}",
            rate(tier.rate),
            typed.plain(tier.flat, places=money.minor_units(currency)) if tier.flat else "",
        )
        for number, tier in enumerate(price.tiers)
    ]
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
        start, rate, flat = (
            form.text(f"tier-{number}-{cell}") for cell in ("start", "rate", "flat")
        )
        if not rows or start or rate or flat:
            rows.append(Row(len(rows), start or ("0" if not rows else ""), rate, flat))
    kept = {name: form.text(name) for name in _FIELDS}
    return Builder(typed.Form(kept), rows or [Row(0, "0", "")])
