"""Cycles: no gap, no overlap, on the anchor's wall time, in every zone and on every day."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing import periods

ZONES = [
    "UTC",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "America/New_York",
    "America/St_Johns",
    "Europe/Amsterdam",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Pacific/Chatham",
    "Africa/Cairo",
    "America/Sao_Paulo",
]
anchors = st.datetimes(
    min_value=datetime(2008, 1, 1), max_value=datetime(2040, 1, 1), timezones=st.just(UTC)
)
intervals = st.sampled_from(["day", "week", "month", "year"])
zones = st.sampled_from(ZONES)


@given(anchors, intervals, zones, st.integers(0, 400))
def test_cycles_touch_and_never_run_backwards(
    anchor: datetime, interval: str, zone: str, index: int
) -> None:
    one = periods.cycle(anchor, interval, index, zone)
    two = periods.cycle(anchor, interval, index + 1, zone)
    assert one.end == two.start
    assert one.start <= one.end
    assert periods.cycle(anchor, interval, 0, zone).start == anchor


@given(anchors, intervals, zones, st.timedeltas(timedelta(0), timedelta(days=4000)))
def test_every_instant_is_in_exactly_the_cycle_of_its_number(
    anchor: datetime, interval: str, zone: str, after: timedelta
) -> None:
    now = anchor + after
    index = periods.index_at(anchor, interval, zone, now)
    found = periods.cycle(anchor, interval, index, zone)
    assert found.start <= now < found.end


@given(anchors, intervals, zones, st.integers(1, 400))
def test_a_cycle_holds_its_first_instant_and_not_its_last(
    anchor: datetime, interval: str, zone: str, index: int
) -> None:
    cycle = periods.cycle(anchor, interval, index, zone)
    if cycle.start < cycle.end:
        assert periods.index_at(anchor, interval, zone, cycle.start) == index
        just_before = cycle.start - timedelta(microseconds=1)
        assert periods.index_at(anchor, interval, zone, just_before) < index


@given(anchors, st.sampled_from(["month", "year"]), zones, st.integers(1, 120))
def test_a_cycle_begins_on_the_anchors_day_or_the_last_of_a_shorter_month(
    anchor: datetime, interval: str, zone: str, index: int
) -> None:
    there = ZoneInfo(zone)
    local, start = (
        anchor.astimezone(there),
        periods.cycle(anchor, interval, index, zone).start.astimezone(there),
    )
    # A wall time that a zone leaves out moves on, at most by a day (Apia, 30 December 2011).
    candidates = {start.date(), (start - timedelta(days=1)).date()}
    shorter = start.day < local.day and (start + timedelta(days=1)).day == 1
    assert local.day in {date.day for date in candidates} or shorter


@pytest.mark.parametrize(
    ("anchor", "interval", "starts"),
    [
        ("2023-01-31", "month", ["2023-02-28", "2023-03-31", "2023-04-30"]),
        ("2024-01-31", "month", ["2024-02-29", "2024-03-31"]),
        ("2024-02-29", "year", ["2025-02-28", "2026-02-28", "2027-02-28", "2028-02-29"]),
        ("2024-12-31", "month", ["2025-01-31", "2025-02-28"]),
    ],
)
def test_short_months_and_leap_days(anchor: str, interval: str, starts: list[str]) -> None:
    first = datetime.fromisoformat(anchor).replace(tzinfo=UTC)
    found = [
        f"{periods.cycle(first, interval, index, 'UTC').start:%Y-%m-%d}"
        for index in range(1, len(starts) + 1)
    ]
    assert found == starts


def test_a_day_of_summer_time_has_one_renewal_at_its_wall_time() -> None:
    there = ZoneInfo("Europe/Amsterdam")
    anchor = datetime(2026, 3, 27, 9, 0, tzinfo=there).astimezone(UTC)
    starts = [periods.cycle(anchor, "day", index, there.key).start for index in range(1, 5)]
    assert [start.astimezone(there).hour for start in starts] == [9] * 4
    assert starts[1] - starts[0] == timedelta(hours=23)


def test_a_wall_time_that_a_zone_leaves_out_moves_forward() -> None:
    there = ZoneInfo("Europe/Amsterdam")
    anchor = datetime(2026, 3, 28, 2, 30, tzinfo=there).astimezone(UTC)
    start = periods.cycle(anchor, "day", 1, there.key).start
    assert start == datetime(2026, 3, 29, 1, 30, tzinfo=UTC)


def test_half_hour_zones_renew_once_a_day() -> None:
    anchor = datetime(2026, 1, 1, 19, 0, tzinfo=UTC)
    indices = [
        periods.index_at(anchor, "day", "Asia/Kolkata", anchor + timedelta(hours=hour))
        for hour in range(72)
    ]
    assert indices == [hour // 24 for hour in range(72)]


def test_an_interval_nobody_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="interval"):
        periods.cycle(datetime.now(UTC), "fortnight", 0, "UTC")
    with pytest.raises(ValueError, match="zone"):
        periods.cycle(datetime(2026, 1, 1), "day", 0, "UTC")
