"""Celery tasks of the wiring: work that looks at several apps. Each may run twice."""

from __future__ import annotations

from uuid import UUID

from celery import shared_task
from django.utils import timezone

from billing import hints, reconciliations
from lava import reconciling


@shared_task(ignore_result=True)
def reconcile(run_id: str) -> None:
    """Do one run of reconciling that was asked for."""
    reconciling.run(UUID(run_id))


@shared_task(ignore_result=True)
def reconcile_waiting() -> None:
    """Do the runs that no worker is at: asked for while the broker was away, or left by a kill."""
    for run_id in reconciliations.waiting(timezone.now()):
        reconcile.delay(str(run_id))


@shared_task(ignore_result=True)
def reconcile_nightly() -> None:
    """Ask for a run of every merchant's books that have payments."""
    now = timezone.now()
    for merchant in reconciliations.to_look_at():
        reconciliations.ask(merchant, since=now - reconciling.WINDOW, now=now)
    reconcile_waiting.delay()


def hint(run_id: UUID) -> None:
    """Wake a worker for a run; with the broker away the timetable finds it."""
    hints.wake(reconcile, run_id)
