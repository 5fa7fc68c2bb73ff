"""`manage.py reconcile [--json] [--mend] [--days N] [--merchant mer_...]`

Our payments, refunds and disputes against the card network's list.

Silent, and exit status 0, when both agree; otherwise each gap with its mend, and exit status 1.
`--mend` settles what the network has and we have not, flags what only a person can mend, and looks
again: the exit status says what is left.
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from datetime import datetime, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db.models import Q
from django.utils import timezone
from moneyed import Money

from billing import errors, ids, money, reconcile
from billing.models import Merchant, Payment, Plan
from billing.reconcile import Gap
from lava import reconciling


class Command(BaseCommand):
    help = "Check payments and refunds against the card network; silent when both agree."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="the gaps as JSON")
        parser.add_argument("--mend", action="store_true", help="settle or flag each gap")
        parser.add_argument("--days", type=int, default=0, help="only the last N days (all)")
        parser.add_argument("--merchant", default="", help="one merchant's books, mer_...")

    def handle(self, *args: Any, **options: Any) -> None:
        since = timezone.now() - timedelta(days=options["days"]) if options["days"] else None
        found: list[Gap] = []
        unreached: list[str] = []
        for merchant in _merchants(options["merchant"]):
            try:
                gaps = list(reconcile.gaps(merchant, since=since))
                if options["mend"] and gaps:
                    gaps = self._mend(merchant, gaps, since)
                found += gaps
            except errors.LavaError as error:
                if error.code == "cards_not_set_up" and not Payment.objects.of(merchant).exists():
                    continue
                unreached.append(f"{merchant}: {error.message}")
        if options["json"]:
            self.stdout.write(
                json.dumps({"gaps": [_row(gap) for gap in found], "unreached": unreached}, indent=2)
            )
        else:
            for gap in found:
                self._show(gap)
            for line in unreached:
                self.stdout.write(f"UNREACHED {line}")
        if found or unreached:
            sys.exit(1)

    def _mend(self, merchant: Merchant, gaps: list[Gap], since: datetime | None) -> list[Gap]:
        """Mend each gap, and look again. In the order they were made: what a card paid of a debt
        comes before the credits that would pay it too."""
        for gap in sorted(gaps, key=lambda gap: gap.ours):
            try:
                done = reconciling.mend(gap)
            except errors.LavaError as error:
                self.stderr.write(f"not mended, {gap.kind} {gap.ours or gap.theirs}: {error}")
                continue
            word = "mended" if done else "left"
            self.stderr.write(f"{word}, {gap.kind} {gap.ours or gap.theirs}: {gap.mend}")
        return list(reconcile.gaps(merchant, since=since))

    def _show(self, gap: Gap) -> None:
        self.stdout.write(f"GAP {gap.kind}: {gap.sentence}")
        sides = f"ours {gap.ours or 'none'} {_shown(gap.our_amount)}".rstrip()
        sides += f", theirs {gap.theirs or 'none'} {_shown(gap.their_amount)}".rstrip()
        self.stdout.write(f"  {gap.merchant}: {sides}. Mend: {gap.mend}.")


def _merchants(named: str) -> list[Merchant]:
    """The books to check: one, or all that have payments, or plans to be paid for: books restored
    to their first days may have lost every payment."""
    rows = Merchant.objects.select_related("organization")
    if named:
        try:
            rows = rows.filter(pk=ids.parse("mer", named))
        except errors.NotFound as error:
            raise CommandError(f"There is no merchant {named}.") from error
        if not rows:
            raise CommandError(f"There is no merchant {named}.")
        return list(rows)
    paid, sells = Payment.objects.values("merchant"), Plan.objects.values("merchant")
    return list(rows.filter(Q(pk__in=paid) | Q(pk__in=sells)).order_by("pk"))


def _shown(amount: Money | None) -> str:
    return money.show(amount) if amount is not None else ""


def _row(gap: Gap) -> dict[str, Any]:
    either = gap.their_amount or gap.our_amount
    return {
        "kind": gap.kind,
        "sentence": gap.sentence,
        "mend": gap.mend,
        "merchant": gap.merchant.public_id,
        "ours": gap.ours,
        "theirs": gap.theirs,
        "our_amount": str(gap.our_amount.amount) if gap.our_amount else None,
        "their_amount": str(gap.their_amount.amount) if gap.their_amount else None,
        "currency": str(either.currency) if either else None,
    }
