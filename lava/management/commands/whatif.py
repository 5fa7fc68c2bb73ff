"""`manage.py whatif <plan id> [--price 30 ...] [--json]`: a draft of a plan on real past usage.

The plan with the terms that are named changed, beside the plan as it is: revenue, margin, who pays
more, the worst bill, who runs out (`meters.replay_plans` has the rules). Reads only.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError

from billing import errors, money, plans
from billing.models import Connection, Merchant, Plan
from meters import replay_plans
from meters.models import Meter
from meters.replay_plans import Bill, Comparison, Offer, Side

# Customers who pay more that are listed.
SHOWN = 20
_AMOUNTS = ("price", "included_credit", "rollover_cap", "overage_threshold", "overage_cap")
_CHOICES = ("billing_interval", "rollover_type", "bundle_rollover_type", "when_depleted")


class Command(BaseCommand):
    help = "Try other terms of a plan on what its customers really used. Nothing is written."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("plan", help="e.g. sc_test_01J8Z...")
        for name in _AMOUNTS:
            blank = ", or none" if name.endswith("_cap") else ""
            parser.add_argument(_flag(name), metavar="AMOUNT", help=f"e.g. 25.00{blank}")
        for name in _CHOICES:
            parser.add_argument(_flag(name), metavar="CHOICE", help="as the API names it")
        parser.add_argument("--meters", help="slugs, with commas between (those of the plan)")
        parser.add_argument(
            "--bundle",
            action="append",
            default=[],
            metavar="ID=COST:CREDIT",
            help="another cost and credit of a bundle; ID=none offers it no more",
        )
        parser.add_argument(
            "--connection", action="append", help="only this customer (all of the plan)"
        )
        parser.add_argument("--months", type=int, default=1, help="how far back, 1 to 12 (1)")
        parser.add_argument("--json", action="store_true", help="the same as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        if not 1 <= options["months"] <= 12:
            raise CommandError("--months is a number from 1 to 12.")
        try:
            plan = Plan.objects.select_related("merchant").by_public_id(options["plan"])
            draft = _draft(plan, options)
            people = options["connection"] and [
                _connection(plan, key) for key in options["connection"]
            ]
            found = replay_plans.compare(
                plan.merchant,
                draft,
                months=options["months"],
                now=plan.merchant.now(),
                plan=plan,
                people=people,
            )
        except errors.LavaError as error:
            raise CommandError(error.message) from error
        if options["json"]:
            self.stdout.write(json.dumps(as_json(plan.merchant, found), indent=2))
        else:
            self._show(plan, found)

    def _show(self, plan: Plan, found: Comparison) -> None:
        currency, today, draft = plan.currency, found.today, found.draft

        def line(name: str, before: str, after: str) -> None:
            self.stdout.write(f"{name:<18}{before:>16}{after:>16}")

        count = len(found.pairs)
        self.stdout.write(
            f"{plan.name}, {count:,} customer{'' if count == 1 else 's'}, "
            f"{found.since:%Y-%m-%d %H:%M} to {found.until:%Y-%m-%d %H:%M}. Nothing is charged."
        )
        if found.left_out:
            self.stdout.write(f"{found.left_out:,} customers who came later are left out.")
        if found.joined:
            self.stdout.write(f"{found.joined:,} joined within it and count from then on.")
        line("", "today", "draft")
        for name in ("revenue", "price", "overage", "bundles", "served", "cost"):
            line(
                {"served": "usage served", "cost": "provider cost"}.get(name, name),
                money.display(getattr(today, name), currency),
                money.display(getattr(draft, name), currency),
            )
        line("margin", _percent(today.margin), _percent(draft.margin))
        line("run out", f"{today.run_out:,}", f"{draft.run_out:,}")
        line("refused requests", f"{today.refused:,}", f"{draft.refused:,}")
        line("worst bill", _worst(today, currency), _worst(draft, currency))
        rises = found.rises
        self.stdout.write(f"{len(rises):,} pay more, {found.falls:,} pay less.")
        for before, after in rises[:SHOWN]:
            name = _name(plan.merchant, before)
            rise = money.display(after.total - before.total, currency, sign=True)
            self.stdout.write(f"  {name}  {money.display(after.total, currency)}  {rise}")
        if draft.without_cost:
            self.stdout.write(
                f"{money.display(draft.without_cost, currency)} of it came without a provider's "
                "cost, which counts as 0."
            )


def as_json(merchant: Merchant, found: Comparison) -> dict[str, Any]:
    """All figures, amounts as text."""
    return {
        "since": found.since.isoformat(),
        "until": found.until.isoformat(),
        "customers_left_out": found.left_out,
        "joined_within": found.joined,
        "today": _side(found.today),
        "draft": _side(found.draft),
        "pay_more": len(found.rises),
        "pay_less": found.falls,
        "customers": [
            {
                "connection": _name(merchant, today),
                "today": _bill(today),
                "draft": _bill(draft),
            }
            for today, draft in found.pairs
        ],
    }


def _side(side: Side) -> dict[str, Any]:
    amounts = ("revenue", "price", "overage", "bundles", "served", "cost", "without_cost")
    found: dict[str, Any] = {name: money.wire(getattr(side, name)) for name in amounts}
    found["margin_percent"] = None if side.margin is None else f"{side.margin:.4f}"
    for name in ("requests", "refused", "run_out"):
        found[name] = getattr(side, name)
    found["worst_bill"] = money.wire(side.worst.total) if side.worst else None
    return found


def _bill(bill: Bill) -> dict[str, Any]:
    amounts = ("total", "price", "overage", "bundles", "served", "cost", "left", "owed")
    found: dict[str, Any] = {name: money.wire(getattr(bill, name)) for name in amounts}
    return found | {"refused": bill.refused, "runs_out": bill.runs_out}


def _draft(plan: Plan, options: dict[str, Any]) -> Offer:
    offer = replay_plans.of(plan)
    changed: dict[str, Any] = {
        name: options[name] for name in _CHOICES if options[name] is not None
    }
    for name in _AMOUNTS:
        text = options[name]
        if text is not None:
            cleared = name.endswith("_cap") and text == "none"
            changed[name] = None if cleared else money.parse_amount(text, param=name)
    terms = plans.Terms(**(plans.as_fields(offer.terms) | changed))
    meters = offer.meters
    if options["meters"] is not None:
        slugs = {slug.strip() for slug in options["meters"].split(",") if slug.strip()}
        rows = dict(
            Meter.objects.of(plan.merchant).filter(slug__in=slugs).values_list("slug", "pk")
        )
        if slugs - rows.keys():
            raise CommandError(f"There is no meter {', '.join(sorted(slugs - rows.keys()))}.")
        meters = frozenset(rows.values())
    bundles = dict(offer.bundles)
    for text in options["bundle"]:
        key, _, rest = text.partition("=")
        cost, colon, credit = rest.partition(":")
        pk = plan.live_bundles.by_public_id(key).pk
        if rest == "none":
            del bundles[pk]
        elif colon:
            bundles[pk] = (
                money.parse_amount(cost, param="bundle"),
                money.parse_amount(credit, param="bundle"),
            )
        else:
            raise CommandError("Write --bundle as ID=COST:CREDIT or ID=none.")
    return replace(offer, terms=terms, meters=meters, bundles=bundles)


def _name(merchant: Merchant, bill: Bill) -> str:
    return Connection(pk=bill.connection_id, merchant=merchant).public_id


def _connection(plan: Plan, key: str) -> UUID:
    found: UUID = Connection.objects.of(plan.merchant).by_public_id(key).pk
    return found


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _percent(share: Decimal | None) -> str:
    return "unknown" if share is None else f"{share:.1f} %"


def _worst(side: Side, currency: str) -> str:
    return money.display(side.worst.total, currency) if side.worst else "none"
