"""One customer, played in the product and in the model: each method does a thing with both.

`check` compares all the database says with all the model says.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from unittest import mock

from django.db import connection as database
from django.db import transaction
from moneyed import Money

from billing import (
    cards,
    closing,
    connections,
    credits,
    errors,
    failpoints,
    ledger,
    overage,
    payments,
    renewals,
    subscriptions,
    sweep,
)
from billing.models import Connection, Payment, Subscription
from billing.settlement import save_card
from billing.stripe import Card
from lava.demo.sim.life import Life
from lava.demo.sim.network import DECLINES, DROPPED, GOOD, LOST
from lava.demo.sim.terms import Terms
from lava.demo.sim.world import Disagreement, World, instant, money, ticks
from meters import pricing, usage

_SNAPSHOT = """
    SELECT c.balance, c.debt, c.collecting, c.cycle_overage, c.overage_attempts,
           c.overage_next_attempt_at,
           (SELECT coalesce(json_agg(json_build_array(
                       g.origin_at, g.pool, g.source, g.amount::text, g.remaining::text,
                       g.effective_at, g.expires_at)), '[]')
              FROM billing_creditgrant g WHERE g.connection_id = c.id),
           (SELECT json_build_array(s.status, s.cycle_index, s.cycle_start, s.cycle_end,
                                    s.pending_change IS NOT NULL, s.attempts, s.next_attempt_at)
              FROM billing_subscription s
             WHERE s.connection_id = c.id AND s.status IN ('active', 'past_due')),
           (SELECT coalesce(json_agg(p.quantity::text), '[]') FROM meters_meterposition p
             WHERE p.connection_id = c.id),
           (SELECT coalesce(sum(r.charged), 0) FROM meters_usagerequest r
             WHERE r.connection_id = c.id),
           (SELECT count(*) FROM meters_void v JOIN meters_usagerequest r ON r.id = v.request_id
             WHERE r.connection_id = c.id)
      FROM billing_connection c WHERE c.id = %s
"""


class Died(BaseException):
    """As if the process was killed here."""


class Twin:
    """One customer, in the product (`connection`) and in the model (`life`)."""

    def __init__(self, world: World, terms: Terms, *, number: int) -> None:
        self.world = world
        self.life = Life(terms)
        self.plan, self.bundle, self.meter = world.offer(terms)
        now = world.tick()
        self.connection = connections.identify(world.merchant, phone=f"+1415{number:07d}", now=now)
        with transaction.atomic():
            locked = ledger.lock(self.connection.pk)
            subscriptions.activate(locked, now=now)
            save_card(locked, Card(GOOD, "visa", "4242", 12, 2040), now=now)
        self.rows: list[usage.Stored] = []
        self.customer = cards.customer_id(self.connection)
        self._reload()

    def _reload(self) -> None:
        self.connection = Connection.objects.select_related(
            "merchant__organization", "customer"
        ).get(pk=self.connection.pk)

    # What can happen

    def subscribe(self) -> bool:
        """Take the plan, paid at the page where it has a price."""
        now = self.world.tick()
        terms = self.life.terms
        if terms.price == 0:
            subscriptions.open(self.connection, plan=self.plan, now=now)
            self.life.subscribe(now)
            return True
        paid = self._at_the_page(
            Payment.Purpose.SUBSCRIPTION, self.plan.price, now=now, plan=self.plan
        )
        if paid:
            self.life.subscribe(now, paid=True)
        self._agree("paid", paid, self.life.card)
        return paid

    def buy(self, quantity: int = 1) -> bool:
        now = self.world.tick()
        price = Money(self.bundle.cost.amount * quantity, self.connection.currency)
        paid = self._at_the_page(
            Payment.Purpose.BUNDLE, price, now=now, bundle=self.bundle, quantity=quantity
        )
        self._agree("paid", paid, self.life.buy(now, quantity))
        return paid

    def _at_the_page(self, purpose: str, amount: Money, *, now: datetime, **terms: Any) -> bool:
        payment = payments.intend(
            self.connection,
            purpose=purpose,
            amount=amount,
            key=f"page:{secrets.token_hex(8)}",
            now=now,
            **terms,
        )
        payment = payments.confirm(payment, card_id=GOOD if self.life.card else DECLINES, now=now)
        if payment.status == Payment.Status.SUCCEEDED:
            return True
        self.connection.payments.filter(pk=payment.pk).update(status=Payment.Status.CANCELLED)
        return False

    def use(self, tokens: int, *, ago: timedelta = timedelta(0), enforce: bool = False) -> bool:
        """Report usage; False when it was refused. A charge over the threshold is collected."""
        now = self.world.tick()
        happened = now - ago
        told = usage.Report(
            request_id=f"{self.connection.public_id}:{len(self.life.requests)}:{secrets.token_hex(4)}",
            connection=self.connection.pk,
            meter_slug=self.meter.slug,
            meter=None,
            usage=pricing.Usage(input_tokens=tokens),
            model="",
            metadata={},
            timestamp=happened if ago else None,
            enforce=enforce,
        )
        expected = self.life.use(tokens, now, happened=happened, enforce=enforce)
        try:
            charged = usage.report(self.world.key, sandbox=True, told=told)
        except (errors.PaymentRequired, errors.Forbidden) as refusal:
            self._agree("refused", refusal.code, refusal.code if expected is None else None)
            return False
        if expected is None:
            raise Disagreement(f"charged {charged.request.fee}, and the model refuses")
        row = charged.request
        self._agree("fee", ticks(row.fee), expected.fee)
        self._agree("late", row.late, expected.late)
        self._agree(
            "draws",
            [(grant is None, ticks(Decimal(part))) for grant, part in row.draws],
            [(lot is None, part) for lot, part in expected.draws],
        )
        again = usage.report(self.world.key, sandbox=True, told=told)
        self._agree("replay", (again.replayed, again.request.pk), (True, row.pk))
        self.rows.append(row)
        self.collect(now)
        return True

    def void(self, place: int) -> None:
        """Take back a request, perhaps for the second time."""
        if not self.rows:
            return
        now = self.world.tick()
        place %= len(self.rows)
        expected = self.life.void(self.life.requests[place], now)
        try:
            usage.void(self.rows[place], reason="wrong", actor="simulator", now=now)
        except errors.Conflict as refusal:
            self._agree("void", refusal.code, "cycle_settled" if not expected else None)
        else:
            self._agree("void", True, expected)

    def give(self, amount: int) -> None:
        now = self.world.tick()
        with transaction.atomic():
            locked = ledger.lock(self.connection.pk)
            credits.give(locked, amount=money(amount), reason="gift", actor="simulator", now=now)
        self.life.give(amount, now)

    def take(self, amount: int) -> bool:
        now = self.world.tick()
        expected = self.life.take(amount, now)
        try:
            with transaction.atomic():
                locked = ledger.lock(self.connection.pk)
                credits.take(
                    locked, amount=money(amount), reason="slip", actor="simulator", now=now
                )
        except errors.Refused:
            # Refused, and rolled back whole; the ends it found are entered by the next look.
            with transaction.atomic():
                credits.expire(ledger.lock(self.connection.pk), now=now)
            self._agree("taken", False, expected)
            return False
        self._agree("taken", True, expected)
        return True

    def set_card(self, good: bool) -> None:
        """From now on the card pays, or is refused."""
        self.life.card = good
        declining = self.world.network.declining
        declining.discard(self.customer) if good else declining.add(self.customer)

    def silence(self, fault: str) -> None:
        """The next off-session charge gets no answer."""
        self.life.fault = fault
        self.world.network.faults[self.customer] = fault

    def hear(self) -> None:
        """The network answers again."""
        self.life.fault = None
        self.world.network.faults.pop(self.customer, None)

    def collect(self, now: datetime | None = None) -> None:
        now = now or self.world.tick()
        try:
            overage.collect(self.connection.pk, now=now)
        except Died:
            pass
        self.life.collect(now)

    def use_and_die(self, tokens: int, place: str) -> None:
        """Report usage; the process that collects what is then owed dies at a place of
        `billing.failpoints.CHARGE`. To the model that is a call that was lost, or an answer."""

        def at(passed: str) -> None:
            if passed == f"overage.{place}":
                raise Died

        self.life.fault = {"intended": LOST, "settled": None}.get(place, DROPPED)
        with mock.patch.object(failpoints, "at", at):
            self.use(tokens)
        self.life.fault = None

    def echo(self, dice: random.Random) -> None:
        """Every event of the network about this customer's charges, twice and in any order; those
        of charges without an answer in the order in which they were made. Then what had no event is
        asked about."""
        now = self.world.tick()
        known = [
            row
            for row in Payment.objects.filter(connection=self.connection, off_session=True)
            if row.public_id in self.world.network.by_payment
        ]
        over = [row for row in known if not row.is_open] * 2
        dice.shuffle(over)
        for row in over + self._as_made(row for row in known if row.is_open) * 2:
            intent = self.world.network.intents[self.world.network.by_payment[row.public_id]]
            payments.settle(Payment.objects.get(pk=row.pk), intent, now=now)
        self.ask(now)

    def _as_made(self, rows: Iterable[Payment]) -> list[Payment]:
        return sorted(rows, key=lambda row: list(self.life.open).index(row.purpose))

    def ask(self, now: datetime | None = None) -> None:
        """Ask the network about the charges that had no answer."""
        now = now or self.world.tick()
        rows = Payment.objects.filter(
            connection=self.connection, status__in=Payment.OPEN, off_session=True
        )
        for payment in self._as_made(rows):
            payments.refresh(payment, now=now)
        self.life.ask(now)

    def cancel(self) -> None:
        if self.life.current is not None:
            now = self.world.tick()
            subscriptions.cancel(self.connection.subscription, now=now)  # type: ignore[arg-type]
            self.life.cancel(now)

    def resume(self) -> None:
        found = self.life.current
        if found is not None and found.cancels and found.end > self.world.now:
            now = self.world.tick()
            if found.end > now:
                subscriptions.resume(self.connection.subscription, now=now)  # type: ignore[arg-type]
                found.cancels = False

    def settle(self) -> None:
        """Do what is due for this customer now, as the next sweep would."""
        now = self.world.tick()
        real = now - self.world.merchant.clock_offset
        current = self.connection.subscription
        if current is not None and current.cycle_end <= now:
            if current.pk in sweep.renewals_due(real, self.world.merchant):
                renewals.renew(current.pk, now=now)
        for row in closing.due(real, self.world.merchant):
            if Subscription.objects.filter(pk=row, connection=self.connection).exists():
                closing.settle(row, now=now)
        sweep.expire(self.connection.pk, now=now)
        if Connection.objects.filter(pk=self.connection.pk, owes=True).exists():
            if self.connection.pk in sweep.overage_due(real, self.world.merchant):
                overage.collect(self.connection.pk, now=now)
        self.life.sweep(now)

    def move_to(self, terms: Terms) -> None:
        """Take another plan, after the last one has ended; its meter counts on its own."""
        self.life.terms = terms
        self.plan, self.bundle, self.meter = self.world.offer(terms)

    # What must agree

    def check(self) -> None:
        """Compare everything, to the last digit."""
        said, expected = self.snapshot(), self.life.snapshot()
        wrong = {
            name: (said[name], expected[name]) for name in expected if said[name] != expected[name]
        }
        if wrong:
            lines = "; ".join(f"{name}: {a} and not {b}" for name, (a, b) in wrong.items())
            raise Disagreement(f"{self.connection.public_id}: {lines}")

    def check_card(self) -> None:
        """What the card paid, in the books and in the model: each payment, by purpose."""
        paid = Payment.objects.filter(connection=self.connection, status=Payment.Status.SUCCEEDED)
        said = sorted((row.purpose, ticks(row.amount.amount)) for row in paid)
        self._agree("paid by card", said, sorted(self.life.taken))

    def snapshot(self) -> dict[str, object]:
        with database.cursor() as cursor:
            cursor.execute(_SNAPSHOT, [self.connection.pk])
            row = cursor.fetchone()
        found = row[7]
        return {
            "balance": ticks(row[0]),
            "debt": ticks(row[1]),
            "collecting": ticks(row[2]),
            "cycle_overage": ticks(row[3]),
            "overage_attempts": row[4],
            "overage_next": row[5],
            "grants": sorted(
                (
                    instant(origin), pool, source, ticks(amount), ticks(left), instant(start),
                    str(end and instant(end)),
                )
                for origin, pool, source, amount, left, start, end in row[6]
            ),
            "subscription": found
            and (
                found[0], found[1], instant(found[2]), instant(found[3]), found[4], found[5],
                found[6] and instant(found[6]),
            ),
            "counts": sorted(int(Decimal(count)) for count in row[8]),
            "charged": ticks(row[9]),
            "voided": row[10],
        }  # fmt: skip

    def _agree(self, what: str, said: object, expected: object) -> None:
        if said != expected:
            raise Disagreement(f"{self.connection.public_id}: {what} is {said} and not {expected}")
