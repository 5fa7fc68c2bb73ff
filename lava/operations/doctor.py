"""Is this installation sound? Each look is a function that says what it saw and, where something is
wrong, what to do. Called by `manage.py doctor`, and by `manage.py up` for what durability needs.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
from django.conf import settings
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

from lava import beating
from lava.operations import sealed
from meters import months as usage_months

OLDEST_POSTGRES = 150000
LEAST_FREE = 2 << 30
FURTHEST_CLOCK_S = 5.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What a look saw. `mend` says what to do; empty: it is well. One that only `warns` does not
    make the installation unsound."""

    what: str
    seen: str
    mend: str = ""
    warns: bool = False

    @property
    def is_well(self) -> bool:
        return not self.mend


def database() -> Iterator[Finding]:
    """PostgreSQL: there, new enough, and writing what it says it wrote."""
    version = int(_setting("server_version_num"))
    yield Finding(
        "PostgreSQL",
        _setting("server_version"),
        "" if version >= OLDEST_POSTGRES else "Use PostgreSQL 15 or newer.",
    )
    for name, good in (
        ("fsync", {"on"}),
        ("full_page_writes", {"on"}),
        ("synchronous_commit", {"on", "remote_apply", "remote_write"}),
    ):
        value = _setting(name)
        mend = f"Set {name} = on: an acknowledged charge must survive a crash."
        yield Finding(name, value, "" if value in good else mend)
    value = _setting("default_transaction_isolation")
    mend = "" if value == "read committed" else "Leave it at read committed, as it was built for."
    yield Finding("default_transaction_isolation", value, mend)
    used, most = _one(
        # Not pg_stat_activity: it hides the sessions of other roles from us.
        "SELECT (SELECT sum(numbackends) FROM pg_stat_database),"
        " current_setting('max_connections')::int"
    )
    full = int(used) > int(most) * 0.8
    yield Finding(
        "connections",
        f"{used} of {most}",
        "Raise max_connections, or run fewer processes." if full else "",
        warns=True,
    )


def rights(role: str | None = None) -> Iterator[Finding]:
    """The product's role may add to the ledger and never change it; the trigger stands.

    `role`: the one to ask about; None: our own.
    """
    for verb in ("UPDATE", "DELETE", "TRUNCATE"):
        (may,) = _one(
            "SELECT has_table_privilege(coalesce(%s::name, current_user),"
            " 'billing_ledgerentry', %s)",
            [role, verb],
        )
        yield Finding(
            f"{verb} on the ledger",
            "granted" if may else "refused",
            "Run the product with LAVA_DB_ROLE=app and a role that does not own the tables."
            if may
            else "",
            warns=not settings.PRODUCTION,
        )
    (standing,) = _one(
        "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'billing_ledgerentry'::regclass"
        " AND NOT tgisinternal AND tgenabled IN ('O', 'A')"
    )
    mend = "" if standing else "Run manage.py migrate as the owner: the trigger is gone."
    yield Finding("append-only trigger", "stands" if standing else "missing", mend)


def migrations() -> Iterator[Finding]:
    """The database is of this version of the product."""
    executor = MigrationExecutor(connection)
    left = executor.migration_plan(executor.loader.graph.leaf_nodes())
    yield Finding(
        "migrations",
        f"{len(left)} to run" if left else "all run",
        "Run manage.py migrate as the owner." if left else "",
    )


def months() -> Iterator[Finding]:
    """There is room for the requests of the next month: the beat and the worker see to it."""
    until = usage_months.room_until()
    late = until < timezone.now() + timedelta(days=31)
    yield Finding(
        "months for requests",
        f"until {until:%Y-%m}",
        "Start a worker and a beat: they make the months ahead. Nothing is lost meanwhile."
        if late
        else "",
        warns=True,
    )


def clocks() -> Iterator[Finding]:
    """Our clock and the database's tell one time."""
    (theirs,) = _one("SELECT clock_timestamp()")
    yield _clock("clock of the database", theirs)


def broker() -> Iterator[Finding]:
    """The broker answers, a worker listens and a beat ticks."""
    from lava.celery import app

    mend = "Start the broker, or set CELERY_BROKER_URL. Nothing is lost: work is found later."
    try:
        with app.connection_for_write() as link:
            link.ensure_connection(max_retries=1, timeout=2)
    except Exception as error:
        yield Finding("broker", f"away ({type(error).__name__})", mend)
        return
    yield Finding("broker", "answers")
    workers = app.control.inspect(timeout=2).ping() or {}
    yield Finding("workers", f"{len(workers)} answer", "" if workers else "Start a Celery worker.")
    yield from beat()


def beat() -> Iterator[Finding]:
    """A beat of this database ticks; one server may hold those of several."""
    (ticking,) = _one(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = 0"
        " AND objid = %s"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        [beating.LOCK],
    )
    mend = "" if ticking else "Start a Celery beat, or a worker with --beats."
    yield Finding("beat", "ticks" if ticking else "none", mend)


def cards() -> Iterator[Finding]:
    """The card network takes our keys, tells one time, and knows where to send events."""
    for mode, (key, _) in settings.STRIPE_KEYS.items():
        if not key:
            name = "STRIPE_SECRET_KEY" if mode == "live" else "STRIPE_TEST_SECRET_KEY"
            yield Finding(f"{mode} cards", "no key", f"Set {name}.", warns=True)
            continue
        yield from _cards(mode, key)


def _cards(mode: str, key: str) -> Iterator[Finding]:
    base = settings.STRIPE_API_BASE or "https://api.stripe.com"
    bearer = {"Authorization": f"Bearer {key}"}
    try:
        answer = httpx.get(f"{base}/v1/account", headers=bearer, timeout=10)
    except httpx.HTTPError as error:
        mend = "Look at the network between this machine and the card network."
        yield Finding(f"{mode} cards", f"no answer ({type(error).__name__})", mend)
        return
    if not answer.is_success:
        yield Finding(f"{mode} cards", f"status {answer.status_code}", "Set a key that is in use.")
        return
    yield Finding(f"{mode} cards", f"account {answer.json().get('id', '')}")
    if "date" in answer.headers:
        yield _clock(f"clock of the {mode} cards", parsedate_to_datetime(answer.headers["date"]))
    if settings.STRIPE_API_BASE:
        return
    wanted = f"{settings.LAVA_BASE_URL}/webhooks/stripe"
    try:
        listed = httpx.get(f"{base}/v1/webhook_endpoints?limit=100", headers=bearer, timeout=10)
        there = wanted in [row["url"] for row in listed.raise_for_status().json()["data"]]
    except httpx.HTTPError as error:
        mend = "Give the key the right to read webhook endpoints, or look for yourself."
        yield Finding(f"{mode} webhook", f"unknown ({type(error).__name__})", mend, warns=True)
        return
    mend = "" if there else f"Add {wanted} at the card network, with the events the README names."
    yield Finding(f"{mode} webhook", "registered" if there else "missing", mend)


def address() -> Iterator[Finding]:
    """The public address leads here."""
    try:
        answer = httpx.get(f"{settings.LAVA_BASE_URL}/healthz", timeout=10)
    except httpx.HTTPError as error:
        yield Finding(
            settings.LAVA_BASE_URL,
            f"no answer ({type(error).__name__})",
            "Start the web processes, or mend LAVA_BASE_URL, DNS or the proxy.",
        )
        return
    well = answer.status_code == 200
    mend = "" if well else "The proxy does not hand this address on to the product."
    yield Finding(settings.LAVA_BASE_URL, f"status {answer.status_code}", mend)


def sealed_secrets() -> Iterator[Finding]:
    """What is sealed at rest opens under SECRET_KEY or its fallbacks."""
    count, good = sealed.opens()
    mend = "Put the former SECRET_KEY into SECRET_KEY_FALLBACKS." if good < count else ""
    yield Finding("sealed secrets", f"{good} of {count} open", mend)


def disk() -> Iterator[Finding]:
    """There is room where we keep files."""
    place = Path(settings.STATE_DIR)
    use = shutil.disk_usage(place if place.exists() else place.parent)
    low = use.free < LEAST_FREE
    mend = "Make room: a full disk stops every charge." if low else ""
    yield Finding("disk", f"{use.free / (1 << 30):.1f} GiB free", mend)


LOOKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    database, rights, migrations, months, clocks, broker, cards, address,
    sealed_secrets, disk,
)  # fmt: skip


def findings() -> Iterator[Finding]:
    """Everything, one after the other; a look that cannot be taken says why."""
    for look in LOOKS:
        try:
            yield from look()
        except DatabaseError as error:
            connection.close()
            first = str(error).strip().splitlines()[0] if str(error).strip() else ""
            yield Finding(
                look.__name__,
                f"the database does not answer: {first}",
                "Start PostgreSQL, or mend DATABASE_URL.",
            )


def _clock(what: str, theirs: datetime) -> Finding:
    apart = abs(time.time() - theirs.astimezone(UTC).timestamp())
    mend = "Run a time service on both machines." if apart > FURTHEST_CLOCK_S else ""
    return Finding(what, f"{apart:.1f} s apart", mend)


def _setting(name: str) -> str:
    (value,) = _one("SELECT current_setting(%s)", [name])
    return str(value)


def _one(sql: str, params: list[Any] | None = None) -> tuple[Any, ...]:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        row: tuple[Any, ...] = cursor.fetchone()
    return row
