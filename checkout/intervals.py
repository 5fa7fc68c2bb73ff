"""A plan's interval in every place a sentence needs it, so that no language has to put a bare noun
into a sentence that was built for another. Each phrase is a message of its own."""

from __future__ import annotations

from django.utils.translation import gettext, gettext_noop

_PER = {
    "day": gettext_noop("a day"),
    "week": gettext_noop("a week"),
    "month": gettext_noop("a month"),
    "year": gettext_noop("a year"),
}
_EVERY = {
    "day": gettext_noop("every day"),
    "week": gettext_noop("every week"),
    "month": gettext_noop("every month"),
    "year": gettext_noop("every year"),
}
_WITH_END = {
    "day": gettext_noop("with the day"),
    "week": gettext_noop("with the week"),
    "month": gettext_noop("with the month"),
    "year": gettext_noop("with the year"),
}
_AT_END = {
    "day": gettext_noop("at the day’s end"),
    "week": gettext_noop("at the week’s end"),
    "month": gettext_noop("at the month’s end"),
    "year": gettext_noop("at the year’s end"),
}
_TO_NEXT = {
    "day": gettext_noop("to the next day"),
    "week": gettext_noop("to the next week"),
    "month": gettext_noop("to the next month"),
    "year": gettext_noop("to the next year"),
}
_UNTIL_NEXT = {
    "day": gettext_noop("until the next day"),
    "week": gettext_noop("until the next week"),
    "month": gettext_noop("until the next month"),
    "year": gettext_noop("until the next year"),
}
_CREDITS = {
    "day": gettext_noop("This day’s credits"),
    "week": gettext_noop("This week’s credits"),
    "month": gettext_noop("This month’s credits"),
    "year": gettext_noop("This year’s credits"),
}
_AFTER_CREDITS = {
    "day": gettext_noop("after this day’s credits"),
    "week": gettext_noop("after this week’s credits"),
    "month": gettext_noop("after this month’s credits"),
    "year": gettext_noop("after this year’s credits"),
}
_FIRST = {
    "day": gettext_noop("{plan}, the first day"),
    "week": gettext_noop("{plan}, the first week"),
    "month": gettext_noop("{plan}, the first month"),
    "year": gettext_noop("{plan}, the first year"),
}


def per(interval: str) -> str:
    """After a price: a month."""
    return gettext(_PER[interval])


def every(interval: str) -> str:
    """How often: every month."""
    return gettext(_EVERY[interval])


def with_end(interval: str) -> str:
    """After "end": with the month."""
    return gettext(_WITH_END[interval])


def at_end(interval: str) -> str:
    """When: at the month's end."""
    return gettext(_AT_END[interval])


def to_next(interval: str) -> str:
    """After "roll over": to the next month."""
    return gettext(_TO_NEXT[interval])


def until_next(interval: str) -> str:
    """How long: until the next month."""
    return gettext(_UNTIL_NEXT[interval])


def credits_of_this(interval: str) -> str:
    """A line of its own: This month's credits."""
    return gettext(_CREDITS[interval])


def after_credits_of_this(interval: str) -> str:
    """After "are used": after this month's credits."""
    return gettext(_AFTER_CREDITS[interval])


def first(interval: str, plan: str) -> str:
    """A line of a sum: Studio, the first month."""
    return gettext(_FIRST[interval]).format(plan=plan)
