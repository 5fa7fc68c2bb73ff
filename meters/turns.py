"""Charges of one connection at one instant, in one transaction: called by `meters.usage` alone.

The charges of a connection take turns, each with its own wait for the disk: many callers of one
customer would be no faster than one. So whoever finds another charge of the connection running in
this process waits; when that is done, the first of the waiting runs all of theirs, one behind the
other in a single transaction and trip. A charge that meets nobody is run as it is.

They run in the order of their ids, as those of a batch do, so that neither ever waits for the other
in a circle. When one of them fails, nothing of their transaction is there, and each runs alone.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db import DEFAULT_DB_ALIAS, Error, connections

from billing import prepared

# In one transaction: the first of them is answered no sooner than the last.
MOST = 16

Params = Sequence[bytes | None]


@dataclass(eq=False)
class _Waiting:
    """A charge that waits for another one's turn to end."""

    key: str
    params: Params
    # Set when it was run, or is the next to run.
    called: threading.Event = field(default_factory=threading.Event)
    row: tuple[Any, ...] | None = None
    leads: list[_Waiting] | None = None


class Turns:
    """The turns of one statement in this process."""

    def __init__(self, statement: prepared.Statement) -> None:
        self.statement = statement
        self._lock = threading.Lock()
        # The connections whose charges run now, with those that wait.
        self._running: dict[UUID, list[_Waiting]] = {}

    def row(self, connection: UUID, key: str, params: Params) -> tuple[Any, ...]:
        """As `prepared.Statement.row`; `key` is the request's id.

        Raises:
            django.db.Error: as any query of Django's.
        """
        if connections[DEFAULT_DB_ALIAS].in_atomic_block:
            return self.statement.row(params)
        mine: _Waiting | None = None
        with self._lock:
            if (waiting := self._running.get(connection)) is None:
                self._running[connection] = []
            else:
                mine = _Waiting(key, params)
                waiting.append(mine)
        if mine is None:
            try:
                return self.statement.row(params)
            finally:
                self._call(connection)
        mine.called.wait()
        if mine.leads is not None:
            try:
                self._run(mine.leads)
            finally:
                for other in mine.leads:
                    other.called.set()
                self._call(connection)
        if mine.row is not None:
            return mine.row
        return self.statement.row(params)

    def _call(self, connection: UUID) -> None:
        """A turn has ended: the next is that of whoever waits, or nobody's."""
        with self._lock:
            waiting = self._running[connection]
            if not waiting:
                del self._running[connection]
                return
            self._running[connection] = waiting[MOST:]
            leader = waiting[0]
            leader.leads = waiting[:MOST]
        leader.called.set()

    def _run(self, charges: list[_Waiting]) -> None:
        """Run charges in one transaction; all get their rows, or none does and each runs alone."""
        if len(charges) == 1:
            charges[0].row = self.statement.row(charges[0].params)
            return
        charges = sorted(charges, key=lambda charge: charge.key.encode())
        try:
            rows = self.statement.rows_together([charge.params for charge in charges])
        except Error:
            return
        for charge, row in zip(charges, rows, strict=True):
            charge.row = row
