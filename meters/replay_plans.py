"""Replay of a plan: past usage billed again by a draft plan, beside the plan customers are on.

Reads only, in a few queries for any number of customers (`meters.replay_past`), and of no more than
`MOST_CUSTOMERS`. Both sides are reckoned by the same rules over the same whole months, as if each
customer had been on the plan from the first day, or from the day they joined, with no credit and no
debt:

- A cycle that begins is paid; one that the months, or the customer's joining, cut short counts by
  its share of the time, its price, credit and limit alike.
- Each request keeps what it was charged. One that does not fit is refused where the plan stops or
  the overage cap is reached, as the charge does when it is asked to enforce (`meters_charge`), and
  so is one of a meter that the plan lacks.
- What a price by volume gave back (`meters.volume`) comes off what is past the credit, before the
  card is asked; the rest is credit of the next cycle. Where one was refused nothing comes back.
- What is past the credit goes to the card when the cycle ends, down to the minor unit and not below
  the smallest charge; the rest is owed and comes off the next credit.
- Bundles that were bought are bought again, at the beginning of their cycle; one that the draft
  does not offer is not.

Called by the console's What if and by `manage.py whatif`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID
from zoneinfo import ZoneInfo

from billing import money, periods, plans
from billing.models import CreditBundle, Merchant, Plan, Subscription
from meters import replay_past
from meters.models import MeterPlan
from meters.replay_past import Past, Use

ZERO = Decimal(0)
_STEP = timedelta(microseconds=1)
# More are not billed again at once: those who came first are.
MOST_CUSTOMERS = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A plan that may not exist: its terms, its meters, and (cost, credit) of its bundles by id."""

    terms: plans.Terms
    meters: frozenset[UUID]
    bundles: Mapping[UUID, tuple[Decimal, Decimal]]


@dataclass(frozen=True, slots=True)
class Bill:
    """What one customer would pay in the time, and what they would get for it."""

    connection_id: UUID
    price: Decimal = ZERO
    overage: Decimal = ZERO
    bundles: Decimal = ZERO
    # Usage that was let through, its provider's cost where one is known, and the usage without one.
    served: Decimal = ZERO
    cost: Decimal = ZERO
    requests: int = 0
    without_cost: Decimal = ZERO
    refused: int = 0
    # What is left at the end: credit, and what no card was asked for.
    left: Decimal = ZERO
    owed: Decimal = ZERO
    runs_out: bool = False

    @property
    def total(self) -> Decimal:
        """What the card pays."""
        return self.price + self.overage + self.bundles


@dataclass(frozen=True, slots=True)
class _Span:
    """A cycle, and up to where it lies in the time."""

    start: datetime
    end: datetime
    until: datetime

    def share(self, since: datetime) -> Decimal:
        """How much of a whole cycle they had who joined at `since`, from 0 to 1."""
        had, whole = self.until - max(self.start, since), self.end - self.start
        return max(Decimal(had // _STEP) / Decimal(whole // _STEP), ZERO)


@dataclass(slots=True)
class _Purse:
    """What a customer holds while the cycles go by."""

    cycle: Decimal = ZERO
    bundle: Decimal = ZERO
    debt: Decimal = ZERO
    # Past the credit, in this cycle.
    past: Decimal = ZERO

    @property
    def credit(self) -> Decimal:
        return self.cycle + self.bundle

    def take(self, amount: Decimal) -> Decimal:
        """Draw an amount, bundles last; gives what credit did not cover."""
        drawn = min(amount, self.cycle)
        self.cycle -= drawn
        rest = amount - drawn
        drawn = min(rest, self.bundle)
        self.bundle -= drawn
        return rest - drawn


@dataclass(frozen=True, slots=True)
class Side:
    """All customers together on one side."""

    revenue: Decimal
    price: Decimal
    overage: Decimal
    bundles: Decimal
    served: Decimal
    cost: Decimal
    requests: int
    without_cost: Decimal
    refused: int
    run_out: int
    worst: Bill | None

    @property
    def margin(self) -> Decimal | None:
        """What of the revenue is left after the providers, in percent; None: no revenue."""
        return (self.revenue - self.cost) * 100 / self.revenue if self.revenue else None

    @classmethod
    def over(cls, bills: Sequence[Bill]) -> Side:
        def add(name: str) -> Decimal:
            return sum((getattr(bill, name) for bill in bills), ZERO)

        return cls(
            revenue=add("total"),
            price=add("price"),
            overage=add("overage"),
            bundles=add("bundles"),
            served=add("served"),
            cost=add("cost"),
            requests=sum(bill.requests for bill in bills),
            without_cost=add("without_cost"),
            refused=sum(bill.refused for bill in bills),
            run_out=sum(bill.runs_out for bill in bills),
            worst=max(bills, key=lambda bill: bill.total, default=None),
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """Each customer's bill today and with the draft, in the same order."""

    since: datetime
    until: datetime
    pairs: list[tuple[Bill, Bill]]
    # Customers of the same plans who are left out: there are more than `MOST_CUSTOMERS`.
    left_out: int = 0
    # Of those billed, who joined within the time and is billed from then on.
    joined: int = 0

    @property
    def today(self) -> Side:
        return Side.over([today for today, _ in self.pairs])

    @property
    def draft(self) -> Side:
        return Side.over([draft for _, draft in self.pairs])

    @property
    def rises(self) -> list[tuple[Bill, Bill]]:
        """Who pays more, the largest rise first."""
        found = [pair for pair in self.pairs if pair[1].total > pair[0].total]
        return sorted(found, key=lambda pair: pair[0].total - pair[1].total)

    @property
    def falls(self) -> int:
        return sum(1 for today, draft in self.pairs if draft.total < today.total)


def compare(
    merchant: Merchant,
    draft: Offer,
    *,
    months: int,
    now: datetime,
    plan: Plan | None = None,
    people: Sequence[UUID] | None = None,
) -> Comparison:
    """The draft beside the plan each customer is on: those of `plan`, or of every plan; of them
    only `people`, where these are named. Who joined at the very end of the time is no part of it.

    Raises:
        billing.errors.Invalid: terms that no plan can have; or a limit may stop too many (`people`,
            as `replay_past.read`).
    """
    since, until = last_months(merchant, months=months, now=now)
    rows = Subscription.objects.of(merchant).current().select_related("plan")
    if plan is not None:
        rows = rows.filter(plan=plan)
    if people is not None:
        rows = rows.filter(connection__in=people)
    rows = rows.filter(started_at__lt=until)
    count = rows.count()
    groups: dict[UUID, list[UUID]] = defaultdict(list)
    sold: dict[UUID, Plan] = {}
    # By when they came: the keys of connections are ordered by time.
    for row in rows.order_by("connection_id")[:MOST_CUSTOMERS]:
        groups[row.plan_id].append(row.connection_id)
        sold[row.plan_id] = row.plan
    today: dict[UUID, Bill] = {}
    for key, members in groups.items():
        bills = replay(merchant, of(sold[key]), people=members, since=since, until=until)
        today |= {bill.connection_id: bill for bill in bills}
    drafted = replay(merchant, draft, people=sorted(today), since=since, until=until)
    came = replay_past.joined(merchant, list(today))
    return Comparison(
        since,
        until,
        [(today[bill.connection_id], bill) for bill in drafted],
        left_out=count - len(today),
        joined=sum(1 for at in came.values() if at > since),
    )


def of(plan: Plan) -> Offer:
    """A plan as it stands; bundles it no longer sells are still what was bought."""
    return Offer(
        terms=plans.of(plan),
        meters=frozenset(
            MeterPlan.objects.filter(plan=plan, merchant_id=plan.merchant_id).values_list(
                "meter_id", flat=True
            )
        ),
        bundles={
            row.pk: (row.cost.amount, row.credit_amount)
            for row in CreditBundle.objects.filter(plan=plan)
        },
    )


def last_months(merchant: Merchant, *, months: int, now: datetime) -> tuple[datetime, datetime]:
    """The last so many whole months, in the merchant's local time, ended by the quarter of an hour
    that holds `now`."""
    zone = merchant.time_zone
    local = now.astimezone(ZoneInfo(zone))
    local = local.replace(minute=local.minute // 15 * 15, second=0, microsecond=0)
    number = local.year * 12 + local.month - 1 - months
    # A day that the month lacks is its last one, as a cycle's is.
    for day in range(local.day, 0, -1):
        try:
            since = local.replace(year=number // 12, month=number % 12 + 1, day=day)
        except ValueError:
            continue
        break
    return since, periods.cycle(since, "month", months - 1, zone).end


def replay(
    merchant: Merchant, offer: Offer, *, people: Sequence[UUID], since: datetime, until: datetime
) -> list[Bill]:
    """What each of the connections would have paid in [since, until) of the merchant's clock, or of
    it since they joined. Both are beginnings of quarters of an hour.

    Raises:
        billing.errors.Invalid: as `compare`.
    """
    plans.validate(offer.terms, currency=merchant.currency)
    spans = _spans(merchant, offer, since=since, until=until)
    came, currency = replay_past.joined(merchant, people), merchant.currency
    past = replay_past.read(
        merchant,
        people=people,
        meters=offer.meters,
        starts=[span.start for span in spans],
        until=until,
        may_be_stopped=lambda past: _may_be_stopped(offer, spans, past, came, currency=currency),
    )
    return [
        _bill(person, offer, spans, past, since=came[person], currency=currency)
        for person in people
    ]


def _spans(merchant: Merchant, offer: Offer, *, since: datetime, until: datetime) -> list[_Span]:
    """The cycles that begin in the time, the first one with it."""
    spans: list[_Span] = []
    index = 0
    while True:
        cycle = periods.cycle(since, offer.terms.billing_interval, index, merchant.time_zone)
        index += 1
        if cycle.start >= until:
            return spans
        if cycle.start == cycle.end:
            # A day that the zone left out.
            continue
        spans.append(_Span(cycle.start, cycle.end, min(cycle.end, until)))


def _may_be_stopped(
    offer: Offer,
    spans: list[_Span],
    past: Past,
    came: Mapping[UUID, datetime],
    *,
    currency: str,
) -> set[UUID]:
    """Who uses more in some cycle than its own credit, on a plan with a limit. Carried credit, a
    bundle or overage may still cover it, which the bill finds out. Debt from the cycle before takes
    less than a smallest charge of the credit."""
    terms = offer.terms
    if terms.when_depleted == Plan.WhenDepleted.OVERAGE and terms.overage_cap is None:
        return set()
    least = money.minimum_charge(currency)

    def room(person: UUID, number: int) -> Decimal:
        share = spans[number].share(came[person])
        return money.floor_minor(terms.included_credit * share, currency)

    return {
        person
        for (person, number), use in past.uses.items()
        if use.charged > room(person, number) - least
    }


def _bill(
    person: UUID,
    offer: Offer,
    spans: list[_Span],
    past: Past,
    *,
    since: datetime,
    currency: str,
) -> Bill:
    """The cycles one after the other, as the ledger would go through them."""
    terms, purse = offer.terms, _Purse()
    overage = terms.when_depleted == Plan.WhenDepleted.OVERAGE
    price = asked = packs = served = cost = without_cost = ZERO
    requests = refused = 0
    runs_out, fresh = False, ZERO
    for number, span in enumerate(spans):
        share = span.share(since)
        if not share:
            continue
        price += money.floor_minor(terms.price * share, currency)
        packs += _begin(purse, offer, share, past.bought.get((person, number), ()), currency)
        purse.bundle, fresh = purse.bundle + fresh, ZERO
        use = past.uses.get((person, number), Use())
        limit = ZERO if not overage else terms.overage_cap
        if limit is not None:
            limit = money.floor_minor(limit * share, currency)
        if limit is None or use.charged <= purse.credit + limit:
            rows: Iterable[tuple[Decimal, Decimal | None]] = [(use.charged, use.cost)]
            requests, without_cost = requests + use.count, without_cost + use.without_cost
            whole = True
        else:
            rows, whole = past.rows[person, number], False
        for charged, paid in rows:
            lacking = max(charged - purse.credit, ZERO)
            # A request of nothing is never refused.
            if limit is not None and charged and lacking and purse.past + lacking > limit:
                refused += 1
                runs_out = True
                continue
            past_credit = purse.take(charged)
            purse.debt += past_credit
            purse.past += past_credit
            served += charged
            cost += paid or ZERO
            if not whole:
                requests += 1
                without_cost += charged if paid is None else ZERO
        refused += use.off_plan
        runs_out = runs_out or bool(use.charged and purse.credit <= 0)
        if whole:
            fresh = past.given_back.get((person, number), ZERO)
            paid_off = min(purse.debt, fresh)
            purse.debt, fresh = purse.debt - paid_off, fresh - paid_off
        due = money.floor_minor(purse.debt, currency)
        if overage and due >= money.minimum_charge(currency):
            asked += due
            purse.debt -= due
    return Bill(
        connection_id=person,
        price=price,
        overage=asked,
        bundles=packs,
        served=served,
        cost=cost,
        requests=requests,
        without_cost=without_cost,
        refused=refused,
        left=purse.credit + fresh,
        owed=purse.debt,
        runs_out=runs_out,
    )


def _begin(
    purse: _Purse,
    offer: Offer,
    share: Decimal,
    bought: Iterable[tuple[UUID, int]],
    currency: str,
) -> Decimal:
    """Begin a cycle: roll or end what is left, give its credit, pay debt. Gives what its bundles
    cost."""
    terms = offer.terms
    kept = purse.cycle if terms.rollover_type == Plan.Rollover.FULL else ZERO
    if terms.rollover_cap is not None:
        kept = min(kept, terms.rollover_cap)
    purse.cycle = kept + money.floor_minor(terms.included_credit * share, currency)
    if terms.bundle_rollover_type != Plan.Rollover.FULL:
        purse.bundle = ZERO
    paid = ZERO
    for key, count in bought:
        if key in offer.bundles:
            cost, credit = offer.bundles[key]
            paid += cost * count
            purse.bundle += credit * count
    purse.debt = purse.take(purse.debt)
    purse.past = ZERO
    return paid
