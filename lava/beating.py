"""Who ticks: any number of beats may run, and one of them does; and a beat inside a worker.

`lava.celery` names both. A worker started with `--beats` has a beat in a thread of its own, as `up`
has it: a process less. Larger installations run `celery beat` beside their workers.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog
from celery import beat, bootsteps

log = structlog.get_logger(__name__)

# Held by the one beat that ticks; others wait for it.
LOCK = 0x1A7A


class OnlyBeat(beat.PersistentScheduler):
    """A beat that ticks only while it holds the database's advisory lock: any number may run."""

    # Celery's own, which its types leave out.
    schedule_filename: str
    _store: Any
    _remove_db: Callable[[], None]
    # The line to the database that the lock was taken on.
    _held_on: Any = None

    def setup_schedule(self) -> None:
        """Open the file of what was sent when. One that a crash left unreadable is made anew:
        otherwise no beat would ever run again, nor the worker around it."""
        Path(self.schedule_filename).parent.mkdir(parents=True, exist_ok=True)
        try:
            super().setup_schedule()
        except Exception as error:
            log.exception("beat_schedule_unreadable", error=type(error).__name__)
            if self._store is not None:
                with suppress(Exception):
                    self._store.close()
            self._remove_db()
            super().setup_schedule()

    def tick(self, *args: Any, **kwargs: Any) -> float:
        if not self._is_the_one():
            return 2.0
        wait: float = super().tick(*args, **kwargs)
        return min(wait, 5.0)

    def _is_the_one(self) -> bool:
        from django.db import Error, connection

        try:
            with connection.cursor() as cursor:
                # Asked at each tick: with a line that broke unheard the lock is gone.
                held = self._held_on is connection.connection
                cursor.execute("SELECT %s OR pg_try_advisory_lock(%s)", [held, LOCK])
                row = cursor.fetchone()
        except Error:
            connection.close()
            self._held_on = None
            return False
        self._held_on = connection.connection if row and row[0] else None
        return self._held_on is not None


class WithBeat(bootsteps.StartStopStep):
    """A beat beside the work of a worker that was started with `--beats`. It ends with the worker,
    and the worker with it: who started the worker starts both again."""

    def __init__(self, worker: Any, beats: bool = False, **options: Any) -> None:
        super().__init__(worker, **options)
        self.enabled = beats
        self.service: beat.Service | None = None

    def start(self, worker: Any) -> None:
        """Tick from now on."""
        self.service = beat.Service(worker.app, scheduler_cls=OnlyBeat)
        threading.Thread(target=self._tick, name="beat", daemon=True).start()

    def stop(self, worker: Any) -> None:
        """Tick no more. The thread ends with the process: it may sleep for seconds."""
        if self.service is not None:
            service, self.service = self.service, None
            service.stop()

    def terminate(self, worker: Any) -> None:
        """As `stop`."""
        self.stop(worker)

    def _tick(self) -> None:
        service = self.service
        assert service is not None
        try:
            service.start()
        except Exception as error:
            log.exception("beat_failed", error=type(error).__name__)
        if self.service is service:
            os.kill(os.getpid(), signal.SIGTERM)
