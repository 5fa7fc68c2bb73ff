"""A connection's life in plain integers: money.md written a second time, to check the first.

Shares no code with the product and imports none of it. One `Life` is one connection on one plan and
one meter. What a method does is the rule of the same name in money.md; `snapshot` is compared with
the database after each step.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from fractions import Fraction

from lava.demo.sim.terms import (
    BUNDLE,
    CYCLE,
    RETRIES,
    Charge,
    Lot,
    Request,
    Subscription,
    Terms,
    boundary,
    half_up,
)


class Life:
    """One connection. `card`: whether it pays now; `fault`: what happens to the next charge."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.lots: list[Lot] = []
        self.debt = self.collecting = self.cycle_overage = 0
        self.overage_attempts = 0
        self.overage_next: datetime | None = None
        self.current: Subscription | None = None
        self.ended: list[Subscription] = []
        self.requests: list[Request] = []
        self.counts: dict[object, int] = {}
        # Of tiers by volume: cycles with usage that is not settled, and what was given back.
        self.unsettled: list[tuple[Subscription, int]] = []
        self.returned: dict[object, int] = {}
        self.open: dict[str, Charge] = {}
        self.card = True
        self.fault: str | None = None
        # All the card ever paid: purpose and amount.
        self.taken: list[tuple[str, int]] = []

    # Credits

    def live(self, now: datetime) -> list[Lot]:
        """Lots that can pay now, in the order of the draw."""
        found = [
            lot
            for lot in self.lots
            if lot.left and lot.start <= now and (lot.end is None or lot.end > now)
        ]
        never = datetime.max.replace(tzinfo=UTC)
        return sorted(found, key=lambda lot: (lot.end or never, lot.pool, lot.origin, lot.number))

    def spendable(self, now: datetime) -> int:
        return max(sum(lot.left for lot in self.live(now)) - self.debt, 0)

    def expire(self, now: datetime) -> None:
        for lot in self.lots:
            if lot.end is not None and lot.end <= now:
                lot.left, lot.over = 0, True

    def pay_debt(self, now: datetime) -> None:
        for lot in self.live(now):
            part = min(lot.left, self.debt - self.collecting)
            lot.left -= part
            self.debt -= part

    def add(
        self,
        pool: int,
        source: str,
        amount: int,
        now: datetime,
        *,
        end: datetime | None = None,
        origin: datetime | None = None,
    ) -> None:
        if amount == 0:
            return
        self.expire(now)
        number = len(self.lots)
        self.lots.append(Lot(pool, source, amount, amount, now, end, origin or now, number))
        self.pay_debt(now)

    def give(self, amount: int, now: datetime) -> None:
        self.add(BUNDLE, "manual", amount, now)

    def take(self, amount: int, now: datetime) -> bool:
        """Take credits by hand; False when that much is not there."""
        self.expire(now)
        if amount > sum(lot.left for lot in self.live(now)):
            return False
        for lot in self.live(now):
            part = min(lot.left, amount)
            lot.left -= part
            amount -= part
        return True

    def end_pool(self, pool: int, before: datetime | None = None) -> None:
        for lot in self.lots:
            if lot.pool == pool and (before is None or lot.start < before):
                lot.left, lot.over = 0, True

    def roll_over(self, now: datetime) -> None:
        lots = sorted(
            (lot for lot in self.live(now) if lot.pool == CYCLE),
            key=lambda lot: (lot.origin, lot.number),
        )
        total = sum(lot.left for lot in lots)
        cut = 0 if self.terms.cap is None else max(total - self.terms.cap, 0)
        origin = None
        for lot in lots:
            lost = min(cut, lot.left)
            cut -= lost
            lot.over = lot.over or lost > 0
            if lot.left > lost and origin is None:
                origin = lot.origin
            total -= lost
            lot.left = 0
        self.add(CYCLE, "rollover", total, now, origin=origin)

    # Usage

    def fee(self, counted: int, before: int) -> int:
        """Graduated: each unit pays the rate of its tier; half up, once. By volume: the first
        tier's, until the cycle is settled."""
        if self.terms.by_volume:
            return half_up(counted * Fraction(self.terms.tiers[0][1], 1_000_000))
        exact = Fraction(0)
        starts = [start for start, _ in self.terms.tiers]
        for (start, rate), stop in zip(
            self.terms.tiers, [*starts[1:], before + counted], strict=True
        ):
            part = min(before + counted, stop) - max(before, start)
            exact += max(part, 0) * Fraction(rate, 1_000_000)
        return half_up(exact)

    def settle_volume(self, now: datetime, *, renews: bool = False) -> None:
        """Give back what the cycles that are over cost less, at the rate of the tier they reach;
        one that is not renewed yet is settled by the tries of its renewal alone."""
        for window in list(self.unsettled):
            found, index = window
            running = found is self.current and index == found.index
            if running and not (renews and found.end <= now):
                continue
            self.unsettled.remove(window)
            total = self.counts[window]
            tier = max(number for number, (start, _) in enumerate(self.terms.tiers)
                       if number == 0 or start < total)  # fmt: skip
            charged = sum(
                request.fee
                for request in self.requests
                if request.window == window and not request.void
            )
            cost = half_up(total * Fraction(self.terms.tiers[tier][1], 1_000_000))
            back = max(charged - cost - self.returned.get(window, 0), 0) if tier else 0
            self.returned[window] = self.returned.get(window, 0) + back
            self.add(BUNDLE, "volume", back, now)

    def may_use(self, now: datetime) -> bool:
        found = self.current
        return found is not None and not (found.cancels and found.end <= now)

    def use(
        self, counted: int, now: datetime, *, happened: datetime, enforce: bool = False
    ) -> Request | None:
        """Charge usage; None when it is refused."""
        if not self.may_use(now):
            return None
        found = self.current
        assert found is not None
        window = (found, found.index) if self.terms.by_cycle else self.terms
        before = self.counts.get(window, 0)
        fee = self.fee(counted, before)
        beyond = fee - self.spendable(now)
        cap = self.terms.overage_cap
        if enforce and fee and beyond > 0:
            over_cap = cap is not None and self.cycle_overage + beyond > cap
            if not self.terms.overage or over_cap:
                return None
        self.expire(now)
        draws: list[tuple[Lot | None, int]] = []
        need = fee
        for lot in self.live(now):
            part = min(lot.left, need)
            if part:
                lot.left -= part
                need -= part
                draws.append((lot, part))
        if need:
            self.debt += need
            self.cycle_overage += need
            draws.append((None, need))
        self.counts[window] = before + counted
        if self.terms.by_volume and (found, found.index) not in self.unsettled:
            self.unsettled.append((found, found.index))
        late = happened < found.start
        made = Request(counted, before, fee, draws, found, found.index, late, window)
        self.requests.append(made)
        return made

    def void(self, request: Request, now: datetime) -> bool:
        """Give a request back: to the grants it came from, or off the debt. False when its cycle
        was settled by volume, and part of it given back."""
        if request.void:
            return True
        if self.returned.get(request.window):
            return False
        request.void = True
        self.expire(now)
        for lot, part in request.draws:
            if lot is not None:
                lot.left += 0 if lot.over else part
                continue
            forgiven = min(part, self.debt - self.collecting)
            self.debt -= forgiven
            if part > forgiven:
                number = len(self.lots)
                rest = part - forgiven
                self.lots.append(Lot(BUNDLE, "returned", rest, rest, now, None, now, number))
            if (request.subscription, request.index) == (
                self.current,
                self.current.index if self.current else None,
            ):
                self.cycle_overage -= part
        self.counts[request.window] -= request.counted
        self.pay_debt(now)
        return True

    # The card

    def pay(self, purpose: str, amount: int, now: datetime, index: int = 0) -> None:
        """An off-session charge; a silent network leaves it open."""
        fault, self.fault = self.fault, None
        if fault is not None:
            taken = None if fault == "lost" else self.card
            if taken:
                self.taken.append((purpose, amount * self.terms.minor))
            self.open[purpose] = Charge(purpose, amount, index, taken)
            return
        if self.card:
            self.taken.append((purpose, amount * self.terms.minor))
        self.answer(Charge(purpose, amount, index, self.card), now)

    def ask(self, now: datetime) -> None:
        """Ask about charges that had no answer; one that never arrived is made again."""
        for charge in list(self.open.values()):
            del self.open[charge.purpose]
            if charge.taken is None:
                charge.taken = self.card
                if charge.taken:
                    self.taken.append((charge.purpose, charge.amount * self.terms.minor))
            self.answer(charge, now)

    def answer(self, charge: Charge, now: datetime) -> None:
        if charge.purpose == "overage":
            owed = charge.amount * self.terms.minor
            self.collecting -= owed
            if charge.taken:
                self.debt -= owed
                self.overage_attempts, self.overage_next = 0, None
            else:
                self.pay_debt(now)
                self.overage_attempts += 1
                wait = RETRIES[min(self.overage_attempts, len(RETRIES)) - 1]
                self.overage_next = now + timedelta(days=wait)
        elif charge.taken:
            self.advance(charge.index, now)
        else:
            self.postpone(now)

    def collect(self, now: datetime, *, cycle_ends: bool = False) -> None:
        """Charge what is owed, if it is due."""
        if self.current is None or not self.terms.overage or "overage" in self.open:
            return
        amount = (self.debt - self.collecting) // self.terms.minor
        if amount * self.terms.minor < self.terms.minimum:
            return
        if self.overage_next is not None and self.overage_next > now:
            return
        if not cycle_ends and self.debt < self.terms.threshold:
            return
        self.collecting += amount * self.terms.minor
        self.pay("overage", amount, now)

    def buy(self, now: datetime, quantity: int = 1) -> bool:
        """A bundle bought at the page; False when the card is declined."""
        if not self.card:
            return False
        self.taken.append(("bundle", self.terms.cost * quantity * self.terms.minor))
        end = None
        if self.current is not None and not self.terms.keeps_bundles:
            end = max(self._bound(self._index(now) + 1), self.current.end)
        self.add(BUNDLE, "bundle", self.terms.bundle * quantity, now, end=end)
        return True

    # Cycles

    def _bound(self, number: int) -> datetime:
        assert self.current is not None
        return boundary(self.current.anchor, self.terms.interval, self.terms.zone, number)

    def _index(self, now: datetime) -> int:
        assert self.current is not None
        index = self.current.index
        while self._bound(index + 1) <= now:
            index += 1
        return index

    def subscribe(self, now: datetime, *, paid: bool = False) -> None:
        end = boundary(now, self.terms.interval, self.terms.zone, 1)
        self.current = Subscription(anchor=now, start=now, end=end)
        if paid:
            self.taken.append(("subscription", self.terms.price * self.terms.minor))
        self.cycle_overage = 0
        self._grant_cycle(now)

    def _grant_cycle(self, now: datetime) -> None:
        assert self.current is not None
        self.expire(now)
        if self.terms.keeps:
            self.roll_over(now)
        else:
            self.end_pool(CYCLE)
        if not self.terms.keeps_bundles and self.current.index > 0:
            self.end_pool(BUNDLE, before=self.current.start)
        end = None if self.terms.keeps else max(self.current.end, now)
        self.add(CYCLE, "cycle", self.terms.included, now, end=end)

    def advance(self, index: int, now: datetime) -> None:
        found = self.current
        assert found is not None
        found.status, found.index = "active", index
        found.start, found.end = self._bound(index), self._bound(index + 1)
        found.attempts, found.next_try, found.past_due_since = 0, None, None
        self.cycle_overage = 0
        self._grant_cycle(now)

    def is_due(self, now: datetime) -> bool:
        found = self.current
        if found is None or found.end > now:
            return False
        return found.cancels or found.next_try is None or found.next_try <= now

    def renew(self, now: datetime) -> None:
        if not self.is_due(now):
            return
        self.settle_volume(now, renews=True)
        self.collect(now, cycle_ends=True)
        found = self.current
        assert found is not None
        if found.cancels:
            self.finish(now)
        elif self.terms.price == 0:
            self.advance(self._index(now), now)
        elif "renewal" not in self.open:
            self.pay("renewal", self.terms.price, now, index=self._index(now))

    def postpone(self, now: datetime) -> None:
        found = self.current
        if found is None:
            return
        if found.attempts >= len(RETRIES):
            self.finish(now)
            return
        found.past_due_since = found.past_due_since or now
        planned = found.past_due_since + timedelta(days=RETRIES[found.attempts])
        # Never twice in a day, though a worker slept through some of the days.
        found.next_try = max(planned, now + timedelta(days=1))
        found.attempts += 1
        found.status = "past_due"

    def cancel(self, now: datetime) -> None:
        assert self.current is not None
        self.current.cancels = True
        if self.current.end <= now:
            self.finish(now)

    def finish(self, now: datetime) -> None:
        assert self.current is not None
        self.expire(now)
        self.end_pool(CYCLE)
        if not self.terms.keeps_bundles:
            self.end_pool(BUNDLE)
        self.ended.append(self.current)
        self.current = None

    # Time

    def sweep(self, now: datetime) -> None:
        """Do what is due at an instant."""
        found = self.current
        if found is not None and "renewal" not in self.open and found.end <= now:
            if found.next_try is None or found.next_try <= now:
                self.renew(now)
        self.settle_volume(now)
        self.expire(now)
        if self.debt >= self.terms.threshold and self.collecting == 0:
            self.collect(now)

    def next_instant(self, after: datetime, until: datetime) -> datetime | None:
        moments = [lot.end for lot in self.lots if lot.left]
        if self.current is not None:
            moments.append(self.current.next_try or self.current.end)
        if self.debt:
            moments.append(self.overage_next)
        return min((at for at in moments if at and after < at <= until), default=None)

    def move(
        self,
        now: datetime,
        to: datetime,
        seen: Callable[[datetime], datetime | None] = lambda instant: instant,
    ) -> None:
        """Let time pass; what falls due on the way happens at its own instant, or when it is seen
        (None: nobody has looked yet)."""
        self.sweep(now)
        while (instant := self.next_instant(now, to)) is not None:
            looked = seen(instant)
            if looked is None:
                return
            now = looked
            self.sweep(now)

    def snapshot(self) -> dict[str, object]:
        """All that the database must say of it."""
        found = self.current
        return {
            "balance": sum(lot.left for lot in self.lots) - self.debt,
            "debt": self.debt,
            "collecting": self.collecting,
            "cycle_overage": self.cycle_overage,
            "overage_attempts": self.overage_attempts,
            "overage_next": self.overage_next,
            "grants": sorted(
                (lot.origin, lot.pool, lot.source, lot.amount, lot.left, lot.start, str(lot.end))
                for lot in self.lots
            ),
            "subscription": found
            and (
                found.status, found.index, found.start, found.end, found.cancels, found.attempts,
                found.next_try,
            ),
            "counts": sorted(self.counts.values()),
            "charged": sum(request.fee for request in self.requests),
            "voided": sum(request.void for request in self.requests),
        }  # fmt: skip
