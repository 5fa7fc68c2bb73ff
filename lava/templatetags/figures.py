"""Figures of the console's tables: amounts aligned on the point, instants with their UTC beside.

For the console's templates alone. The rules are those of the design: as many digits as needed,
those past the minor unit muted from one minor unit up, hidden zeros up to the column's widest.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from django import template
from django.template import Context, Variable
from django.utils.html import format_html
from django.utils.safestring import SafeString

from billing import money

register = template.Library()


@register.simple_tag
def depth(rows: Iterable[Any], attribute: str, currency: str) -> int:
    """How many decimals the deepest amount of a column has."""
    found = Variable(f"row.{attribute}")
    return max(
        (money.places(found.resolve(Context({"row": row})), currency) for row in rows), default=0
    )


@register.simple_tag
def aligned(amount: Decimal, currency: str, deepest: int = 0, sign: bool = False) -> SafeString:
    """An amount of a column; `deepest` is the column's `depth`, `sign` also writes plus."""
    main, past = money.parts(amount, currency, sign=sign)
    digits = money.places(amount, currency)
    pad = "0" * max(deepest - digits, 0)
    if pad and not digits:
        pad = f".{pad}"
    smallest = Decimal(1).scaleb(-money.minor_units(currency))
    if past and abs(amount) < smallest:
        main, past = main + past, ""
    return format_html(
        '<span class="cl-amount">{}<span class="cl-past">{}</span>'
        '<span class="cl-pad" aria-hidden="true">{}</span></span>',
        main,
        past,
        pad,
    )


@register.simple_tag
def headline(amount: Decimal, currency: str) -> str:
    """An amount up to its minor unit, cut and not rounded: the exact one stands below it."""
    return money.display(money.floor_minor(amount, currency), currency)


@register.filter
def shown(amount: Any) -> str:
    """A card amount in a sentence, e.g. $25.00."""
    return money.display(amount.amount, str(amount.currency))


@register.simple_tag
def plainly(amount: Decimal, currency: str, sign: bool = False) -> str:
    """An amount in a sentence, exact."""
    return money.display(amount, currency, sign=sign)


@register.simple_tag
def total(first: Decimal, second: Decimal, currency: str) -> str:
    """Two amounts together, exact."""
    return money.display(first + second, currency)


@register.simple_tag
def bar_x(place: int, step: int) -> int:
    """Where a mark of a row of equal marks stands."""
    return place * step


@register.filter
def clock(moment: datetime, zone: str) -> SafeString:
    """The time of day of a row under its day's band."""
    local = moment.astimezone(ZoneInfo(zone))
    return _time(moment, local, f"{local:%H:%M}", f"{local:%H:%M}:{local:%S}")


@register.filter
def on(moment: datetime | None, zone: str) -> SafeString | str:
    """A day: `1 Sep 2026`."""
    if moment is None:
        return "none"
    local = moment.astimezone(ZoneInfo(zone))
    return _time(moment, local, "", f"{local.day} {local:%b %Y}")


@register.filter
def stamp(moment: datetime | None, zone: str) -> SafeString | str:
    """An instant in full: `Mon 23 Nov 2026, 10:42:07`."""
    if moment is None:
        return "none"
    local = moment.astimezone(ZoneInfo(zone))
    return _time(moment, local, "", f"{local:%a} {local.day} {local:%b %Y, %H:%M:%S}")


@register.filter
def moment_in(moment: datetime | None, zone: str) -> str:
    """An instant in a sentence or a headline: `Mon 23 Nov 2026, 10:42`."""
    if moment is None:
        return "none"
    local = moment.astimezone(ZoneInfo(zone))
    return f"{local:%a} {local.day} {local:%b %Y, %H:%M}"


def _time(moment: datetime, local: datetime, brief: str, full: str) -> SafeString:
    exact = moment.astimezone(UTC)
    title = f"{exact:%Y-%m-%d %H:%M:%S}.{exact.microsecond // 1000:03d} UTC"
    if brief:
        seconds = full.removeprefix(brief)
        return format_html(
            '<time datetime="{}" title="{}">{}<span class="cl-wide">{}</span></time>',
            exact.isoformat(),
            title,
            brief,
            seconds,
        )
    return format_html('<time datetime="{}" title="{}">{}</time>', exact.isoformat(), title, full)


@register.filter
def get(mapping: dict[str, Any], key: str) -> Any:
    """The value of a key that is itself a variable."""
    return mapping.get(key, "")


@register.filter
def number(value: int | Decimal | None) -> str:
    """A count with its commas."""
    return f"{value or 0:,}"
