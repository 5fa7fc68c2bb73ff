"""Who ticks: any number of beats may run, and one of them does; and a beat inside a worker.

`lava.celery` names both. A worker started with `--beats` has a beat in a thread of its own, as `up`
has it: a process less. Larger installations run `celery beat` beside their workers.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import structlog
from celery import beat, bootsteps

log = structlog.get_logger(__name__)

# Held by the one beat that ticks; others wait for it.
LOCK = 0x1A7A


class OnlyBeat(beat.PersistentScheduler):
    """A beat that ticks only while it holds the database's advisory lock: any number may run."""

    def tick(self, *args: Any, **kwargs: Any) -> float:
        if not self._is_the_one():
            return 2.0
        wait: float = super().tick(*args, **kwargs)
        return min(wait, 5.0)

    def _is_the_one(self) -> bool:
        from django.db import DatabaseError, connection

        try:
            with connection.cursor() as cursor:
                if getattr(self, "_held_by", None) == id(connection.connection):
                    return True
                cursor.execute("SELECT pg_try_advisory_lock(%s)", [LOCK])
                row = cursor.fetchone()
        except DatabaseError:
            connection.close()
            self._held_by = None
            return False
        held = bool(row and row[0])
        self._held_by = id(connection.connection) if held else None
        return held


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
