"""A new version is brought in beside running charges: what of the version before still runs fails
at nothing that the migrations do."""

from __future__ import annotations

import importlib
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import connection as database

from billing import ids
from billing.models import Connection, Hold
from tests.meters.test_charge import Setting
from tests.product import eventually

ROOT = Path(__file__).resolve().parents[2]
READ_MERCHANT = "SELECT FROM billing_merchant"
TOUCH_HOLDS = "UPDATE billing_hold SET purpose = purpose WHERE false"


def one(sql: str, *params: Any) -> Any:
    with database.cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchone()


@pytest.fixture
def links() -> Iterator[list[psycopg.Connection[Any]]]:
    """Two sessions beside the test's own."""
    params = database.get_connection_params()
    words = {name: params[name] for name in ("host", "port", "user", "dbname") if name in params}
    with closing(psycopg.connect(**words)) as one, closing(psycopg.connect(**words)) as other:
        other.autocommit = True
        yield [one, other]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("steps", [(READ_MERCHANT, TOUCH_HOLDS), (TOUCH_HOLDS, READ_MERCHANT)])
def test_a_charge_and_the_end_of_the_holds_key_do_not_wait_for_each_other(
    steps: tuple[str, str], links: list[psycopg.Connection[Any]]
) -> None:
    """Whichever of the two tables the charge has first."""
    free_holds = importlib.import_module("billing.migrations.0007_holds").FREE_HOLDS
    charge, migration = links
    failed: list[Exception] = []

    def migrate() -> None:
        try:
            migration.execute(free_holds)
        except psycopg.Error as error:
            failed.append(error)

    charge.execute(steps[0])
    beside = threading.Thread(target=migrate)
    beside.start()
    eventually(lambda: one("SELECT count(*) FROM pg_locks WHERE NOT granted")[0], pause_s=0.005)
    charge.execute(steps[1])
    charge.commit()
    beside.join(20)
    assert not beside.is_alive() and not failed


@pytest.mark.django_db
def test_a_call_that_the_version_before_settles_is_charged() -> None:
    it = Setting()
    call = ids.new(sandbox=True)
    held = one(
        "SELECT outcome FROM meters_hold(%s, %s, NULL, %s, %s, now(), 'openai', false, 'POST',"
        " '/x', 'm', false, false, true, 1000, 10, 0, 0, NULL, NULL, NULL, false, '1 hour', '{}')",
        call, it.merchant.pk, it.connection.pk, it.meter.pk,
    )  # fmt: skip
    assert held == ("held",)
    assert one("SELECT FROM billing_lock(%s, %s)", it.merchant.pk, it.connection.pk) == ()
    told = one(
        "SELECT outcome, (request).charged FROM meters_charge("
        " %s, NULL, now(), %s, NULL, NULL, 'r1', 'x', NULL, 'm', 1000, 10, 0, 0, 0, 0, NULL, '{}',"
        " false, 0, 0, p_call => %s, p_hold => %s)",
        call, it.connection.pk, call, call,
    )  # fmt: skip
    assert told == ("charged", Decimal("0.0030300000"))
    assert Hold.objects.get(pk=call).state == "settled"
    assert Connection.objects.get(pk=it.connection.pk).held == 0


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("file", "name", "arguments"),
    [
        ("billing/sql/ledger.sql", "billing_spend", "uuid, numeric, uuid, timestamptz"),
        (
            "meters/sql/charge.sql",
            "meters_charge",
            "uuid, bytea, timestamptz, uuid, text, uuid, text, bytea, timestamptz, text, bigint,"
            " bigint, bigint, bigint, numeric, numeric, numeric, jsonb, boolean, bigint, bigint,"
            " uuid, uuid",
        ),
    ],
)
def test_a_function_that_somebody_has_found_is_not_taken_away(
    file: str, name: str, arguments: str
) -> None:
    with database.cursor() as cursor:
        cursor.execute(
            f"CREATE FUNCTION {name}({arguments}) RETURNS int LANGUAGE sql AS 'SELECT 1'"
        )
        cursor.execute(f"SELECT '{name}({arguments})'::regprocedure::oid")
        (oid,) = cursor.fetchone()
        for _ in range(2):
            cursor.execute((ROOT / file).read_text(encoding="utf-8"))
            cursor.execute("SELECT proname FROM pg_proc WHERE oid = %s", [oid])
            assert cursor.fetchone() == (f"{name}_before",)
        # By its name there is the new one alone.
        cursor.execute(f"SELECT pronargdefaults > 0 FROM pg_proc WHERE oid = '{name}'::regproc")
        assert cursor.fetchone() == (True,)


def said_again() -> list[Path]:
    """The files of functions that a migration runs which another has run before it."""
    found = Counter(
        room / "sql" / name
        for room in (ROOT / "billing", ROOT / "meters")
        for migration in room.glob("migrations/0*.py")
        for name in re.findall(r'"(\w+\.sql)"', migration.read_text(encoding="utf-8"))
    )
    texts = {file: file.read_text(encoding="utf-8") for file, runs in found.items() if runs > 1}
    return [file for file, text in texts.items() if "CREATE OR REPLACE FUNCTION" in text]


def functions() -> dict[int, str]:
    with database.cursor() as cursor:
        cursor.execute(
            "SELECT oid, proname FROM pg_proc WHERE proname LIKE ANY"
            " (ARRAY['billing\\_%', 'meters\\_%'])"
        )
        return dict(cursor.fetchall())


@pytest.mark.django_db
def test_what_a_migration_says_again_stays_where_it_was_found() -> None:
    """A session that has found a function fails where it is dropped, though it is made anew."""
    before, files = functions(), said_again()
    assert len(before) > 50 and len(files) > 5
    for file in files:
        with database.cursor() as cursor:
            cursor.execute(file.read_text(encoding="utf-8"))
        assert functions() == before, file
