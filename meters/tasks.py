"""Meters' Celery tasks."""

from __future__ import annotations

from celery import shared_task

from meters import rollups


@shared_task(ignore_result=True)
def compact_usage() -> None:
    """Move noted usage into its sums."""
    rollups.compact()
