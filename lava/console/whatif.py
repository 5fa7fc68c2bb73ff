"""What if: a draft price of a meter, replayed over what was really used. Nothing is charged.

The draft is the meter builder's own form; the sums come from `meters.replay`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

from django.db.models import Count, Q
from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.urls import URLPattern, path
from django.utils.text import capfirst
from django.views.decorators.http import require_GET, require_POST

from billing import errors, money
from billing.models import Connection, Plan, Subscription
from checkout import prices as words
from lava.console import access, charts, meters, numbers, periods, rates, typed
from meters import prices, pricing, replay
from meters.models import Meter
from meters.replay import Bill

ZERO = Decimal(0)
RANGES = (7, 30, 90)
# Rows of the list of who pays more.
SHOWN = 50


@dataclass(frozen=True, slots=True)
class Sums:
    """The draft against today, over all customers."""

    charged: Decimal
    draft: Decimal
    cost: Decimal
    margin: Decimal | None
    margin_before: Decimal | None
    quantity: Decimal
    count: int
    unpriced: int
    more: int
    less: int
    customers: int

    @property
    def change(self) -> Decimal:
        return self.draft - self.charged

    @property
    def points(self) -> Decimal | None:
        """How the margin moves, in points of a percent."""
        if self.margin is None or self.margin_before is None:
            return None
        return self.margin - self.margin_before

    @classmethod
    def of(cls, bills: list[Bill]) -> Sums:
        with_cost = sum((bill.draft_with_cost for bill in bills), ZERO)
        before = sum((bill.charged_with_cost for bill in bills), ZERO)
        cost = sum((bill.cost for bill in bills), ZERO)
        return cls(
            charged=sum((bill.charged for bill in bills), ZERO),
            draft=sum((bill.draft for bill in bills), ZERO),
            cost=cost,
            margin=(with_cost - cost) * 100 / with_cost if with_cost else None,
            margin_before=(before - cost) * 100 / before if before else None,
            quantity=sum((bill.quantity for bill in bills), ZERO),
            count=sum(bill.count for bill in bills),
            unpriced=sum(bill.unpriced for bill in bills),
            more=sum(1 for bill in bills if bill.change > 0),
            less=sum(1 for bill in bills if bill.change < 0),
            customers=len(bills),
        )


@access.requires("meters.view_meter")
@require_GET
def choose(request: access.ConsoleRequest) -> HttpResponse:
    """`/console/what-if`: meters, each with what it charged, and plans, to try drafts of."""
    merchant = request.merchant
    earned = {
        series.key: (series.total, numbers.spoken(series))
        for series in numbers.usage_by_meter(
            merchant, periods.read({}, now=merchant.now(), zone=merchant.time_zone)
        )
    }
    rows = Meter.objects.of(merchant).filter(archived_at=None).select_related("price")
    return render(
        request,
        "console/whatif/choose.html",
        {
            "meters": [
                (
                    row,
                    words.tell(row.price, merchant.currency),
                    *earned.get(row.pk, (ZERO, "")),
                )
                for row in rows.order_by("name", "id")
                if row.price is not None
            ],
            "plans": Plan.objects.of(merchant)
            .filter(archived_at=None)
            .annotate(
                customers=Count(
                    "subscriptions", filter=Q(subscriptions__status__in=Subscription.CURRENT)
                )
            )
            .order_by("price", "id"),
            "currency": merchant.currency,
        },
    )


@access.requires("meters.view_meter")
@require_POST
def try_price(request: access.ConsoleRequest, key: str) -> HttpResponse:
    """`/console/meters/<id>/what-if`: the typed draft, replayed. Nothing is saved."""
    merchant = request.merchant
    meter = meters.find(merchant, key)
    price = meter.price
    if price is None:
        raise Http404
    builder = meters.read(request)
    builder.form.values |= {"slug": meter.slug, "name": builder.form.text("name") or meter.name}
    terms = builder.terms(prices.of(price))
    text = request.POST.get("days", "30")
    days = int(text) if text in map(str, RANGES) else 30
    now = merchant.now()
    bills: list[Bill] = []
    if builder.is_sound:
        try:
            bills = replay.replay(meter, terms=terms, since=now - timedelta(days=days), until=now)
        except errors.LavaError as error:
            builder.refuse(error)
    if not builder.is_sound:
        return meters.page(request, builder, meter=meter)
    currency = merchant.currency
    sums = Sums.of(bills)
    rises = sorted((bill for bill in bills if bill.change > 0), key=lambda bill: -bill.change)
    largest = _rows(merchant, rises[:SHOWN], unit=terms.unit)
    return render(
        request,
        "console/whatif/result.html",
        {
            "meter": meter,
            "draft": words.tell(terms, currency),
            "today": words.tell(price, currency),
            "days": days,
            "ranges": RANGES,
            "posted": [
                (name, value)
                for name, value in request.POST.items()
                if name not in ("csrfmiddlewaretoken", "days")
            ],
            "next_version": price.version + 1,
            "sums": sums,
            "share": f"{sums.change * 100 / sums.charged:+.1f} %".replace("-", "−")
            if sums.charged
            else "",
            "used": rates.count(sums.quantity, terms.unit),
            "rows": largest,
            "hidden": max(len(rises) - SHOWN, 0),
            "chart": charts.bills(
                [(bill.charged, bill.draft) for bill in bills], currency=currency
            ),
            "tiers": _tiers(price, terms, currency),
            "word": rates.WORDS[terms.unit],
            "currency": currency,
        },
    )


def _rows(merchant: Any, bills: list[Bill], *, unit: str) -> list[dict[str, Any]]:
    """Who pays more, with their plan and by how much."""
    people = {
        row.pk: row
        for row in Connection.objects.of(merchant)
        .filter(pk__in=[bill.connection_id for bill in bills])
        .select_related("customer")
    }
    plans = dict(
        Subscription.objects.of(merchant)
        .current()
        .filter(connection__in=people)
        .values_list("connection_id", "plan__name")
    )
    return [
        {
            "connection": people[bill.connection_id],
            "plan": plans.get(bill.connection_id, "none"),
            "quantity": rates.count(bill.quantity, unit),
            "charged": bill.charged,
            "draft": bill.draft,
            "change": bill.change,
            "share": f"+{bill.change * 100 / bill.charged:.1f} %" if bill.charged else "new",
        }
        for bill in bills
    ]


def _tiers(price: Any, terms: Any, currency: str) -> list[dict[str, Any]]:
    """Today's rate and the draft's where either changes, by how much was used or by kind."""
    old, new = price.tiers, list(terms.tiers)
    if price.rate_type != terms.rate_type or price.unit != terms.unit:
        return []
    if bool(old[0].kind) != bool(new[0].kind):
        return []

    def shown(rate: Decimal) -> str:
        if terms.rate_type == "percentage":
            return f"{typed.plain(rate)} %"
        return rates.rate(rate, currency)

    if old[0].kind:
        return [
            _compared(capfirst(words.kind(kind)), _of_kind(old, kind), _of_kind(new, kind), shown)
            for kind in pricing.KINDS
            if any(tier.kind == kind for tier in (*old, *new))
        ]
    starts = sorted({tier.start for tier in (*old, *new)})

    def at(tiers: Any, start: Decimal) -> Decimal:
        found: Decimal = [tier.rate for tier in tiers if tier.start <= start][-1]
        return found

    rows = []
    for place, start in enumerate(starts):
        last = place + 1 == len(starts)
        upto = "" if last else rates.plain_count(starts[place + 1])
        if last:
            name = "All" if place == 0 else "Beyond"
        else:
            name = f"First {upto}" if place == 0 else f"To {upto}"
        rows.append(_compared(name, at(old, start), at(new, start), shown))
    return rows + _beside(price, terms, currency)


def _of_kind(tiers: Any, kind: str) -> Decimal:
    """The rate a kind of tokens pays: cached input without one pays the input's."""
    found: dict[str, Decimal] = {tier.kind: tier.rate for tier in tiers}
    return found.get(kind, found["input"])


def _beside(price: Any, terms: Any, currency: str) -> list[dict[str, Any]]:
    """What stands beside the rates, where today's price or the draft has it."""
    rows = []
    if price.free_allowance or terms.free_allowance:
        # More for nothing is no rise.
        row = _compared(
            "Free", price.free_allowance, terms.free_allowance, lambda count: f"{count:,.0f}"
        )
        rows.append(row | {"is_rise": terms.free_allowance < price.free_allowance})
    if price.package_size or terms.package_size:
        rows.append(
            _compared(
                "Package",
                price.package_size,
                terms.package_size,
                lambda count: f"{count:,.0f}" if count else "none",
            )
        )
    flats = [{tier.start: tier.flat for tier in tiers} for tiers in (price.tiers, terms.tiers)]
    for start in sorted({*flats[0], *flats[1]}):
        today, draft = flats[0].get(start, ZERO), flats[1].get(start, ZERO)
        if today or draft:
            name = f"Once, past {rates.plain_count(start)}" if start else "Once"
            rows.append(_compared(name, today, draft, lambda flat: money.display(flat, currency)))
    return rows


def _compared(
    name: str, today: Decimal, draft: Decimal, shown: Callable[[Decimal], str]
) -> dict[str, Any]:
    """A row of the two prices side by side."""
    moved = (draft - today) * 100 / today if today else None
    return {
        "name": name,
        "today": shown(today),
        "draft": shown(draft),
        "is_changed": today != draft,
        "is_rise": draft > today,
        "change": "same"
        if today == draft
        else (f"{moved:+.1f} %".replace("-", "−") if moved is not None else "new"),
    }


urls: list[URLPattern] = [
    path("what-if", choose, name="what-if"),
    path("meters/<str:key>/what-if", try_price, name="meter-what-if"),
]
