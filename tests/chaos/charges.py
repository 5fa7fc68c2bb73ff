"""Card operations without end, made up from a seed, over a network that misbehaves in some of them.

`manage.py charges --count 10000` makes them, in a database and with a card network (real HTTP) of
its own, and prints what both sides say was paid; tests/chaos makes a few hundred. Customers buy at
the page, overage is collected, bundles are topped up, plans renew, money goes back; a card declines
now and then, answers are lost before and after the money moved, events come twice and backwards.
At the end the payments and refunds of both sides must be the same, each by its id, to the cent.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from io import StringIO
from pathlib import Path
from unittest import mock

if __name__ == "__main__":
    import os

    import django

    os.environ["CELERY_BROKER_URL"] = "memory://"
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "lava.settings")
    django.setup()

from django.core.management import call_command
from django.utils import timezone
from moneyed import Money

from billing import (
    clock,
    deliveries,
    errors,
    money,
    overage,
    payments,
    refunds,
    renewals,
    sweep,
    topups,
)
from billing.models import Connection, Payment, Refund
from lava.demo.card_network.process import CardNetwork
from tests import card_network as cn
from tests import factories

CUSTOMERS = 12
# What befalls a call: its answer or itself is lost, the network breaks before or after the money
# moved, it is at it already, it has enough.
FAULTS = (
    {"action": "drop"},
    {"action": "drop_before"},
    {"action": "error", "status": 500},
    {"action": "error_after", "status": 502},
    {"action": "in_use"},
    {"action": "error", "status": 429},
)
Listed = list[tuple[str, int, str]]


@dataclass
class Report:
    """What came of it. `theirs` and `ours`: what was paid, and given back, by each side's books."""

    seed: int
    seconds: float = 0
    operations: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    declined: int = 0
    theirs: tuple[Listed, Listed] = ([], [])
    ours: tuple[Listed, Listed] = ([], [])
    open: int = 0
    quarrels: str = ""

    @property
    def is_clean(self) -> bool:
        return self.theirs == self.ours and not self.open and not self.quarrels

    def lines(self) -> Iterator[str]:
        """For people."""
        count, struck = self.operations.total(), self.faults.total()
        yield f"operations    {count:,} in {self.seconds:.0f} s, seed {self.seed}"
        yield f"              {_told(self.operations)}"
        yield f"faults        {struck:,}, {struck / max(count, 1):.1%} ({_told(self.faults)})"
        yield f"declined      {self.declined:,}"
        for place, what in enumerate(("paid", "given back")):
            for side, books in (("network", self.theirs[place]), ("books", self.ours[place])):
                total = Decimal(sum(amount for _, amount, _ in books)).scaleb(-2)
                yield f"{f'{what}, {side}':<22}{len(books):>8,} {total:>14,.2f}"
            differ = sorted(set(self.theirs[place]) ^ set(self.ours[place]))
            yield f"{f'{what}, difference':<22}{len(differ):>8,} {differ[:3] or ''}"
        yield f"open          {self.open}"
        yield f"audit         {self.quarrels or 'silent'}"


def _told(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.most_common())


class Till:
    """A merchant's sandbox with some customers, and what happens at it."""

    def __init__(self, network: CardNetwork, *, seed: int, faults: float) -> None:
        self.network, self.rate = network, faults
        self.dice = random.Random(seed)
        self.report = Report(seed)
        self.shop = cn.Shop(overage_threshold=Decimal(5))
        self.bundle = factories.make_bundle(self.shop.plan, cost="9.99", credit="10")
        self.customers = [self.shop.subscribe() for _ in range(CUSTOMERS)]
        for connection in self.customers[::3]:
            topups.configure(
                connection.subscription, bundle=self.bundle, threshold=Decimal(3), now=self.shop.now
            )

    def play(self, count: int) -> Report:
        """Make at least so many operations, let all come to rest, and compare."""
        start = time.monotonic()
        acts: dict[str, tuple[int, Callable[[], None]]] = {
            "purchases": (40, self.buy),
            "uses": (35, self.use),
            "refunds": (15, self.refund),
            "months": (1, self.month),
            "looks": (8, self.look),
            "events": (0.2, self.hear),
        }
        weights = [weight for weight, _ in acts.values()]
        while self.report.operations.total() < count:
            _, act = acts[self.dice.choices(list(acts), weights)[0]]
            act()
        self.rest()
        self.compare()
        self.report.seconds = time.monotonic() - start
        return self.report

    # What happens

    def buy(self) -> None:
        """A customer buys at the page, and presses again when it says to try again."""
        connection, quantity = self.customer(), self.dice.randrange(1, 5)
        payment = payments.intend(
            connection,
            purpose=Payment.Purpose.BUNDLE,
            amount=Money(self.bundle.cost.amount * quantity, connection.currency),
            bundle=self.bundle,
            quantity=quantity,
            key=f"buy:{self.report.operations.total()}",
            now=self.shop.now,
        )

        def press() -> Payment:
            for _ in range(4):
                try:
                    return payments.confirm(
                        payment, card_id=connection.card.card_id, now=self.shop.now
                    )
                except (errors.CardUnknown, errors.Unavailable):
                    payment.refresh_from_db()
            return payment

        self.operate("purchases", connection, press)

    def use(self) -> None:
        """Usage; what it makes due is charged: a top-up, or what is owed."""
        connection = self.customer()
        name = f"use-{self.report.operations.total()}-{self.dice.random()}"
        self.shop.use(connection, name, str(Decimal(self.dice.randrange(400, 2500)).scaleb(-2)))
        self.operate("top-ups", connection, lambda: topups.top_up(connection.pk, now=self.shop.now))
        self.operate(
            "overage", connection, lambda: overage.collect(connection.pk, now=self.shop.now)
        )

    def refund(self) -> None:
        """Some of a payment, or what is unspent of it, goes back."""
        paid = Payment.objects.filter(status=Payment.Status.SUCCEEDED).order_by("pk")
        payment = paid[self.dice.randrange(paid.count())]
        some = Money(Decimal(self.dice.randrange(1, 400)).scaleb(-2), payment.amount.currency)
        amount = some if self.dice.random() < 0.7 else None
        key = f"refund:{self.report.operations.total()}"

        def give_back() -> Refund | None:
            try:
                return refunds.refund(
                    payment, amount=amount, reason="not wanted", actor="charges", key=key,
                    force=True, now=self.shop.now,
                )  # fmt: skip
            except (errors.Invalid, errors.Refused):
                # All of it went back before.
                return None

        self.operate("refunds", payment.connection, give_back, path="/v1/refunds*")

    def month(self) -> None:
        """A month passes: each plan renews."""
        merchant = self.shop.merchant
        clock.advance(merchant, to=self.shop.now + timedelta(days=32), run=False)
        for key in sweep.renewals_due(self.shop.now - merchant.clock_offset, merchant):
            connection = Connection.objects.get(subscriptions__pk=key)
            self.operate(
                "renewals", connection, lambda key=key: renewals.renew(key, now=self.shop.now)
            )

    def look(self) -> None:
        """What workers do: ask about what has no answer, then what is due."""
        later = timezone.now() + timedelta(minutes=2)
        for key in sweep.payments_open(later, self.shop.merchant):
            payments.refresh(Payment.objects.get(pk=key), now=self.shop.now)
        for key in sweep.refunds_open(later, self.shop.merchant):
            refunds.refresh(Refund.objects.get(pk=key), now=self.shop.now)

    def hear(self) -> None:
        """The network's newest events, backwards and twice."""
        rows = cn.at_network(self.shop.merchant, "events")[:40]
        for turn in range(2):
            for row in rows:
                name = f"{row['id']}_{turn}"
                cn.deliver(*cn.signed(row["type"], row["data"]["object"], name=name))

    # How

    def customer(self) -> Connection:
        return Connection.objects.select_related("merchant__organization", "customer").get(
            pk=self.dice.choice(self.customers).pk
        )

    def operate(
        self,
        kind: str,
        connection: Connection,
        act: Callable[[], Payment | Refund | None],
        *,
        path: str = "/v1/payment_intents*",
    ) -> None:
        """One operation, with a fault or a declining card by the dice; none, where nothing was due.
        A fault counts when it struck."""
        fault = self.dice.choice(FAULTS) if self.dice.random() < self.rate else None
        declines = self.dice.random() < 0.04
        if fault:
            self.network.control("faults", fault | {"method": "POST", "path": path})
        if declines:
            cn.behave_as(self.network, connection, cn.DECLINES_LATER)
        made = act()
        if declines:
            cn.behave_as(self.network, connection, cn.GOOD)
        if made is not None:
            self.report.operations[kind] += 1
        if fault and not self.network.control("faults")["data"]:
            self.report.faults[str(fault["action"])] += 1
        elif fault:
            self.network.control("faults", method="DELETE")

    # At the end

    def rest(self) -> None:
        """Ask about all that is open, until nothing is; a page that was left stays unpaid."""
        for _ in range(10):
            self.look()
            rows = Payment.objects.filter(status__in=Payment.OPEN)
            for payment in rows.exclude(intent_id=""):
                payments.refresh(payment, now=self.shop.now)
            sweep.run(self.shop.merchant, now=self.shop.now)
        # A charge of a cycle that is over, whose call was lost, is not made again: it waits until
        # the network has forgotten its key, a day of real time, and ends as one that never arrived.
        with mock.patch.object(payments, "KEY_MEMORY", timedelta(0)):
            self.look()
        # Nobody delivers here; a run of hours would leave its events waiting past their time.
        while deliveries.tell(self.shop.merchant.pk, now=timezone.now()) is not None:
            pass
        unclear = Payment.objects.filter(status__in=Payment.OPEN, off_session=True).count()
        self.report.open = unclear + Refund.objects.filter(status__in=Refund.OPEN).count()

    def compare(self) -> None:
        """Both sides' payments and refunds, and every rule of the audit."""
        merchant, report = self.shop.merchant, self.report
        report.declined = Payment.objects.filter(status=Payment.Status.FAILED).count()
        back = Refund.objects.filter(status=Refund.Status.SUCCEEDED).select_related("payment")
        ours = sorted(
            (row.payment.intent_id, money.to_minor(row.amount), str(row.amount.currency))
            for row in back
        )
        report.theirs = (cn.taken(merchant), cn.given_back(merchant))
        report.ours = (cn.ours(merchant), ours)
        out = StringIO()
        for command in ("audit", "reconcile"):
            try:
                call_command(command, stdout=out, stderr=out)
            except SystemExit:
                pass
        report.quarrels = out.getvalue()[:2000]


def main() -> int:
    from lava.demo.sim.world import apart

    parser = argparse.ArgumentParser(prog="manage.py charges", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--faults", type=float, default=10, help="of a hundred operations (10)")
    parser.add_argument("--seed", type=int, default=1)
    words = parser.parse_args()
    logging.disable(logging.CRITICAL)
    with (
        apart(),
        tempfile.TemporaryDirectory() as folder,
        CardNetwork(Path(folder) / "network.sqlite") as network,
        cn.reached(network),
    ):
        till = Till(network, seed=words.seed, faults=words.faults / 100)
        report = till.play(words.count)
    sys.stdout.write("\n".join(report.lines()) + "\n")
    return 0 if report.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
