"""The calculator beside the builder: what a month costs, by the product's own pricing code."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django.http import JsonResponse
from django.template.loader import render_to_string
from django.views.decorators.http import require_POST

from billing import money
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
    quantity = form.amount("calculator_quantity", blank=Decimal(_MONTH[unit]))
    cost = form.optional("calculator_cost")
    trial = Builder(form, [Row(row.number, row.start, row.rate) for row in builder.rows])
    terms = trial.terms()
    context: dict[str, Any] = {
        "word": word,
        "unit": unit,
        "currency": currency,
        "quantity": quantity,
        "fee": None,
        "problem": "",
        "rows": [],
        "chart": None,
        "is_percentage": builder.rate_type == "percentage",
    }
    if not trial.is_sound:
        context["problem"] = "Give each tier a start and a price to see what a month costs."
        return context
    if builder.rate_type == "percentage" and cost is None:
        context["problem"] = "Write what the provider charges you for it."
    else:
        fee = fee_of(terms.price, quantity, cost)
        paid = fee.amount
        if terms.base_cost_payer == "wallet" and cost is not None:
            paid += cost
        context |= {
            "fee": fee,
            "paid": paid,
            "average": None if not quantity else money.round_fee(fee.amount / quantity),
            "rows": [_slice(terms.price, part, currency) for part in fee.slices],
            "cost": cost,
            "wallet": terms.base_cost_payer == "wallet",
        }
        if cost is not None:
            margin = paid - cost
            context["margin"] = margin
            context["margin_share"] = f"{margin * 100 / paid:.1f} %" if paid else ""
    context["chart"] = charts.steps(terms.price, at=quantity, word=word, currency=currency)
    return context


def fee_of(price: pricing.Price, quantity: Decimal, cost: Decimal | None) -> pricing.Fee:
    """The fee of a whole quantity (in the unit counted) as one request from 0.

    A meter of requests counts 1 a request; so many of them are priced as characters at a million
    times the rate, which is the same sum in the same code.
    """
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
    many = pricing.Price(
        rate_type=price.rate_type,
        unit="characters_1m",
        token_basis=price.token_basis,
        tiers=tuple(pricing.Tier(tier.start, tier.rate * scale) for tier in price.tiers),
    )
    spent = pricing.Usage(input_characters=int(quantity), provider_cost=cost)
    return pricing.price(many, spent, before=ZERO)


def _slice(price: pricing.Price, part: pricing.Slice, currency: str) -> dict[str, Any]:
    tier = price.tiers[part.tier]
    shown = rates.rate(tier.rate, currency) if price.rate_type == "fixed" else None
    return {
        "number": part.tier + 1,
        "quantity": rates.plain_count(part.quantity),
        "rate": shown or f"{typed.plain(tier.rate)} %",
        "amount": part.amount,
    }
