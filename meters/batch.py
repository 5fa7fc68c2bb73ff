"""Many requests at once: charged in one trip, in one transaction, each on its own terms.

`report` and `report_briefly` are called by `POST /v1/requests/batch`, `estimate` by `POST
/v1/requests/estimate`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import orjson
from django.db import IntegrityError, OperationalError, transaction
from django.utils import timezone

from billing import errors, ids, prepared, tasks
from meters import usage
from meters.usage import Charged, Report

MOST = 1000
_HEAD = 6
TRIES = 3

_TYPES = (
    *("uuid[]", "uuid[]", "text[]", "uuid[]", "text[]", "bytea[]", "timestamptz[]", "text[]"),
    *("bigint[]", "bigint[]", "bigint[]", "bigint[]", "numeric[]", "numeric[]", "numeric[]"),
    *("text[]", "boolean[]", "bigint[]", "bigint[]"),
)
_BALANCE = "(c.request).cycle_remaining + (c.request).bundle_remaining - (c.request).debt_after"


def _statement(name: str, selected: str) -> prepared.Statement:
    places = ", ".join(f"${place}::{kind}" for place, kind in enumerate(_TYPES, start=3))
    return prepared.Statement(
        name,
        "SELECT c.place, c.outcome, c.detail, c.collect, c.fell, c.currency, "  # noqa: S608
        f"{selected} FROM meters_charge_batch($1, $2, {places}) c",
    )


_CHARGE = _statement("lava_charge_batch", usage.SELECTED)
_BRIEFLY = _statement("lava_charge_batch_briefly", f"(c.request).charged, {_BALANCE}")

Answer = TypeVar("Answer")


class Brief(NamedTuple):
    """Of a charge, what it asked of the credits and what is left after it."""

    charged: Decimal
    total_remaining: Decimal


def report(key: str, *, sandbox: bool, told: Sequence[Report]) -> list[Charged | errors.LavaError]:
    """Charge each request exactly once for its id; the answers in the order of the reports.

    A report that is refused is answered by its error, and the others are charged. `key` is the
    caller's secret key; its checksum has been checked.

    Raises:
        billing.errors.Unauthenticated: the key is not valid; nothing was written.
    """

    def read(row: Sequence[Any], currency: str, replayed: bool) -> Charged:
        return usage.charged(row, currency=currency, replayed=replayed)

    return _report(_CHARGE, key, sandbox=sandbox, told=told, read=read, of=lambda charged: charged)


def report_briefly(
    key: str, *, sandbox: bool, told: Sequence[Report]
) -> list[Brief | errors.LavaError]:
    """As `report`, for who only asks what was charged and what is left: less is read and said."""

    def read(row: Sequence[Any], currency: str, replayed: bool) -> Brief:
        return Brief(*row)

    def of(charged: Charged) -> Brief:
        return Brief(charged.request.charged, charged.request.total_remaining)

    return _report(_BRIEFLY, key, sandbox=sandbox, told=told, read=read, of=of)


def _report(
    statement: prepared.Statement,
    key: str,
    *,
    sandbox: bool,
    told: Sequence[Report],
    read: Callable[[Sequence[Any], str, bool], Answer],
    of: Callable[[Charged], Answer],
) -> list[Answer | errors.LavaError]:
    """`read` makes an answer of a row, `of` of a charge that was made by itself."""
    answers: list[Answer | errors.LavaError] = [errors.Invalid("")] * len(told)
    owing: set[UUID] = set()
    fallen: set[UUID] = set()
    for row in _run(statement, _params(key, sandbox, told)):
        place, outcome, detail, collect, fell, currency = row[:_HEAD]
        line = told[place - 1]
        if outcome == "unauthenticated":
            raise usage.refusal(outcome, "", line)
        if outcome in ("charged", "replayed"):
            answers[place - 1] = read(row[_HEAD:], currency, outcome == "replayed")
            if collect:
                owing.add(line.connection)
            if fell:
                fallen.add(line.connection)
        elif outcome == "cost_unknown" and line.model:
            # The price of a model is looked up here, not in the database: charged by itself.
            try:
                answers[place - 1] = of(usage.report(key, sandbox=sandbox, told=line))
            except errors.LavaError as error:
                answers[place - 1] = error
        else:
            if fell:
                tasks.hint_fall(line.connection, refused=True)
            answers[place - 1] = usage.refusal(outcome, detail or "", line)
    for connection_id in sorted(owing):
        tasks.hint_overage(connection_id)
    for connection_id in sorted(fallen):
        tasks.hint_fall(connection_id)
    return answers


class _Undo(Exception):
    """Leaves the transaction of an estimate."""


def estimate(key: str, *, sandbox: bool, told: Report) -> Charged:
    """What a request would cost now: it is charged and taken back in one transaction, so that an
    estimate can never say something else than the charge.

    Raises:
        billing.errors.LavaError: as the charge would.
    """
    found: Charged | None = None
    try:
        with transaction.atomic():
            # With its instant given, no worker is woken.
            found = usage.report(key, sandbox=sandbox, told=told, now=timezone.now())
            raise _Undo
    except _Undo:
        pass
    assert found is not None
    return found


def _params(key: str, sandbox: bool, told: Sequence[Report]) -> list[bytes | None]:
    used = [line.usage for line in told]
    lists: tuple[list[Any], ...] = (
        [ids.new(sandbox=sandbox) for _ in told],
        [line.connection for line in told],
        [line.meter_slug for line in told],
        [line.meter for line in told],
        [line.request_id for line in told],
        [line.fingerprint() for line in told],
        [line.timestamp for line in told],
        [line.model for line in told],
        [each.input_tokens for each in used],
        [each.output_tokens for each in used],
        [each.input_characters for each in used],
        [each.output_characters for each in used],
        [each.input_seconds for each in used],
        [each.output_seconds for each in used],
        [each.provider_cost for each in used],
        [orjson.dumps(line.metadata).decode() for line in told],
        [line.enforce for line in told],
        [each.cache_read_tokens for each in used],
        [each.cache_write_tokens for each in used],
    )
    head = (ids.secret_hash(key), timezone.now())
    return [*map(prepared.text, head), *map(prepared.array, lists)]


def _run(statement: prepared.Statement, params: list[bytes | None]) -> list[tuple[Any, ...]]:
    """Run it, again where it met a charge of the same id or of the same rows at this instant."""
    for attempt in range(1, TRIES + 1):
        try:
            return statement.rows(params)
        except (IntegrityError, OperationalError) as error:
            state = getattr(error.__cause__, "sqlstate", "") or ""
            # Unique violation, serialization failure, deadlock: nothing was written.
            if attempt == TRIES or state not in ("23505", "40001", "40P01"):
                raise
    raise AssertionError
