"""`manage.py explain <connection id> [--at ISO] [--last N] [--json]`: why a balance is what it is.

The ledger line by line, newest last; under each usage line its request, the version of the price it
met, the slices of its fee and the grants it drew from; then the balance. Reads only.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from django.core.management.base import BaseCommand, CommandError
from django.db import connection as database
from django.db import transaction

from billing import errors, ids, money, receipts, statements
from billing.models import Connection, CreditGrant, LedgerEntry
from checkout import prices
from meters import proofs
from meters.models import UsageRequest

_NOUNS = {
    "tokens_1m": "tokens",
    "characters_1m": "characters",
    "minutes": "min",
    "requests": "requests",
}


class Command(BaseCommand):
    help = "Explain a balance: the ledger line by line with its proofs, newest last."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("connection", help="e.g. con_test_01J8Z...")
        parser.add_argument("--at", help="an instant, e.g. 2026-11-23T10:00:00Z (now)")
        parser.add_argument("--last", type=int, help="only so many of the newest lines (all)")
        parser.add_argument("--json", action="store_true", help="the same as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        connection = find(options["connection"])
        at = _instant(options["at"]) if options["at"] else connection.merchant.now()
        if options["last"] is not None and options["last"] < 1:
            raise CommandError("--last is a number from 1.")
        with transaction.atomic():
            with database.cursor() as cursor:
                if not transaction.get_connection().savepoint_ids:
                    cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            statement = statements.explain(connection, at=at, most=options["last"])
            found = proofs.of(connection, statement.requests)
        if options["json"]:
            self.stdout.write(json.dumps(as_json(statement, found), indent=2))
        else:
            self.stdout.write("\n".join(as_text(statement, found)))


def find(text: str) -> Connection:
    """The connection of a public id."""
    try:
        key = ids.parse("con", text)
    except errors.NotFound as error:
        raise CommandError(error.message) from error
    row = (
        Connection.objects.filter(pk=key)
        .select_related("merchant__organization", "customer")
        .first()
    )
    if row is None:
        raise CommandError(f"No such connection: {text}")
    return row  # type: ignore[no-any-return]


def _instant(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise CommandError("Write --at like 2026-11-23T10:00:00Z.") from error
    if found.tzinfo is None:
        raise CommandError("Say the zone of --at: 2026-11-23T10:00:00Z or ...+01:00.")
    return found


def as_text(statement: statements.Statement, found: dict[Any, proofs.Proof]) -> Iterator[str]:
    """The statement as aligned lines for a terminal."""
    connection = statement.connection
    zone, currency = ZoneInfo(connection.merchant.time_zone), connection.currency
    plan = connection.subscription.plan.name if connection.subscription else "no plan"
    yield f"{connection.customer}, {connection.public_id}, {plan}"
    yield f"{connection.merchant}, times in {zone.key}"
    yield ""
    rows = [("", "", "Balance before", "", money.display(statement.before, currency))]
    rows = rows if statement.has_more else []
    notes: dict[int, list[str]] = {}
    told: set[Any] = set()
    for line in statement.lines:
        proof = found.get(line.request_id) if line.request_id else None
        rows.append(
            (
                str(line.seq),
                f"{line.occurred_at.astimezone(zone):%Y-%m-%d %H:%M:%S}",
                _what(line, proof, zone),
                money.display(line.amount, currency, sign=True),
                money.display(line.balance_after, currency),
            )
        )
        if proof is not None and line.request_id not in told:
            told.add(line.request_id)
            notes[len(rows) - 1] = list(_proof_lines(proof, zone, currency))
    heads = ("Line", "Time", "What", "Amount", "Balance")
    rows = [
        (*row[:3], amount, balance)
        for row, amount, balance in zip(
            rows, _aligned(row[3] for row in rows), _aligned(row[4] for row in rows), strict=True
        )
    ]
    widths = [max(len(row[place]) for row in (heads, *rows)) for place in range(5)]
    for place, row in enumerate((heads, *rows)):
        number, time, what, amount, balance = row
        yield (
            f"{number:>{widths[0]}}  {time:<{widths[1]}}  {what:<{widths[2]}}  "
            f"{amount:>{widths[3]}}  {balance:>{widths[4]}}"
        ).rstrip()
        for note in notes.get(place - 1, ()):
            yield " " * (widths[0] + widths[1] + 6) + note
    if not statement.lines:
        yield "Nothing has happened yet."
    yield ""
    yield from _balance_lines(statement, zone)


def _what(line: LedgerEntry, proof: proofs.Proof | None, zone: ZoneInfo) -> str:
    """What a line is, with the id of what caused it."""
    name = str(line.get_kind_display())
    if proof is not None:
        owed = ", owed" if line.grant_id is None else ""
        return f"{proof.request.meter.name}, {_counted(proof.request)}{owed}"
    if line.payment is not None:
        what = receipts.what(line.payment)
        return f"{name}: {what}, paid {receipts.amount(line.payment)}, {line.payment.public_id}"
    if line.kind == LedgerEntry.Kind.DEBT:
        own = f" out of {_grant(line.grant, zone)}" if line.grant is not None else ""
        return f"{name}{own}"
    if line.grant is not None:
        name = f"{name}: {_grant(line.grant, zone)}"
    if line.reason:
        name = f"{name}, {line.reason} ({line.actor})" if line.actor else f"{name}, {line.reason}"
    return name


def _proof_lines(proof: proofs.Proof, zone: ZoneInfo, currency: str) -> Iterator[str]:
    request, price = proof.request, proof.price
    model = f", {request.model}" if request.model else ""
    late = ", late" if request.late else ""
    yield f"request {request.request_id} ({request.public_id}){model}{late}"
    yield (
        f"price   version {price.version} of {price.created_at.astimezone(zone):%Y-%m-%d}, "
        f"after {_number(request.position_before, price.unit)} {_NOUNS[price.unit]}"
        f"{' in this cycle' if price.tier_window == 'cycle' else ''}"
    )
    for part in proof.slices:
        rate = (
            prices.rate(price, part.rate, currency)
            if price.rate_type == "fixed"
            else f"{part.rate.normalize():f} % of the provider's "
            f"{money.display(request.provider_cost or Decimal(0), currency)}"
        )
        yield (
            f"slice   tier {part.tier}: {_number(part.quantity, price.unit)} "
            f"{_NOUNS[price.unit]} at {rate} = {money.display(part.amount, currency)}"
        )
    if proof.provider_cost:
        yield f"cost    of the provider {money.display(proof.provider_cost, currency)}"
    for draw in proof.draws:
        amount = money.display(draw.amount, currency)
        if draw.grant is None:
            yield f"drawn   {amount} owed, past the credits"
        else:
            yield f"drawn   {amount} from {_grant(draw.grant, zone)}"


def _balance_lines(statement: statements.Statement, zone: ZoneInfo) -> Iterator[str]:
    balance, currency = statement.balance, statement.connection.currency
    yield f"Balance at {statement.at.astimezone(zone):%Y-%m-%d %H:%M:%S}"
    rows = [
        (_grant(lot.grant, zone) + (", ended" if lot.ended else ""), lot.remaining)
        for lot in statement.lots
    ]
    rows += [("Plan credit", balance.cycle), ("Bundle credit", balance.bundle)]
    if statement.ended:
        rows.append(("Ended, to be entered", statement.ended))
    rows += [("Owed", -balance.debt), ("To spend", balance.total)]
    names = max(len(name) for name, _ in rows)
    shown = _aligned(money.display(amount, currency) for _, amount in rows)
    width = max(map(len, shown))
    for place, ((name, _), amount) in enumerate(zip(rows, shown, strict=True)):
        if place == len(statement.lots) and statement.lots:
            yield "  " + "-" * (names + width + 2)
        yield f"  {name:<{names}}  {amount:>{width}}".rstrip()


def _aligned(amounts: Iterable[str]) -> list[str]:
    """Amounts padded at the end, so that set flush right their decimal points stand in line."""
    split = [amount.partition(".") for amount in amounts]
    most = max((len(point + beyond) for _, point, beyond in split), default=0)
    return [
        f"{whole}{point}{beyond}{' ' * (most - len(point + beyond))}"
        for whole, point, beyond in split
    ]


def _grant(grant: CreditGrant | None, zone: ZoneInfo) -> str:
    """A grant by its name and day: `Plan credit of 2026-11-01`."""
    if grant is None:
        return ""
    name = grant.bundle.name if grant.bundle is not None else grant.get_source_display()
    return f"{name} of {grant.created_at.astimezone(zone):%Y-%m-%d}"


def _counted(request: UsageRequest) -> str:
    unit = request.price.unit
    return f"{_number(request.quantity, unit)} {_NOUNS[unit]}"


def _number(quantity: Decimal, unit: str) -> str:
    """A count; minutes are kept in seconds and said in minutes."""
    if unit == "minutes":
        quantity = (quantity / 60).quantize(Decimal("0.001"))
    text = f"{quantity:,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def as_json(statement: statements.Statement, found: dict[Any, proofs.Proof]) -> dict[str, Any]:
    """The statement for programs; amounts as strings with 10 decimals."""
    balance = statement.balance
    return {
        "connection_id": statement.connection.public_id,
        "currency": balance.currency,
        "at": statement.at.isoformat(),
        "has_more": statement.has_more,
        "balance_before": money.wire(statement.before),
        "lines": [_line_json(line, found) for line in statement.lines],
        "grants": [
            _grant_json(lot.grant) | {"remaining": money.wire(lot.remaining), "ended": lot.ended}
            for lot in statement.lots
        ],
        "balance": {
            "total_remaining": money.wire(balance.total),
            "cycle_remaining": money.wire(balance.cycle),
            "bundle_remaining": money.wire(balance.bundle),
            "overage_due": money.wire(balance.debt),
            "ended": money.wire(statement.ended),
        },
    }


def _line_json(line: LedgerEntry, found: dict[Any, proofs.Proof]) -> dict[str, Any]:
    proof = found.get(line.request_id) if line.request_id else None
    return {
        "seq": line.seq,
        "occurred_at": line.occurred_at.isoformat(),
        "kind": line.kind,
        "amount": money.wire(line.amount),
        "balance_after": money.wire(line.balance_after),
        "grant_id": line.grant.public_id if line.grant else None,
        "payment_id": line.payment.public_id if line.payment else None,
        "reason": line.reason,
        "actor": line.actor,
        "request": _proof_json(proof) if proof is not None else None,
    }


def _grant_json(grant: CreditGrant) -> dict[str, Any]:
    return {
        "grant_id": grant.public_id,
        "source": grant.source,
        "amount": money.wire(grant.amount),
        "effective_at": grant.effective_at.isoformat(),
        "expires_at": grant.expires_at.isoformat() if grant.expires_at else None,
    }


def _proof_json(proof: proofs.Proof) -> dict[str, Any]:
    request, price = proof.request, proof.price
    return {
        "request_id": request.request_id,
        "id": request.public_id,
        "meter_slug": request.meter.slug,
        "model": request.model,
        "timestamp": request.timestamp.isoformat(),
        "late": request.late,
        "quantity": f"{request.quantity.normalize():f}",
        "position_before": f"{request.position_before.normalize():f}",
        "price_version": price.version,
        "rate_type": price.rate_type,
        "unit": price.unit,
        "fee": money.wire(request.fee),
        "provider_cost_charged": money.wire(proof.provider_cost),
        "charged": money.wire(request.charged),
        "slices": [
            {
                "tier": part.tier,
                "quantity": f"{part.quantity.normalize():f}",
                "rate": money.wire(part.rate),
                "amount": money.wire(part.amount),
            }
            for part in proof.slices
        ],
        "draws": [
            {
                "grant_id": draw.grant.public_id if draw.grant else None,
                "amount": money.wire(draw.amount),
            }
            for draw in proof.draws
        ],
    }
