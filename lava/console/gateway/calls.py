"""Gateway calls: the list that follows them as they come, and one call with all that is known.

Reads only. What a call was charged and why is its request's page (`lava.console.requests`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.db.models import Aggregate, Count, FloatField, OuterRef, Q, Subquery, Sum
from django.http import HttpResponse
from django.shortcuts import render
from django.urls import URLPattern, path
from django.views.decorators.http import require_GET

from billing import errors, ids, money
from billing.models import Connection, Merchant
from lava.console import access, moments
from meters.gateway import keyring
from meters.models import ForwardToken, GatewayCall, Meter, RequestCost, UsageRequest

PAGE = 25
ZERO = Decimal(0)
FILTERS = ("q", "connection", "provider", "state")
Status = GatewayCall.Status
# What the list may be narrowed to, in the merchant's words.
STATES: dict[str, tuple[str, Q]] = {
    "done": ("Completed", Q(status=Status.COMPLETED)),
    "running": ("Running", Q(status=Status.PENDING)),
    "credits": ("Blocked for want of credits", Q(status=Status.BLOCKED, http_status=402)),
    "refused": ("Refused otherwise", Q(status=Status.BLOCKED) & ~Q(http_status=402)),
    "failed": ("Failed", Q(status__in=[Status.ERROR, Status.ABANDONED])),
    "streams": ("Streams", Q(stream=True)),
}
# Words on how a call was measured, for people.
FLAGS = {
    "estimated": "The answer stated no usage: it is estimated by the text that passed.",
    "partial": "It was not read to its end: what had come is charged.",
    "unpriced": "Nobody knows this model’s price: the provider’s cost is not known.",
    "suspect": "Some of the counts in the answer were impossible and were left out.",
    "capped": "The answer stated more than this call can have used: it was bounded.",
    "cut": "The answer broke off.",
    "packed": "It came packed, with the key in it or too long to look through: it was cut.",
    "failed": "Something went wrong on our side while it was passed on.",
}
# Counts of the usage, for people; other counts stand as they are.
COUNTS = {
    "input": "Input tokens",
    "output": "Output tokens",
    "cache_read": "of the input, read from a cache",
    "cache_write": "of the input, written to a cache",
    "cache_write_1h": "of these, kept for an hour",
    "reasoning": "of the output, reasoning",
    "input_audio": "of the input, audio",
    "output_audio": "of the output, audio",
    "input_image": "of the input, images",
    "output_image": "of the output, images",
    "input_tool": "of the input, tools",
    "input_seconds": "Seconds listened to",
}
# What refused a call, for people; other codes stand as they are.
CODES = {
    "insufficient_credits": "The credits left did not cover it.",
    "spend_limit_reached": "The token’s spend limit was reached.",
    "request_limit_reached": "The token’s limit of calls was reached.",
    "past_due": "The subscription is past due and its grace is over.",
    "target_not_allowed": "The address is none of a provider’s.",
    "provider_key_missing": "There is no key for the provider.",
    "provider_not_allowed": "The token does not allow the provider.",
    "model_not_allowed": "The token does not allow the model.",
    "meter_not_on_plan": "The meter is not on the customer’s plan.",
    "cost_unknown": "The meter takes a share of the cost, and the model’s price is not known.",
    "connection_disabled": "The customer is disabled.",
    "connection_not_found": "The customer is not there.",
    "not_forwarded": "Work that runs on after the answer is not forwarded.",
    "process_died": "The process that served it died.",
    "provider_unreachable": "The provider could not be reached.",
    "provider_timeout": "The provider did not answer in time.",
}


class Median(Aggregate):
    """The middle of a column."""

    function = "PERCENTILE_CONT"
    template = "%(function)s(0.5) WITHIN GROUP (ORDER BY %(expressions)s)"
    output_field = FloatField()
    allow_distinct = False


@dataclass(frozen=True, slots=True)
class Line:
    """A call of the list with what stands beside it in other tables."""

    row: GatewayCall
    who: str
    provider: str
    tone: str
    word: str
    cost: Decimal | None
    took: str
    first: str

    @property
    def margin(self) -> Decimal | None:
        """What was charged beyond the provider's cost."""
        return None if self.cost is None else self.row.charged - self.cost

    @property
    def tokens(self) -> tuple[int, int] | None:
        """Input and output, as the answer said; None where nothing was counted."""
        used = self.row.usage
        counts = int(used.get("input", 0)), int(used.get("output", 0))
        return counts if any(counts) else None


@access.requires("meters.view_gatewaycall")
@require_GET
def listing(request: access.ConsoleRequest) -> HttpResponse:
    """The latest calls; with `live` the list alone, as the page asks for it again and again."""
    merchant = request.merchant
    query = {name: request.GET.get(name, "").strip() for name in FILTERS}
    kept = {name: value for name, value in query.items() if value}
    before = request.GET.get("before", "")
    rows = filtered(merchant, query)
    if before:
        rows = rows.filter(pk__lt=_key("req", before))
    found = list(rows.order_by("-id")[: PAGE + 1])
    names = {row.slug: row.name for row in keyring.rows(merchant)}
    now = merchant.now()
    return render(
        request,
        "console/gateway/_calls.html" if request.GET.get("live") else "console/gateway/calls.html",
        {
            "tab": "calls",
            "bands": moments.bands(
                lines(merchant, found[:PAGE], names),
                lambda line: line.row.created_at,
                merchant.time_zone,
                now=now,
            ),
            "day": last_day(merchant, now=now),
            "older": urlencode(kept | {"before": found[PAGE - 1].public_id})
            if len(found) > PAGE
            else "",
            "newest": urlencode(kept) if before else None,
            "live": "" if before else urlencode(kept | {"live": "1"}),
            "query": query,
            "is_filtered": bool(kept),
            "states": [(name, label) for name, (label, _) in STATES.items()],
            "providers": sorted(names.items(), key=lambda pair: pair[1].lower()),
            "currency": merchant.currency,
            "zone": merchant.time_zone,
        },
    )


@access.requires("meters.view_gatewaycall")
@require_GET
def one(request: access.ConsoleRequest, key: str) -> HttpResponse:
    """One call: where its time went, what was used, what it cost and by whose price."""
    merchant = request.merchant
    row = GatewayCall.objects.of(merchant).by_public_id(key)
    names = {item.slug: item.name for item in keyring.rows(merchant)}
    (line,) = lines(merchant, [row], names)
    cost = RequestCost.objects.of(merchant).filter(pk=row.pk).first()
    token = ForwardToken.objects.of(merchant).filter(pk=row.token_id).first()
    meter = Meter.objects.of(merchant).filter(pk=row.meter_id).first()
    charged = UsageRequest.objects.of(merchant).filter(pk=row.pk).exists()
    margin = line.margin
    return render(
        request,
        "console/gateway/call.html",
        {
            "tab": "calls",
            "line": line,
            "row": row,
            "cost": cost,
            "rates": sorted(cost.rates.items()) if cost else [],
            "token": token,
            "meter": meter,
            "connection": ids.public("con", row.connection_id) if row.connection_id else "",
            "is_charged": charged,
            "margin_share": f"{margin * 100 / row.charged:.1f} %"
            if margin is not None and row.charged
            else "",
            "used": [
                (COUNTS.get(name, name.replace("_", " ").capitalize()), _count(value))
                for name, value in row.usage.items()
            ],
            "flags": [FLAGS.get(flag, CODES.get(flag, flag)) for flag in row.flags],
            "why": CODES.get(row.error, row.error),
            "bars": bars(row),
            "zone": merchant.time_zone,
            "currency": merchant.currency,
        },
    )  # fmt: skip


def filtered(merchant: Merchant, query: dict[str, str]) -> Any:
    """The calls that fit all of `FILTERS` that are given."""
    rows = GatewayCall.objects.of(merchant)
    text = query["q"]
    if text.startswith("req_"):
        rows = rows.filter(pk=_key("req", text))
    elif text.startswith("spk_"):
        rows = rows.filter(token_id=_key("spk", text))
    elif text:
        rows = rows.filter(model__iexact=text)
    if query["connection"]:
        rows = rows.filter(connection_id=_key("con", query["connection"]))
    if query["provider"]:
        rows = rows.filter(provider=query["provider"])
    if query["state"] in STATES:
        rows = rows.filter(STATES[query["state"]][1])
    return rows


def lines(merchant: Merchant, rows: Sequence[GatewayCall], names: dict[str, str]) -> list[Line]:
    """Calls with their customers, tokens and costs; one query for each kind."""
    people = {
        row.pk: str(row.customer)
        for row in Connection.objects.of(merchant)
        .filter(pk__in=_some(row.connection_id for row in rows))
        .select_related("customer")
    }
    tokens = dict(
        ForwardToken.objects.of(merchant)
        .filter(pk__in=_some(row.token_id for row in rows))
        .values_list("pk", "name")
    )
    costs = dict(
        RequestCost.objects.of(merchant)
        .filter(pk__in=[row.pk for row in rows])
        .values_list("pk", "amount")
    )
    found = []
    for row in rows:
        tone, word = state(row)
        who = people.get(row.connection_id) or tokens.get(row.token_id) or "Your own call"
        running = row.status == Status.PENDING
        found.append(
            Line(
                row=row,
                who=who,
                provider=names.get(row.provider, row.provider),
                tone=tone,
                word=word,
                cost=costs.get(row.pk),
                took="" if running else span(row.total_ms),
                first="" if running or not row.first_byte_ms else span(row.first_byte_ms),
            )
        )
    return found


def state(row: GatewayCall) -> tuple[str, str]:
    """The tag of a call: its tone and its word."""
    if row.status == Status.PENDING:
        return "accent", "Running"
    if row.status == Status.BLOCKED:
        word = "Blocked" if row.http_status == 402 else "Refused"
        return "bad", f"{word} {row.http_status}"
    if row.status == Status.ERROR:
        return "bad", f"Failed {row.http_status}" if row.http_status else "Failed"
    if row.status == Status.ABANDONED:
        return "warn", "Freed"
    if {"partial", "cut"} & set(row.flags):
        return "warn", "Partial"
    if "unpriced" in row.flags:
        return "warn", "No price"
    return "ok", "Charged" if row.charged else "Completed"


def span(milliseconds: int) -> str:
    """How long something took: `842 ms`, `12.4 s`."""
    if milliseconds < 10_000:
        return f"{milliseconds:,} ms"
    return f"{milliseconds / 1000:,.1f} s"


def bars(row: GatewayCall) -> list[dict[str, Any]]:
    """Where a call's time went, as bars on one line of 240; empty while it runs or was refused."""
    if row.status in (Status.PENDING, Status.BLOCKED) or not row.total_ms:
        return []
    ours = min(row.overhead_ms, row.total_ms)
    first = min(max(row.first_byte_ms, ours), row.total_ms)
    parts = [
        ("Gateway: key, credit, target", 0, ours),
        ("Provider, to its first byte", ours, first),
    ]
    if row.total_ms > first:
        parts.append(("The answer", first, row.total_ms))
    return [
        {
            "name": name,
            "x": f"{238 * start / row.total_ms:.1f}",
            "width": f"{max(238 * (end - start) / row.total_ms, 2):.1f}",
            "took": span(end - start),
            "ours": start == 0,
        }
        for name, start, end in parts
    ]


def last_day(merchant: Merchant, *, now: datetime) -> dict[str, Any]:
    """The figures of the last 24 hours."""
    since = now - timedelta(hours=24)
    cost = RequestCost.objects.filter(pk=OuterRef("pk")).values("amount")
    rows = GatewayCall.objects.of(merchant).filter(
        pk__gte=ids.first(since - merchant.clock_offset), created_at__gte=since
    )
    customers = Q(connection_id__isnull=False)
    found: dict[str, Any] = rows.annotate(paid=Subquery(cost)).aggregate(
        calls=Count("id"),
        blocked=Count("id", filter=STATES["credits"][1]),
        taken=Sum("charged", default=ZERO),
        # Of customers' calls alone: the merchant's own have a cost and no charge.
        cost=Sum("paid", filter=customers, default=ZERO),
        costed=Sum("charged", filter=customers & Q(paid__isnull=False), default=ZERO),
        own_cost=Sum("paid", filter=Q(connection_id=None), default=ZERO),
        overhead=Median("overhead_ms", filter=Q(status=Status.COMPLETED)),
    )
    found["margin"] = found["costed"] - found["cost"]
    for name in ("taken", "margin", "cost", "own_cost"):
        found[f"{name}_text"] = headline(found[name], merchant.currency)
    return found


def _count(value: Any) -> str:
    """A count of the usage with its commas; seconds come as text."""
    return f"{value:,}" if isinstance(value, int) else str(value)


def headline(amount: Decimal, currency: str) -> str:
    """A sum for a tile: to the minor unit, and exact below it."""
    floor = money.floor_minor(amount, currency)
    return money.display(floor or amount, currency)


def _some(keys: Iterable[UUID | None]) -> set[UUID]:
    return {key for key in keys if key is not None}


def _key(prefix: str, text: str) -> UUID:
    """The key of a public id; one that is not well formed finds nothing."""
    try:
        return ids.parse(prefix, text)
    except errors.NotFound:
        return UUID(int=0)


urls: list[URLPattern] = [
    path("gateway/", listing, name="gateway"),
    path("gateway/calls/<str:key>", one, name="gateway-call"),
]
