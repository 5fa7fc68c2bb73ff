"""Checkout's Celery tasks, on the timetable of `lava/celery.py`. Each may run twice."""

from __future__ import annotations

from celery import shared_task
from django.utils import timezone

from checkout import sessions
from checkout.portal import visits


@shared_task(ignore_result=True)
def expire() -> None:
    """Mark the sessions whose day is over; ask once more about those with a payment open. Forget
    visits to the portal of long ago."""
    now = timezone.now()
    sessions.expire(now=now)
    visits.forget(now=now)
