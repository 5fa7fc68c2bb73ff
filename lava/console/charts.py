"""Charts of the console as plain geometry; the templates draw them as SVG.

Coordinates are in the units of the drawing's own box, so a chart scales with its card. They place
marks on a screen and are no money: the figures beside them are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from billing import money
from meters import pricing

ZERO = Decimal(0)
WIDTH, HEIGHT = Decimal(368), Decimal(168)
LEFT, RIGHT, TOP, BOTTOM = Decimal(48), Decimal(362), Decimal(10), Decimal(140)


@dataclass(frozen=True, slots=True)
class Mark:
    """A hairline with its label."""

    at: str
    label: str


def ceiling(value: Decimal) -> Decimal:
    """The next round number: 1, 1.5, 2, 3, 4, 5, 6, 8 times a power of ten."""
    if value <= 0:
        return Decimal(1)
    unit = Decimal(10) ** value.adjusted()
    for step in ("1", "1.5", "2", "3", "4", "5", "6", "8", "10"):
        if unit * Decimal(step) >= value:
            return unit * Decimal(step)
    return unit * 10


def _place(value: Decimal, most: Decimal, start: Decimal, end: Decimal) -> Decimal:
    return start + (end - start) * min(value / most, Decimal(1)) if most else start


def _at(value: Decimal) -> str:
    return f"{value:.1f}"


def _brief(quantity: Decimal) -> str:
    """A position on an axis: 10,000 or 2.5 million."""
    if quantity >= 1_000_000:
        return f"{quantity / 1_000_000:.2f}".rstrip("0").rstrip(".") + " million"
    return f"{quantity:,.2f}".rstrip("0").rstrip(".") if quantity % 1 else f"{int(quantity):,}"


def steps(price: pricing.Price, *, at: Decimal, word: Any, currency: str) -> dict[str, Any]:
    """The price of the next unit by how much was used: a step for each tier, a mark at `at`."""
    widest = max(price.tiers[-1].start * Decimal("1.2"), at * Decimal("1.25"), Decimal(10))
    right = ceiling(widest)
    top = ceiling(max(tier.rate for tier in price.tiers))
    points: list[str] = []
    here = price.tiers[0].rate
    ends = [tier.start for tier in price.tiers[1:]] + [right]
    for tier, end in zip(price.tiers, ends, strict=True):
        y = _at(_place(tier.rate, top, BOTTOM, TOP))
        points.append(f"{_at(_place(tier.start, right, LEFT, RIGHT))},{y}")
        points.append(f"{_at(_place(end, right, LEFT, RIGHT))},{y}")
        if tier.start < at:
            here = tier.rate
    lines = []
    for part in range(4):
        value = top * part / 3
        shown = value.quantize(Decimal(1).scaleb(top.adjusted() - 2)).normalize()
        label = (
            f"{shown:f} %"
            if price.rate_type == "percentage"
            else money.display(Decimal(f"{shown:f}"), currency)
        )
        lines.append(Mark(_at(_place(value, top, BOTTOM, TOP)), label))
    x = _place(at, right, LEFT, RIGHT)
    return {
        "points": " ".join(points),
        "lines": lines,
        "ticks": [
            Mark(_at(_place(right * part / 2, right, LEFT, RIGHT)), _brief(right * part / 2))
            for part in range(3)
        ],
        "mark_x": _at(x),
        "mark_y": _at(_place(here, top, BOTTOM, TOP)),
        "mark_label": f"{_brief(at)} {word.short}",
        "mark_left": x > (LEFT + RIGHT) / 2,
    }


def balance(
    days: Sequence[tuple[datetime, Decimal]],
    *,
    start: datetime,
    end: datetime,
    now: datetime,
    runs_out: datetime | None,
    currency: str,
    zone: str,
) -> dict[str, Any] | None:
    """The balance over a cycle: `days` are (instant, balance then); dashed to where it runs out.

    None with fewer than two points.
    """
    if len(days) < 2 or end <= start:
        return None
    span = Decimal((end - start).total_seconds())
    width, left, right = Decimal(704), Decimal(52), Decimal(696)
    top, bottom = Decimal(12), Decimal(150)
    most = ceiling(max(max(amount for _, amount in days), Decimal("0.01")))

    def x(moment: datetime) -> Decimal:
        passed = Decimal((moment - start).total_seconds())
        return left + (right - left) * max(ZERO, min(passed / span, Decimal(1)))

    def y(amount: Decimal) -> Decimal:
        return _place(max(amount, ZERO), most, bottom, top)

    line = [f"{_at(x(moment))},{_at(y(amount))}" for moment, amount in days]
    last = days[-1]
    local = ZoneInfo(zone)
    dashed = None
    if runs_out is not None and runs_out <= end:
        dashed = {"x1": _at(x(last[0])), "y1": _at(y(last[1])), "x2": _at(x(runs_out))}
    ticks = []
    for part in range(6):
        moment = start + (end - start) * part / 5
        shown = moment.astimezone(local)
        ticks.append(Mark(_at(x(moment)), f"{shown.day} {shown:%b}"))
    return {
        "width": width,
        "line": " ".join(line),
        "area": f"{_at(x(days[0][0]))},{_at(bottom)} {' '.join(line)} "
        f"{_at(x(last[0]))},{_at(bottom)}",
        "lines": [
            Mark(_at(_place(most * part / 2, most, bottom, top)), _money(most * part / 2, currency))
            for part in range(3)
        ],
        "ticks": ticks,
        "now_x": _at(x(now)),
        "now_left": x(now) > (left + right) / 2,
        "dashed": dashed,
        "bottom": _at(bottom),
        "table": [(moment, amount) for moment, amount in days],
    }


def daily(
    sums: dict[date, Decimal],
    *,
    start: datetime,
    end: datetime,
    now: datetime,
    currency: str,
    zone: str,
) -> dict[str, Any]:
    """What was charged on each local day of a cycle, as bars; today's is not over yet."""
    local = ZoneInfo(zone)
    first, last = start.astimezone(local).date(), end.astimezone(local).date()
    count = max((last - first).days, 1)
    today = now.astimezone(local).date()
    days = [first + timedelta(days=number) for number in range(count)]
    left, right, top, bottom = Decimal(52), Decimal(696), Decimal(12), Decimal(150)
    most = ceiling(max([Decimal("0.01"), *sums.values()]))
    step = (right - left) / count
    bars = [
        {
            "x": _at(left + step * number + step * Decimal("0.17")),
            "y": _at(_place(sums[day], most, bottom, top)),
            "width": _at(step * Decimal("0.66")),
            "height": _at(bottom - _place(sums[day], most, bottom, top)),
            "today": day == today,
            "title": f"{day.day} {day:%b}: {money.display(sums[day], currency)}",
        }
        for number, day in enumerate(days)
        if sums.get(day)
    ]
    every = max(count // 5, 1)
    return {
        "bars": bars,
        "lines": [
            Mark(_at(_place(most * part / 2, most, bottom, top)), _money(most * part / 2, currency))
            for part in range(3)
        ],
        "ticks": [
            Mark(_at(left + step * number + step / 2), f"{day.day} {day:%b}")
            for number, day in enumerate(days)
            if number % every == 0
        ],
        "table": [(day, sums[day]) for day in days if sums.get(day)],
    }


def bills(pairs: Sequence[tuple[Decimal, Decimal]], *, currency: str) -> dict[str, Any] | None:
    """How many bills are of which size: today's beside the draft's, in steps of 1, 2, 5 and 10."""
    if not pairs:
        return None
    steps = [Decimal(step) for step in (1, 2, 5, 10, 20, 50, 100, 200, 500)]
    count = len(steps) + 1

    def place(amount: Decimal) -> int:
        return sum(1 for step in steps if amount >= step)

    today = [0] * count
    draft = [0] * count
    for before, after in pairs:
        today[place(before)] += 1
        draft[place(after)] += 1
    most = max(int(ceiling(Decimal(max(*today, *draft)))), 4)
    width, left, bottom, top = Decimal(760), Decimal(48), Decimal(180), Decimal(12)
    step = (width - left) / count
    bar = step * Decimal("0.33")
    groups = []
    for number in range(count):
        x = left + step * number
        start = _money(steps[number - 1], currency) if number else ""
        groups.append(
            {
                "x": _at(x + step / 2),
                "label": start if number else f"under {_money(steps[0], currency)}",
                "bars": [
                    {
                        "x": _at(x + step / 2 + (bar * (side - 1)) + Decimal(side) * 2 - 1),
                        "y": _at(_place(Decimal(value), Decimal(most), bottom, top)),
                        "height": _at(bottom - _place(Decimal(value), Decimal(most), bottom, top)),
                        "width": _at(bar),
                        "tone": "today" if side == 0 else "draft",
                    }
                    for side, value in enumerate((today[number], draft[number]))
                    if value
                ],
                "today": today[number],
                "draft": draft[number],
            }
        )
    # Customers are counted in whole numbers, and so is what stands beside the lines.
    parts = next((parts for parts in (4, 3, 5) if most % parts == 0), 1)
    return {
        "width": width,
        "left": left,
        "bottom": bottom,
        "groups": groups,
        "lines": [
            Mark(
                _at(_place(Decimal(most * part // parts), Decimal(most), bottom, top)),
                _brief(Decimal(most * part // parts)),
            )
            for part in range(parts + 1)
        ],
    }


def _money(amount: Decimal, currency: str) -> str:
    text = money.display(amount, currency)
    return text[:-3] if text.endswith(".00") else text
