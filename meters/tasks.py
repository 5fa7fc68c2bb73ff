"""Meters' Celery tasks: find ids, call one verb per id. Each may run twice."""

from __future__ import annotations

from celery import shared_task
from django.utils import timezone

from meters import months, rollups
from meters.gateway import sweep


@shared_task(ignore_result=True)
def compact_usage() -> None:
    """Move noted usage into its sums."""
    rollups.compact()


@shared_task(ignore_result=True)
def make_months() -> None:
    """Make room for the requests of the months to come."""
    months.make()


@shared_task(ignore_result=True)
def sweep_calls() -> None:
    """Settle or free the gateway calls that a dead process left."""
    now = timezone.now()
    for call_id in sweep.dead(now):
        sweep.settle(call_id, now=now)
