"""Requests by month: each goes to its own, its id counts in all of them, and a month that was not
made in time stops nobody."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from django.db import connection as database
from django.db import transaction
from django.test import Client

from billing import audit as money_audit
from billing import errors
from lava.operations import doctor
from meters import audit as usage_audit
from meters import months
from meters.models import RequestKey, UsageRequest
from tests.meters.test_charge import report
from tests.meters.test_voids import Till

pytestmark = pytest.mark.django_db

At = Callable[[datetime], None]


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> At:
    """Have what is made from here on be made at an instant."""

    def make(moment: datetime) -> None:
        told = SimpleNamespace(time_ns=lambda: int(moment.timestamp()) * 10**9)
        monkeypatch.setattr("billing.ids.time", told)

    return make


@pytest.fixture
def till() -> Till:
    return Till()


def month(name: str) -> str:
    """Where a request lies: `first`, `rest` or a month."""
    with database.cursor() as cursor:
        cursor.execute(
            "SELECT tableoid::regclass::text FROM meters_usagerequest WHERE request_id = %s", [name]
        )
        ((found,),) = cursor.fetchall()
    return str(found).removeprefix("meters_usagerequest_")


def later(count: int) -> datetime:
    """A day in the month that comes so many after the last there is room for."""
    day = months.room_until()
    for _ in range(count):
        day = (day + timedelta(days=32)).replace(day=1)
    return day + timedelta(days=14)


def ahead(moment: datetime) -> int:
    """How many months from this one an instant is."""
    now = datetime.now(UTC)
    return (moment.year - now.year) * 12 + moment.month - now.month


def no_rule_is_broken() -> None:
    for rule in (*money_audit.RULES, *usage_audit.RULES):
        assert not rule.rows(), rule.name


def test_a_request_is_charged_once_over_all_months(till: Till, at: At) -> None:
    until = months.room_until()
    at(until - timedelta(days=40))
    first = report(till.key, till.connection, "a", input_tokens=1_000_000)
    last = until - timedelta(milliseconds=1000)
    at(last)
    report(till.key, till.connection, "b", input_tokens=1_000_000)
    again = report(till.key, till.connection, "a", input_tokens=1_000_000)
    assert again.replayed and again.request.pk == first.request.pk
    with pytest.raises(errors.Conflict, match="another body"):
        report(till.key, till.connection, "a", input_tokens=2)
    assert month("b") == f"{last:%Y_%m}" and month("a") != month("b")
    assert till.grants() == [("cycle", Decimal(23))]
    # Found by the client's id in its month, and taken back there.
    row = UsageRequest.objects.told_as(till.merchant, "a").get()
    till.void(row)
    assert till.grants() == [("cycle", Decimal(24))]
    no_rule_is_broken()


def test_a_batch_meets_the_requests_of_other_months(till: Till, at: At) -> None:
    at(months.room_until() - timedelta(days=40))
    report(till.key, till.connection, "a", input_tokens=1_000_000)
    at(months.room_until() - timedelta(days=1))
    body = {"connection_id": till.connection.public_id, "meter_slug": "chat"}
    lines = [{**body, "request_id": name, "input_tokens": 1_000_000} for name in ("a", "b", "b")]
    answer = Client().post(
        "/v1/requests/batch",
        {"requests": lines},
        content_type="application/json",
        headers={"Authorization": f"Bearer {till.key}"},
    )
    assert [line["status"] for line in answer.json()["results"]] == [200, 200, 200]
    assert till.grants() == [("cycle", Decimal(23))]
    assert set(RequestKey.objects.values_list("request_id", "row")) == set(
        UsageRequest.objects.values_list("request_id", "pk")
    )
    no_rule_is_broken()


def test_months_are_made_ahead_and_once() -> None:
    until = months.room_until()
    assert months.make(ahead(until) + 2) == 3
    assert months.make(ahead(until) + 2) == 0
    assert months.room_until() == (until + timedelta(days=95)).replace(day=1)


def test_the_products_own_role_makes_months_and_no_other_table() -> None:
    words = database.get_connection_params()
    link = {name: words[name] for name in ("host", "port", "dbname")} | {"user": "lava_app"}
    try:
        app = psycopg.connect(**link)
    except psycopg.OperationalError:
        pytest.skip("this server has no role lava_app of its own")
    with app:
        (made,) = app.execute(
            "SELECT meters_make_months(%s)", [ahead(months.room_until())]
        ).fetchone()  # type: ignore[misc]
        assert made == 1
        app.rollback()
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            app.execute("CREATE TABLE meters_usagerequest_mine (id uuid)")


def test_a_month_that_was_not_made_stops_nobody(till: Till, at: At) -> None:
    when = later(1)
    at(when)
    report(till.key, till.connection, "a", input_tokens=1_000_000)
    assert month("a") == "rest"
    # The month before it and the one after are made; what is in the rest stays there.
    assert months.make(ahead(when) + 1) == 2
    at(when + timedelta(days=31))
    report(till.key, till.connection, "b", input_tokens=1_000_000)
    assert month("b") == f"{when + timedelta(days=31):%Y_%m}"
    assert report(till.key, till.connection, "a", input_tokens=1_000_000).replayed
    no_rule_is_broken()


@pytest.mark.django_db(transaction=True)
def test_months_wait_for_no_charge_for_long(till: Till) -> None:
    """A charge that is under way holds its connection's row; the next run finds the table free."""
    until = months.room_until()
    held, done = threading.Event(), threading.Event()

    def charge() -> None:
        with transaction.atomic():
            report(till.key, till.connection, "a", input_tokens=1_000_000)
            held.set()
            done.wait(30)
        database.close()

    busy = threading.Thread(target=charge)
    busy.start()
    assert held.wait(30)
    assert months.make(ahead(until)) == 0
    done.set()
    busy.join()
    assert months.make(ahead(until)) == 1
    with database.cursor() as cursor:
        made = f"meters_usagerequest_{until:%Y_%m}"
        cursor.execute(f"ALTER TABLE meters_usagerequest DETACH PARTITION {made}")
        cursor.execute(f"DROP TABLE {made}")
    assert months.room_until() == until
    assert till.grants() == [("cycle", Decimal(24))]


def test_the_doctor_finds_months_that_were_not_made(monkeypatch: Any) -> None:
    (found,) = doctor.months()
    assert found.is_well
    monkeypatch.setattr(doctor.timezone, "now", lambda: months.room_until() - timedelta(days=20))
    (found,) = doctor.months()
    assert "worker and a beat" in found.mend and found.warns
