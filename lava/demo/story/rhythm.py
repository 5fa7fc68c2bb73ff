"""When customers use what, and how much: the rhythm of days, nights and weeks, out of a seed.

Pure: the same business and first instant give the same usage, to the microsecond, however often it
is asked.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from lava.demo.story.cast import DAYS, Business, Customer, Habit, Meter
from meters import pricing

# How busy the hours of a working day are, from midnight on.
HOURS = (
    1, 0.5, 0.3, 0.2, 0.2, 0.5, 2, 5, 11, 16, 18, 17,
    13, 14, 17, 17, 15, 12, 8, 6, 5, 4, 3, 2,
)  # fmt: skip
# Monday to Sunday.
WEEK = (1.05, 1.1, 1.1, 1.05, 0.9, 0.42, 0.36)
# From the first day to the last.
GROWTH = (0.66, 1.42)
MILLION = Decimal(1_000_000)


@dataclass(frozen=True, slots=True)
class Use:
    """One request to come: when, by whom, of what."""

    at: datetime
    customer: Customer
    meter: Meter
    request_id: str
    usage: pricing.Usage
    metadata: dict[str, str]


def first_day(business: Business, began: datetime) -> date:
    """Day 0, as the merchant's calendar has it."""
    return began.astimezone(ZoneInfo(business.time_zone)).date()


def moment(business: Business, began: datetime, day: int, hour: float) -> datetime:
    """An hour of a day of the story, as an instant."""
    local = datetime.combine(first_day(business, began) + timedelta(days=day), time())
    local += timedelta(hours=hour)
    return local.replace(tzinfo=ZoneInfo(business.time_zone))


def local_hour(business: Business, at: datetime) -> int:
    """The hour of the merchant's day."""
    return at.astimezone(ZoneInfo(business.time_zone)).hour


def uses(business: Business, began: datetime, customer: Customer) -> Iterator[Use]:
    """All a customer uses from the day they join to the day after the story's last."""
    meters = {meter.slug: meter for meter in business.meters}
    for habit in customer.habits:
        # Not for secrets: the seed makes the story the same each time.
        dice = random.Random(f"{business.seed}{business.name}/{customer.phone}/{habit.meter}")
        for day in range(customer.joins, DAYS + 2):
            weekday = (first_day(business, began) + timedelta(days=day)).weekday()
            growth = GROWTH[0] + (GROWTH[1] - GROWTH[0]) * day / DAYS
            mean = habit.a_day * WEEK[weekday] * growth * dice.uniform(0.75, 1.25)
            for _ in range(int(mean + dice.random())):
                yield _use(business, began, customer, meters[habit.meter], habit, day, dice)


def _use(
    business: Business,
    began: datetime,
    customer: Customer,
    meter: Meter,
    habit: Habit,
    day: int,
    dice: random.Random,
) -> Use:
    hour = dice.choices(range(24), HOURS)[0] + dice.random()
    return Use(
        at=moment(business, began, day, hour),
        customer=customer,
        meter=meter,
        request_id=f"{meter.slug[:4]}_{dice.getrandbits(64):016x}",
        usage=_usage(meter, habit, dice),
        metadata={"source": dice.choice(("app", "app", "app", "api", "import"))},
    )


def _usage(meter: Meter, habit: Habit, dice: random.Random) -> pricing.Usage:
    """A size around the usual one: most a little under, a few several times it."""
    factor = min(max(dice.lognormvariate(-0.12, 0.5), 0.1), 5.0)
    if meter.unit == "minutes":
        seconds = Decimal(max(int(habit.size * 60 * factor), 5))
        cost = (seconds / 60 * Decimal(meter.cost[0])).quantize(Decimal("0.000001"))
        return pricing.Usage(input_seconds=seconds, provider_cost=cost)
    if meter.unit == "tokens_1m":
        tokens = max(int(habit.size * factor), 50)
        output = int(tokens * dice.uniform(0.18, 0.42))
        into, out = (Decimal(rate) for rate in meter.cost)
        cost = ((tokens - output) * into + output * out) / MILLION
        return pricing.Usage(
            input_tokens=tokens - output,
            output_tokens=output,
            provider_cost=cost.quantize(Decimal("0.00000001")),
        )
    return pricing.Usage(provider_cost=Decimal(meter.cost[0]))
