"""Meters' Celery tasks: find ids, call one verb per id. Each may run twice."""

from __future__ import annotations

import structlog
from celery import shared_task
from django.utils import timezone

from meters import months, rollups
from meters.gateway import sweep

log = structlog.get_logger(__name__)


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
        try:
            sweep.settle(call_id, now=now)
        except Exception as error:
            # The others are not held for want of this one.
            log.error("gateway_call_not_swept", call=str(call_id), error=type(error).__name__)
