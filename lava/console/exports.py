"""Tables as CSV, with the filters of their pages: streamed, so that any length costs the same.

Amounts are exact, with a point and all their digits; instants are UTC. What people typed is kept
from being read as a formula by a spreadsheet.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db.models import Prefetch
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import URLPattern, path
from django.views.decorators.http import require_GET

from billing import forecast, ids
from billing.models import LedgerEntry, Merchant, Subscription
from lava.console import (
    access,
    books,
    calendar,
    connections,
    margins,
    numbers,
    payments,
    periods,
    refunds,
    requests,
)

CHUNK = 1000
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
Row = list[Any]


class _Echo:
    """A file that gives back what is written to it."""

    def write(self, text: str) -> str:
        return text


def cell(value: Any) -> str:
    """A value as its cell holds it; a text that a spreadsheet would run gets an apostrophe."""
    if value is None:
        return ""
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    text = str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def stream(head: list[str], rows: Iterable[Row]) -> Iterator[str]:
    """The lines of a CSV file."""
    writer = csv.writer(_Echo())
    yield writer.writerow(head)
    for row in rows:
        yield writer.writerow([cell(value) for value in row])


def _connections(merchant: Merchant, query: dict[str, str]) -> tuple[list[str], Iterator[Row]]:
    current = Subscription.objects.current().select_related("plan")
    rows = (
        connections.filtered(merchant, query)
        .select_related("customer")
        .prefetch_related(Prefetch("subscriptions", current, to_attr="current"))
        .order_by("-id")
    )
    head = [
        "connection_id", "reference", "first_name", "last_name", "email", "phone", "status",
        "plan", "plan_id", "subscription_status", "cycle_end", "balance", "owed", "currency",
        "created_at",
    ]  # fmt: skip

    def told() -> Iterator[Row]:
        for row in rows.iterator(chunk_size=CHUNK):
            held = row.current[0] if row.current else None
            customer = row.customer
            yield [
                row.public_id, row.reference, customer.first_name, customer.last_name,
                customer.email, customer.phone, row.status,
                held.plan.name if held else "", held.plan.public_id if held else "",
                held.status if held else "", held.cycle_end if held else None,
                row.balance, row.debt, row.currency, row.created_at,
            ]  # fmt: skip

    return head, told()


def _requests(merchant: Merchant, query: dict[str, str]) -> tuple[list[str], Iterator[Row]]:
    rows = (
        requests.filtered(merchant, query)
        .select_related("connection__customer", "meter", "price")
        .order_by("-id")
    )
    head = [
        "id", "request_id", "connection_id", "customer", "meter", "price_version", "status",
        "model", "quantity", "unit", "fee", "charged", "provider_cost", "currency", "timestamp",
        "created_at", "late",
    ]  # fmt: skip

    def told() -> Iterator[Row]:
        for row in rows.iterator(chunk_size=CHUNK):
            yield [
                row.public_id, row.request_id, row.connection.public_id, row.connection.customer,
                row.meter.slug, row.price.version, row.status, row.model, row.quantity,
                # Minutes are counted in seconds.
                "seconds" if row.price.unit == "minutes" else row.price.unit.removesuffix("_1m"),
                row.fee, row.charged, row.provider_cost, row.connection.currency, row.timestamp,
                row.created_at, "yes" if row.late else "no",
            ]  # fmt: skip

    return head, told()


def _payments(merchant: Merchant, query: dict[str, str]) -> tuple[list[str], Iterator[Row]]:
    rows = (
        payments.filtered(merchant, query)
        .select_related("connection__customer", "plan", "bundle", "card")
        .order_by("-created_at", "-id")
    )
    head = [
        "payment_id", "receipt", "connection_id", "customer", "purpose", "status", "amount",
        "currency", "plan", "bundle", "card", "stripe_payment_intent", "failure", "created_at",
        "settled_at",
    ]  # fmt: skip

    def told() -> Iterator[Row]:
        for row in rows.iterator(chunk_size=CHUNK):
            yield [
                row.public_id, row.receipt_number, row.connection.public_id,
                row.connection.customer, row.purpose, row.status, row.amount.amount,
                row.amount.currency, row.plan.name if row.plan else "",
                row.bundle.name if row.bundle else "", row.card or "", row.intent_id,
                row.failure_message, row.created_at, row.settled_at,
            ]  # fmt: skip

    return head, told()


def _refunds(merchant: Merchant, query: dict[str, str]) -> tuple[list[str], Iterator[Row]]:
    rows = refunds.filtered(merchant, query).select_related("connection__customer", "payment")
    head = [
        "refund_id", "receipt", "payment_id", "connection_id", "customer", "status", "amount",
        "currency", "credits_taken", "made_owed", "reason", "made_by", "stripe_refund", "failure",
        "created_at", "settled_at",
    ]  # fmt: skip

    def told() -> Iterator[Row]:
        for row in rows.order_by("-id").iterator(chunk_size=CHUNK):
            yield [
                row.public_id, row.receipt_number, row.payment.public_id, row.connection.public_id,
                row.connection.customer, row.status, row.amount.amount, row.amount.currency,
                row.credits_taken, row.debt_made, row.reason, row.actor, row.refund_id,
                row.failure_message, row.created_at, row.settled_at,
            ]  # fmt: skip

    return head, told()


def _ledger(merchant: Merchant, query: dict[str, str]) -> tuple[list[str], Iterator[Row]]:
    rows = LedgerEntry.objects.filter(merchant=merchant)
    if query["kind"] in books.SHOWN:
        rows = rows.filter(kind__in=books.SHOWN[query["kind"]][1])
    if query["connection"]:
        rows = rows.filter(connection_id=books.key(query["connection"]))
    head = [
        "connection_id", "customer", "number", "kind", "amount", "balance_after", "currency",
        "grant_id", "request_id", "payment_id", "reason", "made_by", "occurred_at",
    ]  # fmt: skip

    def told() -> Iterator[Row]:
        found = rows.select_related("connection__customer", "grant", "payment").order_by("-id")
        for row in found.iterator(chunk_size=CHUNK):
            yield [
                row.connection.public_id, row.connection.customer, row.seq, row.kind, row.amount,
                row.balance_after, row.connection.currency,
                row.grant.public_id if row.grant else "",
                ids.public("req", row.request_id) if row.request_id else "",
                row.payment.public_id if row.payment else "", row.reason, row.actor,
                row.occurred_at,
            ]  # fmt: skip

    return head, told()


def _usage(merchant: Merchant, query: dict[str, str]) -> tuple[list[str], Iterator[Row]]:
    period = periods.read(query, now=merchant.now(), zone=merchant.time_zone)
    head = [
        "day", "meter", "requests", "tokens", "characters", "seconds", "provider_cost", "fee",
        "charged", "currency",
    ]  # fmt: skip

    def told() -> Iterator[Row]:
        series = numbers.usage_by_meter(merchant, period)
        for day in period:
            for one in series:
                sums = one.sums.get(day)
                if sums is not None:
                    yield [
                        day, one.name, sums.requests, sums.tokens, sums.characters, sums.seconds,
                        sums.provider_cost, sums.fee, sums.charged, merchant.currency,
                    ]  # fmt: skip

    return head, told()


def _plans(merchant: Merchant, query: dict[str, str]) -> tuple[list[str], Iterator[Row]]:
    head = [
        "plan_id", "plan", "version", "price", "currency", "interval", "customers", "past_due",
        "mrr",
    ]  # fmt: skip

    def told() -> Iterator[Row]:
        for row in numbers.plan_rows(merchant):
            plan = row["plan"]
            yield [
                plan.public_id, plan.name, plan.version, plan.price.amount, plan.price.currency,
                plan.billing_interval, row["customers"], row["past_due"], row["mrr"],
            ]  # fmt: skip

    return head, told()


def _credit(merchant: Merchant, query: dict[str, str]) -> tuple[list[str], Iterator[Row]]:
    rows = numbers.credit_by_month(merchant, now=merchant.now())
    told = ([row.month or "", row.left, row.paid, merchant.currency] for row in rows)
    return ["ends_in_month_of", "left", "paid_for", "currency"], told


def _margin(merchant: Merchant, query: dict[str, str]) -> tuple[list[str], Iterator[Row]]:
    period = periods.read(query, now=merchant.now(), zone=merchant.time_zone)
    rows = margins.by_customer(merchant, period)
    told = (
        [
            ids.public("con", connection), ids.public("sc", plan) if plan else "", line.charged,
            line.costed, line.cost, line.paid, line.result, merchant.currency,
        ]
        for line, connection, plan in rows
    )  # fmt: skip
    head = [
        "connection_id", "plan_id", "charged", "charged_with_known_cost", "provider_cost",
        "paid_by_card", "left_over", "currency",
    ]  # fmt: skip
    return head, told


def _calendar(merchant: Merchant, query: dict[str, str]) -> tuple[list[str], Iterator[Row]]:
    now = merchant.now()
    found = forecast.ahead(merchant, until=now + timedelta(days=calendar.DAYS), now=now)
    told = (
        [
            row.at, row.what, row.connection.public_id, row.connection.customer,
            row.plan.name if row.plan else "", row.asked, "yes" if row.pays else "no",
            row.granted, row.rolled, row.ended, row.connection.currency,
        ]
        for row in found.rows
    )  # fmt: skip
    head = [
        "at", "what", "connection_id", "customer", "plan", "asked", "card_is_expected_to_pay",
        "granted", "rolled_over", "ended", "currency",
    ]  # fmt: skip
    return head, told


def _numbers(merchant: Merchant, query: dict[str, str]) -> tuple[list[str], Iterator[Row]]:
    period = periods.read(query, now=merchant.now(), zone=merchant.time_zone)
    found = numbers.facts(merchant, now=merchant.now(), period=period)
    told = (
        [
            tile.name,
            tile.words or (tile.amount if tile.count is None else tile.count),
            "" if tile.words or tile.count is not None else merchant.currency,
            period.first,
            period.last,
        ]
        for tile in numbers.tiles(found)
    )
    return ["number", "value", "currency", "from", "to"], told


Table = Callable[[Merchant, dict[str, str]], tuple[list[str], Iterator[Row]]]
TABLES: dict[str, tuple[str, Table, tuple[str, ...]]] = {
    "connections": ("billing.view_connection", _connections, connections.FILTERS),
    "requests": ("meters.view_usagerequest", _requests, requests.FILTERS),
    "payments": ("billing.view_payment", _payments, payments.FILTERS),
    "refunds": ("billing.view_payment", _refunds, refunds.FILTERS),
    "usage": ("billing.view_any", _usage, ("days", "from", "to")),
    "plans": ("billing.view_plan", _plans, ()),
    "credit": ("billing.view_ledgerentry", _credit, ()),
    "margin": ("billing.view_any", _margin, ("days", "from", "to")),
    "calendar": ("billing.view_subscription", _calendar, ()),
    "numbers": ("billing.view_any", _numbers, ("days", "from", "to")),
    "ledger": ("billing.view_ledgerentry", _ledger, ("kind", "connection")),
}


def _view(name: str) -> Any:
    permission, table, filters = TABLES[name]

    @access.requires(permission)
    @require_GET
    def export(request: access.ConsoleRequest) -> HttpResponse:
        query = {field: request.GET.get(field, "").strip() for field in filters}
        head, rows = table(request.merchant, query)
        response = StreamingHttpResponse(stream(head, rows), content_type="text/csv; charset=utf-8")
        day = f"{request.merchant.now():%Y-%m-%d}"
        filename = f"{request.organization.slug}-{request.merchant.mode}-{name}-{day}.csv"
        response["Content-Disposition"] = f'attachment; filename="{filename}"'
        return response  # type: ignore[return-value]

    return export


urls: list[URLPattern] = [
    path(f"exports/{name}.csv", _view(name), name=f"export-{name}") for name in TABLES
]
