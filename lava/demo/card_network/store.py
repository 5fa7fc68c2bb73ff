"""The network's memory: one SQLite file (WAL, synchronous FULL) that survives kill -9.

Every other module reads and writes through `Store`, inside `transaction()`: a call's objects, its
events and its idempotency record are committed together or not at all. One writer at a time, so two
confirmations of one intent never overlap.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import string
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MODES = ("test", "live")

_ALPHABET = string.ascii_letters + string.digits
_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    mode TEXT NOT NULL CHECK (mode IN ('test', 'live')),
    kind TEXT NOT NULL,
    body TEXT NOT NULL,
    hidden TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS objects_of_a_kind ON objects (mode, kind, seq);
CREATE INDEX IF NOT EXISTS objects_of_a_customer
    ON objects (mode, kind, json_extract(body, '$.customer'));
CREATE INDEX IF NOT EXISTS objects_of_an_intent
    ON objects (mode, kind, json_extract(body, '$.payment_intent'));
CREATE INDEX IF NOT EXISTS objects_of_a_charge
    ON objects (mode, kind, json_extract(body, '$.charge'));
CREATE TABLE IF NOT EXISTS idempotency (
    mode TEXT NOT NULL, key TEXT NOT NULL,
    method TEXT NOT NULL, path TEXT NOT NULL, fingerprint TEXT NOT NULL,
    status INTEGER NOT NULL, body TEXT NOT NULL, request_id TEXT NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (mode, key)
);
CREATE TABLE IF NOT EXISTS deliveries (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    event TEXT NOT NULL, mode TEXT NOT NULL, type TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'delivered', 'dropped', 'given_up')),
    attempts INTEGER NOT NULL DEFAULT 0, next_at REAL NOT NULL, first_at REAL NOT NULL,
    last_status INTEGER, last_error TEXT
);
CREATE INDEX IF NOT EXISTS deliveries_waiting ON deliveries (state, next_at);
CREATE TABLE IF NOT EXISTS journal (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL, mode TEXT, method TEXT NOT NULL, path TEXT NOT NULL,
    idempotency_key TEXT, params TEXT NOT NULL, status INTEGER,
    replayed INTEGER NOT NULL DEFAULT 0, fault TEXT, request_id TEXT NOT NULL,
    account TEXT NOT NULL DEFAULT ''
);
CREATE TABLE IF NOT EXISTS faults (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    remaining INTEGER NOT NULL, rule TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


@dataclass
class Record:
    """One object: `body` is what Stripe's API shows, `hidden` what only the network knows."""

    id: str
    mode: str
    kind: str
    body: dict[str, Any]
    hidden: dict[str, Any] = field(default_factory=dict)
    seq: int = 0


class Store:
    """The state file. Safe to share between threads."""

    def __init__(self, path: Path | str) -> None:
        self._lock = threading.RLock()
        self._depth = 0
        self._db = sqlite3.connect(
            str(path), check_same_thread=False, isolation_level=None, timeout=30
        )
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(_SCHEMA)
        columns = {row[1] for row in self._db.execute("PRAGMA table_info(journal)")}
        if "account" not in columns:
            # A state file of before accounts were told apart.
            self._db.execute("ALTER TABLE journal ADD COLUMN account TEXT NOT NULL DEFAULT ''")

    def close(self) -> None:
        """Close the file; the store is of no use afterwards."""
        with self._lock:
            self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; an exception that leaves the block undoes it. Nested blocks join the
        outer."""
        with self._lock:
            if self._depth:
                yield
                return
            self._db.execute("BEGIN IMMEDIATE")
            self._depth = 1
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            else:
                self._db.execute("COMMIT")
            finally:
                self._depth = 0

    def query(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a statement."""
        with self._lock:
            return self._db.execute(sql, tuple(values)).fetchall()

    def write(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Run one writing statement; answers the new row's number, for inserts."""
        with self._lock:
            return self._db.execute(sql, tuple(values)).lastrowid or 0

    # Objects

    def add(self, record: Record) -> Record:
        """Keep a new object."""
        record.seq = self.write(
            "INSERT INTO objects (id, mode, kind, body, hidden) VALUES (?, ?, ?, ?, ?)",
            (
                record.id,
                record.mode,
                record.kind,
                json.dumps(record.body),
                json.dumps(record.hidden),
            ),
        )
        return record

    def save(self, record: Record) -> None:
        """Keep what changed in an object."""
        self.write(
            "UPDATE objects SET body = ?, hidden = ? WHERE id = ?",
            (json.dumps(record.body), json.dumps(record.hidden), record.id),
        )

    def find(self, id: str) -> Record | None:
        """The object of this id in whichever mode, or None."""
        rows = self.query(
            "SELECT id, mode, kind, body, hidden, seq FROM objects WHERE id = ?", (id,)
        )
        return _record(rows[0]) if rows else None

    def select(
        self, mode: str, kind: str, where: str, values: Sequence[Any], *, limit: int, newest: bool
    ) -> list[Record]:
        """Objects of a kind, newest or oldest first. `where` is ours, never a caller's text."""
        rows = self.query(
            "SELECT id, mode, kind, body, hidden, seq FROM objects "  # noqa: S608  (see above)
            f"WHERE mode = ? AND kind = ? {where} "
            f"ORDER BY seq {'DESC' if newest else 'ASC'} LIMIT ?",
            (mode, kind, *values, limit),
        )
        return [_record(row) for row in rows]

    # Settings and the clock

    def setting(self, name: str, default: Any) -> Any:
        """A stored setting."""
        rows = self.query("SELECT value FROM settings WHERE name = ?", (name,))
        return json.loads(rows[0][0]) if rows else default

    def set(self, name: str, value: Any) -> None:
        """Store a setting."""
        self.write(
            "INSERT INTO settings (name, value) VALUES (?, ?) "
            "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            (name, json.dumps(value)),
        )

    def now(self) -> int:
        """The network's own time in whole seconds: the real one plus the shift of
        `/_control/clock`."""
        return int(time.time()) + int(self.setting("clock_offset_s", 0))

    def reset(self, mode: str | None) -> None:
        """Forget everything of one mode; of both, together with faults, clock and webhook
        behaviour."""
        with self.transaction():
            for table in ("objects", "idempotency", "deliveries", "journal"):
                if mode is None:
                    self.write(f"DELETE FROM {table}")  # noqa: S608  (a name from above)
                else:
                    self.write(f"DELETE FROM {table} WHERE mode = ?", (mode,))  # noqa: S608
            if mode is None:
                self.write("DELETE FROM faults")
                self.write("DELETE FROM settings WHERE name NOT IN ('webhook_url')")


def _record(row: tuple[Any, ...]) -> Record:
    id, mode, kind, body, hidden, seq = row
    return Record(id, mode, kind, json.loads(body), json.loads(hidden), seq)


def new_id(prefix: str) -> str:
    """A new id in Stripe's manner: prefix and 24 letters and digits."""
    return prefix + "_" + "".join(secrets.choice(_ALPHABET) for _ in range(24))
