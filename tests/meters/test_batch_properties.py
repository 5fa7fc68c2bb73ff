"""A batch says and writes what its lines would one by one, to the last digit, whatever is in it."""

from __future__ import annotations

import random
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection as database
from django.utils import timezone

import billing.audit
import meters.audit
from billing import connections as people
from billing import errors, ids
from billing.models import Connection, CreditGrant, LedgerEntry
from meters import batch, pricing, usage
from meters.models import MeterPosition, UsageRequest
from tests import factories

pytestmark = pytest.mark.django_db

KINDS = ("input", "output")


class Books:
    """One of two merchants that are alike in everything but their ids."""

    def __init__(self, dice: random.Random, now: Any, *, begun_later: bool = False) -> None:
        self.merchant = factories.make_merchant()
        self.key = factories.make_key(self.merchant)
        credit = dice.choice(["0", "0.5", "4"])
        depleted = dice.choice(["block", "overage"])
        self.plan = factories.make_plan(
            self.merchant, price="0", credit=credit, when_depleted=depleted
        )
        meter = {
            "flat": {"tiers": [("0", "3")]},
            "tiers": {"tiers": [("0", "3"), ("200000", "2.5"), ("500000", "0.7")]},
            "cycle": {"tiers": [("0", "0.3"), ("1", "0.2")], "unit": "minutes",
                      "tier_window": "cycle"},
            "flats": {"tiers": [("0", "0.1"), ("3", "0.2")], "unit": "requests",
                      "tier_flats": [Decimal("0.05"), Decimal("0.07")]},
            "free": {"tiers": [("0", "9"), ("100", "7")], "unit": "characters_1m",
                     "free_allowance": Decimal(300), "package_size": Decimal(1000)},
            "kinds": {"tiers": [("0", "3"), ("1", "15")], "tier_kinds": list(KINDS)},
            "cost": {"tiers": [("0", "20")], "unit": "requests", "rate_type": "percentage",
                     "base_cost_payer": "wallet"},
        }  # fmt: skip
        for slug, terms in meter.items():
            factories.make_meter(self.merchant, self.plan, slug=slug, **terms)
        factories.make_meter(self.merchant, slug="off-plan")
        self.customers = [
            factories.make_subscription(self.plan, now=now).connection for _ in range(3)
        ]
        for customer in self.customers:
            for amount in ("0.0000000007", "1.25"):
                factories.give(customer, amount, now=now)
        # One grant has ended and is not entered yet, one has not begun.
        given = CreditGrant.objects.filter(merchant=self.merchant, source="manual").order_by("pk")
        CreditGrant.objects.filter(pk=given[0].pk).update(
            effective_at=now - timedelta(days=2), expires_at=now - timedelta(hours=1)
        )
        if begun_later:
            CreditGrant.objects.filter(pk=given[3].pk).update(effective_at=now + timedelta(days=1))
        self.customers.append(factories.make_connection(self.merchant))
        disabled = factories.make_subscription(self.plan, now=now).connection
        people.set_enabled(disabled, enabled=False, now=now)
        self.customers.append(disabled)

    def report(self, line: dict[str, Any]) -> usage.Report:
        return usage.Report(
            request_id=line["id"],
            connection=self.customers[line["customer"]].pk
            if line["customer"] is not None
            else ids.new(sandbox=True),
            meter_slug=line["meter"],
            meter=None,
            usage=pricing.Usage(**line["used"]),
            model="",
            metadata=line["metadata"],
            timestamp=line["at"],
            enforce=line["enforce"],
        )

    def singles(self, lines: list[dict[str, Any]]) -> list[Any]:
        answers: dict[int, Any] = {}
        for place in sorted(range(len(lines)), key=lambda n: (lines[n]["id"], n)):
            try:
                told = self.report(lines[place])
                answers[place] = usage.report(self.key, sandbox=True, told=told)
            except errors.LavaError as error:
                answers[place] = error
        return [self.said(answers[place]) for place in range(len(lines))]

    def batch(self, lines: list[dict[str, Any]]) -> list[Any]:
        told = [self.report(line) for line in lines]
        return [self.said(row) for row in batch.report(self.key, sandbox=True, told=told)]

    def said(self, answer: Any) -> Any:
        """An answer without what no two merchants share."""
        if isinstance(answer, errors.LavaError):
            return (answer.code, answer.message, answer.details.get("available"))
        row = answer.request
        grants = self.grants()
        return {
            **row._asdict(),
            "pk": None, "merchant_id": None, "created_at": None,
            "connection_id": self.place(row.connection_id),
            "meter_id": answer.price,
            "draws": [(grants.get(grant), amount) for grant, amount in row.draws],
            "timestamp": None,
            "currency": answer.currency,
            "replayed": answer.replayed,
        }  # fmt: skip

    def place(self, connection: Any) -> int:
        return [customer.pk for customer in self.customers].index(connection)

    def grants(self) -> dict[str | None, int]:
        rows = CreditGrant.objects.filter(merchant=self.merchant).order_by("pk")
        return {str(row.pk): number for number, row in enumerate(rows)}

    def state(self) -> list[Any]:
        """Everything that was written, without ids."""
        grants = self.grants()
        lines = LedgerEntry.objects.filter(merchant=self.merchant).order_by("connection", "seq")
        heads = Connection.objects.filter(merchant=self.merchant).order_by("pk")
        places = MeterPosition.objects.filter(connection__merchant=self.merchant)
        rows = UsageRequest.objects.filter(merchant=self.merchant).order_by("request_id")
        return [
            [
                (self.place(line.connection_id), line.seq, line.kind, line.amount,
                 line.balance_after, grants.get(str(line.grant_id)))
                for line in lines
            ],
            [
                (row.balance, row.debt, row.cycle_overage, row.entry_count,
                 row.depleted_at is None, row.low_at is None)
                for row in heads
            ],
            [row.remaining for row in CreditGrant.objects.filter(
                merchant=self.merchant).order_by("pk")],
            sorted(
                (self.place(row.connection_id), row.meter.slug, row.window, row.quantity, row.peak)
                for row in places.select_related("meter")
            ),
            [
                (row.request_id, row.quantity, row.position_before, row.peak_before, row.late)
                for row in rows
            ],
        ]  # fmt: skip


def some_lines(dice: random.Random, now: Any) -> list[dict[str, Any]]:
    """Lines of every kind: plain, enforced, twice, with another body, late, wrong."""
    enforces = dice.random() < 0.5
    lines: list[dict[str, Any]] = []
    for _ in range(dice.randint(1, 40)):
        if lines and dice.random() < 0.15:
            again = dict(dice.choice(lines))
            if dice.random() < 0.3:
                again["used"] = {"input_tokens": 12345}
            if dice.random() < 0.1:
                again["customer"] = dice.randrange(3)
            lines.append(again)
            continue
        used: dict[str, Any] = {
            "input_tokens": dice.choice([0, 1, 7, 100_000, 333_333]),
            "output_tokens": dice.choice([0, 3, 50_000]),
            "input_characters": dice.choice([0, 250, 999]),
            "input_seconds": dice.choice([Decimal(0), Decimal("30.5"), Decimal(90)]),
        }
        if dice.random() < 0.5:
            used["provider_cost"] = Decimal(dice.choice(["0", "0.0123456789", "1.5"]))
        odd = dice.random()
        lines.append({
            "id": f"r{dice.randrange(10_000)}",
            "customer": dice.choice([0, 0, 0, 1, 1, 2, 2, 3, 4, None]),
            "meter": dice.choice(
                ["flat", "flat", "tiers", "cycle", "flats", "free", "kinds", "cost", "off-plan",
                 "none"]
            ),
            "used": used,
            "metadata": dice.choice([{}, {"team": "a"}]),
            "at": now - timedelta(days=dice.choice([1, 29, 31])) if odd < 0.15
            else now + timedelta(minutes=dice.choice([2, 9])) if odd < 0.25 else None,
            "enforce": enforces and dice.random() < 0.2,
        })  # fmt: skip
    return lines


@pytest.mark.parametrize("seed", range(8))
def test_a_batch_is_its_lines_one_by_one(seed: int) -> None:
    dice = random.Random(seed)
    now = timezone.now()
    # No verb makes a grant that begins later, and the audit knows none.
    strange = seed % 2 == 1
    one, other = (Books(random.Random(seed), now, begun_later=strange) for _ in range(2))
    for _ in range(3):
        lines = some_lines(dice, now)
        assert one.batch(lines) == other.singles(lines)
        assert one.state() == other.state()
        # A draw out of a void: the next lines begin where the peak stood.
        done = UsageRequest.objects.filter(merchant=one.merchant, status="completed")
        names = sorted(done.values_list("request_id", flat=True))
        for name in names[: dice.randint(0, 2)]:
            for books in (one, other):
                row = UsageRequest.objects.get(merchant=books.merchant, request_id=name)
                usage.void(row, reason="x", actor="Ana", now=now)
    with database.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    for rule in () if strange else (*billing.audit.RULES, *meters.audit.RULES):
        assert rule.rows() == [], rule.name


def test_a_sum_past_twelve_digits_is_refused_and_spoils_no_other() -> None:
    dice, now = random.Random(0), timezone.now()
    one, other = (Books(random.Random(0), now) for _ in range(2))
    line = {**some_lines(dice, now)[0], "customer": 0, "meter": "flat", "at": None}
    line |= {"enforce": False, "metadata": {}}
    most = {"input_tokens": 999_999_999_999, "output_tokens": 999_999_999_999}
    dear = Decimal("999999999998.9999999999")
    lines = [
        line | {"id": "a", "meter": "cost", "used": {"provider_cost": Decimal("600000000000")}},
        line | {"id": "b", "meter": "cost", "used": {"provider_cost": Decimal("600000000000")}},
        line | {"id": "c", "meter": "cost", "used": {"provider_cost": dear}},
        line | {"id": "d", "used": most},
        line | {"id": "e", "used": {"input_tokens": 1}, "customer": 1},
    ]
    said = one.batch(lines)
    assert said == other.singles(lines) and one.state() == other.state()
    assert [row[0] if isinstance(row, tuple) else "" for row in said] == [
        "", "amount_too_large", "amount_too_large", "", "",
    ]  # fmt: skip
