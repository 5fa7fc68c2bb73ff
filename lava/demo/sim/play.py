"""What happens in a simulation, made up from a seed: the same seed plays the same months.

Two merchants in different currencies and zones, their customers on plans of every kind: usage on
time and late, gifts and slips, bundles, requests taken back, cards that are refused for a while, a
network that falls silent before or after it took the money or says everything twice and in any
order, processes that die over a charge, cancellations, second thoughts, and another plan
afterwards. After each act the model agrees to the last digit; at the end the books equal what the
card network took, and every rule of the audit is silent.
"""

from __future__ import annotations

import heapq
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from billing import failpoints, money
from billing.models import Payment
from lava.demo.sim.network import DROPPED, LOST, Network
from lava.demo.sim.terms import UNIT, Terms
from lava.demo.sim.twin import Twin
from lava.demo.sim.world import Disagreement, World, apart, open_network
from lava.management.commands import audit

# (currency, least the card pays in units, smallest step it can pay).
CURRENCIES = (
    ("USD", UNIT // 2, UNIT // 100),
    ("EUR", UNIT // 2, UNIT // 100),
    ("JPY", 50 * UNIT, UNIT),
    ("KWD", UNIT // 5, UNIT // 100),
)
ZONES = ("UTC", "America/New_York", "Asia/Kolkata", "Europe/Berlin", "Pacific/Apia")
# Far ahead of any true clock: the months of a seed are the same whenever it is played.
START = datetime(2100, 1, 1, 9, 30, tzinfo=UTC)


@dataclass
class Report:
    """What was played."""

    seed: int
    acts: dict[str, int] = field(default_factory=dict)
    requests: int = 0
    voids: int = 0
    payments: int = 0
    renewals: int = 0
    declines: int = 0

    def __add__(self, other: Report) -> Report:
        """The two merchants of a seed, played apart."""
        acts = dict(self.acts)
        for name, count in other.acts.items():
            acts[name] = acts.get(name, 0) + count
        return Report(
            self.seed,
            acts,
            self.requests + other.requests,
            self.voids + other.voids,
            self.payments + other.payments,
            self.renewals + other.renewals,
            self.declines + other.declines,
        )

    def __str__(self) -> str:
        acts = ", ".join(f"{count} {name}" for name, count in sorted(self.acts.items()))
        return (
            f"Seed {self.seed}: {acts}. {self.requests} requests charged, {self.voids} taken back, "
            f"{self.payments} payments taken ({self.renewals} renewals), {self.declines} declined."
        )


def run(
    seed: int,
    *,
    months: int,
    connections: int,
    merchant: int | None = None,
    kept: bool = False,
    look: timedelta = timedelta(0),
    say: Callable[[str], None] = lambda text: None,
) -> Report:
    """Play a seed: both merchants, or one of them (0, 1), whose dice are its own, so that it lives
    the same without the other. `kept`: what is written stays, in a database that is thrown away
    (`world.apart`). `look`: how long what falls due waits for a worker.

    Raises:
        lava.demo.sim.world.Disagreement: the product and the model differ, or a rule is broken.
    """
    dice = random.Random(seed)
    report = Report(seed)
    start = START + timedelta(days=dice.randrange(365 * 4), hours=dice.randrange(24))
    places = [{"currency": dice.choice(CURRENCIES)[0], "zone": dice.choice(ZONES)} for _ in "12"]
    playing = range(len(places)) if merchant is None else [merchant]
    with open_network(real=start, kept=kept) as network:
        twins = []
        for place in playing:
            world = World(network, look=look, **places[place])
            own = random.Random(f"{seed}:{place}")
            twins += [
                (Twin(world, _terms(own, world), number=number + 1), own)
                for number in range(place, connections, len(places))
            ]
        _play(twins, until=start + timedelta(days=30 * months), report=report, say=say)
        _close(network, [twin for twin, _ in twins], report)
    return report


def run_apart(
    seed: int, merchant: int, *, months: int, connections: int, look: timedelta
) -> Report:
    """Play one merchant of a seed in a database of its own."""
    with apart():
        return run(
            seed, months=months, connections=connections, merchant=merchant, kept=True, look=look,
            say=lambda text: print(f"merchant {merchant + 1}, {text}", file=sys.stderr, flush=True),
        )  # fmt: skip


def _terms(dice: random.Random, world: World) -> Terms:
    """A plan of some kind, of at most a dozen a merchant."""
    if len(world.offers) >= 12 or (world.offers and dice.random() < 0.5):
        return dice.choice(list(world.offers))
    _, minimum, minor = next(row for row in CURRENCIES if row[0] == world.merchant.currency)
    one = 100 * minor
    included = dice.choice([0, 5, 25, 40]) * one
    keeps = dice.random() < 0.5
    tiers = dice.choice(
        [
            ((0, 3 * one),),
            ((0, 3 * one), (1_000_000, one), (3_000_000, one // 7 + 1)),
            ((0, one // 3), (1_500_000, 2 * one)),
        ]
    )
    by_cycle = dice.random() < 0.4
    return Terms(
        price=dice.choice([0, 0, 500, 2500]),
        included=included,
        interval=dice.choice(["day", "week", "month", "month", "year"]),
        zone=world.merchant.time_zone,
        keeps=keeps,
        keeps_bundles=dice.random() < 0.6,
        cap=dice.choice([None, included, 3 * included + 7 * minor]) if keeps else None,
        overage=dice.random() < 0.7,
        threshold=dice.choice([1, 3, 10]) * one,
        overage_cap=dice.choice([None, None, 20 * one]),
        minor=minor,
        minimum=minimum,
        bundle=dice.choice([10 * one, 13 * one + minor]),
        tiers=tiers,
        by_cycle=by_cycle,
        # Tiers that fall may be one rate for all of a cycle.
        by_volume=by_cycle and len(tiers) == 3 and dice.random() < 0.7,
    )


def _play(
    twins: list[tuple[Twin, random.Random]],
    *,
    until: datetime,
    report: Report,
    say: Callable[[str], None],
) -> None:
    queue = [
        (_pause(dice, twin.world.now, scale=0.2), place) for place, (twin, dice) in enumerate(twins)
    ]
    heapq.heapify(queue)
    last = {place: twin.world.now for place, (twin, _) in enumerate(twins)}
    played = 0
    while queue[0][0] < until:
        at, place = heapq.heappop(queue)
        twin, dice = twins[place]
        if at > twin.world.now:
            twin.world.move(at)
        try:
            twin.life.move(last[place], twin.world.now, twin.world.seen)
            if twin.life.open:
                twin.ask()
                twin.settle()
            name = _act(dice, twin)
            twin.settle()
            twin.check()
        except Disagreement as wrong:
            raise Disagreement(f"at {twin.world.now}, act {played + 1}: {wrong}") from wrong
        report.acts[name] = report.acts.get(name, 0) + 1
        last[place] = twin.world.now
        played += 1
        if played % 500 == 0:
            say(f"{at:%Y-%m-%d}: {played} acts agree")
        heapq.heappush(queue, (_pause(dice, twin.world.now), place))
    for place, (twin, _) in enumerate(twins):
        if until > twin.world.now:
            twin.world.move(until)
        twin.life.move(last[place], twin.world.now, twin.world.seen)
        if twin.life.open:
            twin.ask()


def _pause(dice: random.Random, now: datetime, *, scale: float = 1.0) -> datetime:
    """Hours mostly, sometimes weeks."""
    days = dice.choice([0.3, 1, 3, 8, 8, 20, 45])
    return now + timedelta(minutes=int(dice.random() * days * 2 * 1440 * scale) + 5)


def _act(dice: random.Random, twin: Twin) -> str:
    """One thing a customer, their merchant or the card network does; gives its name."""
    life = twin.life
    if life.current is None:
        if dice.random() < 0.3 and life.ended:
            twin.give(1 + dice.randrange(20 * UNIT))
            return "gifts"
        if life.ended and dice.random() < 0.5:
            twin.move_to(_terms(dice, twin.world))
        if not life.card and dice.random() < 0.7:
            twin.set_card(True)
        twin.subscribe()
        return "subscriptions"
    one = 100 * life.terms.minor
    roll = dice.random()
    if roll < 0.50:
        for _ in range(dice.choice([1, 1, 2, 4])):
            tokens = dice.choice([0, 1, 999_999, 1_000_000, dice.randrange(8_000_000)])
            late = timedelta(hours=dice.randrange(24 * 29)) if dice.random() < 0.2 else timedelta(0)
            twin.use(tokens, ago=late, enforce=dice.random() < 0.2)
        return "usage"
    if roll < 0.58:
        twin.buy(dice.choice([1, 1, 3]))
        return "bundles"
    if roll < 0.66 and twin.rows:
        twin.void(dice.randrange(len(twin.rows)))
        return "voids"
    if roll < 0.70:
        twin.give(dice.choice([5 * one, 1 + dice.randrange(9 * one)]))
        return "gifts"
    if roll < 0.73:
        twin.take(dice.choice([one, 1 + dice.randrange(9 * one)]))
        return "slips"
    if roll < 0.82:
        twin.set_card(dice.random() < 0.6)
        return "cards"
    if roll < 0.87:
        # Silent for one charge; asked about at once, or at the customer's next act.
        twin.silence(LOST)
        twin.use(7_000_000)
        twin.hear()
        if life.open:
            twin.ask()
        return "lost calls"
    if roll < 0.89:
        twin.silence(DROPPED)
        return "lost answers"
    if roll < 0.91:
        twin.use_and_die(7_000_000, dice.choice(failpoints.CHARGE))
        if life.open:
            twin.ask()
        return "deaths"
    if roll < 0.93:
        twin.echo(dice)
        return "echoes"
    if roll < 0.97 and not life.current.cancels:
        twin.cancel()
        return "cancellations"
    twin.resume()
    return "second thoughts"


def _close(network: Network, twins: list[Twin], report: Report) -> None:
    """At the end: every customer, the card network's list, and every rule of the audit."""
    for twin in twins:
        twin.check()
        twin.check_card()
        report.requests += len(twin.life.requests)
        report.voids += sum(request.void for request in twin.life.requests)
    rows = list(Payment.objects.filter(merchant__in={twin.world.merchant for twin in twins}))
    ours = {
        row.public_id: (money.to_minor(row.amount), str(row.amount.currency))
        for row in rows
        if row.status == Payment.Status.SUCCEEDED
    }
    taken = network.taken()
    if ours != taken:
        differ = sorted(set(ours.items()) ^ set(taken.items()))
        raise Disagreement(f"the card network's list differs: {differ[:5]}")
    report.payments = len(ours)
    report.renewals = sum(row.purpose == "renewal" and row.status == "succeeded" for row in rows)
    report.declines = sum(row.status == Payment.Status.FAILED for row in rows)
    broken = audit.broken(3)
    if broken:
        raise Disagreement(f"rules are broken: {broken}")


__all__ = ["Disagreement", "Report", "run"]
