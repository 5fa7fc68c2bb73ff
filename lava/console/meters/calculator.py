"""The calculator beside the builder: what a month costs, by the product's own pricing code."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from django.http import JsonResponse
from django.template.loader import render_to_string
from django.utils.text import capfirst
from django.views.decorators.http import require_POST

from billing import errors, money
from checkout import prices
from lava.console import access, charts, rates, typed
from lava.console.meters.builder import Builder, Row, read
from meters import pricing

ZERO = Decimal(0)
_MILLION = Decimal(1_000_000)
_MONTH = {"tokens_1m": 12_000_000, "characters_1m": 12_000_000, "minutes": 12_000, "requests": 5000}


@access.requires("meters.view_meter")
@require_POST
def calculate(request: access.ConsoleRequest) -> JsonResponse:
    """What a quantity costs at the terms as typed. JSON: the figures, and the page's fragment."""
    merchant = request.merchant
    builder = read(request)
    found = calculation(builder, currency=merchant.currency)
    html = render_to_string("console/meters/_calculator.html", found, request=request)
    fee: pricing.Fee | None = found["fee"]
    return JsonResponse(
        {
            "fee": None if fee is None else money.wire(fee.amount),
            "slices": []
            if fee is None
            else [
                {
                    "tier": part.tier,
                    "quantity": str(part.quantity),
                    "amount": money.wire(part.amount),
                }
                for part in fee.slices
            ],
            "problem": found["problem"],
            "html": html,
        }
    )


def calculation(builder: Builder, *, currency: str) -> dict[str, Any]:
    """The calculator's figures for a builder: fee, slices, margin, the chart of the next unit."""
    form = typed.Form(dict(builder.form.values))
    unit = builder.unit
    word = rates.WORDS[unit]
    month = _month(form, unit)
    cost = form.optional("calculator_cost")
    unread = bool(form.problems)
    trial = Builder(form, [Row(row.number, row.start, row.rate, row.flat) for row in builder.rows])
    terms = trial.terms()
    context: dict[str, Any] = {
        "word": word,
        "unit": unit,
        "currency": currency,
        "quantity": month.quantity,
        "output": month.output,
        "by_kind": builder.by_kind,
        "by_volume": builder.by_volume,
        "fee": None,
        "problem": "",
        "rows": [],
        "chart": None,
        "is_percentage": builder.rate_type == "percentage",
    }
    if unread:
        context["problem"] = "Write the month\u2019s figures as numbers, such as 12,000."
        return context
    if not trial.is_sound:
        context["problem"] = _missing(trial)
        return context
    price = terms.price
    context["spelled"] = prices.tell(terms, currency)
    if price.rate_type == "percentage" and cost is None:
        context["problem"] = "Write what the provider charges you for it."
    else:
        try:
            fee = fee_of(price, month, cost)
        except errors.Invalid:
            context["problem"] = (
                "Output and cached input are part of the month\u2019s tokens. Write less of them, "
                "or a larger month."
            )
            return context
        first = fee_of(price.live, month, cost).amount
        paid = fee.amount
        if terms.base_cost_payer == "wallet" and cost is not None:
            paid += cost
        context |= {
            "fee": fee,
            "paid": paid,
            "rows": _slices(price, fee, month.quantity, currency),
            # Charged while the month runs, where less is due in the end.
            "charged": first if first != fee.amount else None,
            "comes_back": first - fee.amount,
            "packages": packages(price, month.quantity),
            "package_size": price.package_size,
            "cost": cost,
            "wallet": terms.base_cost_payer == "wallet",
        }
        if cost is not None:
            margin = paid - cost
            context["margin"] = margin
            context["margin_share"] = f"{margin * 100 / paid:.1f} %" if paid else ""
    if not builder.by_kind:
        drawn = _drawn(price)
        context["chart"] = charts.steps(drawn, at=month.quantity, word=word, currency=currency)
    return context


@dataclass(frozen=True, slots=True)
class Month:
    """What the calculator is asked about: a quantity in the unit counted, and of its tokens how
    many are output and cached input."""

    quantity: Decimal
    output: Decimal = ZERO
    cache_read: Decimal = ZERO
    cache_write: Decimal = ZERO


def _month(form: typed.Form, unit: str) -> Month:
    quantity = form.amount("calculator_quantity", blank=Decimal(_MONTH[unit]))
    return Month(
        quantity,
        output=form.amount("calculator_output", blank=Decimal(int(quantity / 4))),
        cache_read=form.amount("calculator_cache_read", blank=ZERO),
        cache_write=form.amount("calculator_cache_write", blank=ZERO),
    )


def _missing(trial: Builder) -> str:
    if trial.by_kind:
        return "Give input and output a rate to see what a month costs."
    if trial.form.text("kind") == "tiers":
        return "Give each tier a start and a price to see what a month costs."
    return "Write the price, and what goes with it, to see what a month costs."


def fee_of(price: pricing.Price, month: Month, cost: Decimal | None) -> pricing.Fee:
    """The fee of a whole month as one request from 0.

    A meter of requests counts 1 a request; so many of them are priced as characters at a million
    times the rate, which is the same sum in the same code.

    Raises:
        billing.errors.Invalid: more output or cached input than there are tokens.
    """
    quantity = month.quantity
    if price.tiers[0].kind:
        if month.output > quantity:
            raise errors.Invalid("More output than tokens.", param="calculator_output")
        spent = pricing.Usage(
            input_tokens=int(quantity) - int(month.output),
            output_tokens=int(month.output),
            cache_read_tokens=int(month.cache_read),
            cache_write_tokens=int(month.cache_write),
        )
        return pricing.price(price, spent, before=ZERO)
    if price.tier_mode == "volume":
        return _settled(price, month)
    if price.unit == "minutes":
        spent = pricing.Usage(input_seconds=quantity * 60, provider_cost=cost)
        found = pricing.price(price, spent, before=ZERO)
        return pricing.Fee(
            amount=found.amount,
            quantity=quantity,
            slices=tuple(
                pricing.Slice(tier=part.tier, quantity=part.quantity / 60, amount=part.amount)
                for part in found.slices
            ),
        )
    scale = _MILLION if price.unit == "requests" and price.rate_type == "fixed" else Decimal(1)
    many = replace(
        price,
        unit="characters_1m",
        tiers=tuple(replace(tier, rate=tier.rate * scale) for tier in price.tiers),
    )
    spent = pricing.Usage(input_characters=int(quantity), provider_cost=cost)
    return pricing.price(many, spent, before=ZERO)


def _settled(price: pricing.Price, month: Month) -> pricing.Fee:
    """What a month costs by its volume: one rate for all of it."""
    place = pricing.volume_tier(price, month.quantity * pricing.scale(price))
    reached = replace(
        price, tiers=(replace(price.tiers[place], start=ZERO),), tier_mode="graduated"
    )
    found = fee_of(reached, month, None)
    return replace(found, slices=tuple(replace(part, tier=place) for part in found.slices))


def packages(price: pricing.Price, quantity: Decimal) -> int | None:
    """How many packages of a quantity are paid; None where nothing is sold in packages."""
    if not price.package_size:
        return None
    scale = pricing.scale(price)
    return int(pricing.billable(price, quantity * scale) / (price.package_size * scale))


def _slices(
    price: pricing.Price, fee: pricing.Fee, quantity: Decimal, currency: str
) -> list[dict[str, Any]]:
    """The rows of the calculator's table: what is free, then each slice of the fee."""
    rows: list[dict[str, Any]] = []
    free = min(price.free_allowance, quantity)
    if free:
        rows.append(
            {
                "name": "Free",
                "quantity": rates.plain_count(free),
                "rate": "",
                "amount": ZERO,
            }
        )
    for part in fee.slices:
        tier = price.tiers[part.tier]
        is_flat = bool(tier.flat) and not part.quantity and bool(fee.quantity)
        shown = rates.rate(tier.rate, currency) if price.rate_type == "fixed" else None
        name = capfirst(prices.kind(tier.kind)) if tier.kind else str(part.tier + 1)
        rows.append(
            {
                "name": f"{name}, flat" if is_flat else name,
                "quantity": "" if is_flat else rates.plain_count(part.quantity),
                "rate": "once" if is_flat else shown or f"{typed.plain(tier.rate)} %",
                "amount": part.amount,
            }
        )
    return rows


def _drawn(price: pricing.Price) -> pricing.Price:
    """The price as its chart draws it: an allowance is a first step at 0, and shifts the others."""
    free = price.free_allowance
    if not free:
        return price
    moved = (replace(tier, start=tier.start + free) for tier in price.tiers)
    return replace(price, tiers=(pricing.Tier(ZERO, ZERO), *moved))
