"""The Celery app and its timetable, at one glance.

A message only wakes a worker: what is due, the database says (`billing.sweep`). So nothing here
needs results, and a lost message or a task that runs twice changes nothing.
"""

from __future__ import annotations

import os
from typing import Any

import structlog
from celery import Celery, Task
from celery.schedules import crontab
from click import Option
from django.conf import settings

from lava.beating import WithBeat

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "lava.settings")


def broker_url() -> str:
    """The broker of the environment, or the embedded one's socket."""
    if settings.CELERY_BROKER_URL:
        return str(settings.CELERY_BROKER_URL)
    from lava import broker

    return broker.url()


class Timely(Task):
    """A task that runs only where the clock is right; the sweep finds again what it was for."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from lava import clocks

        if clocks.is_right():
            return super().__call__(*args, **kwargs)
        log.error("clock_differs", task=self.name)
        return None


log = structlog.get_logger(__name__)
app = Celery("lava", task_cls=Timely)
app.conf.update(
    broker_url=broker_url(),
    task_ignore_result=True,
    task_serializer="json",
    accept_content=["json"],
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    # A dead broker must not hold up an answer: the sweep finds the work.
    broker_connection_timeout=0.5,
    task_publish_retry=False,
    broker_transport_options={
        "visibility_timeout": 600,
        "socket_connect_timeout": 0.5,
        "socket_timeout": 10,
    },
    beat_scheduler="lava.beating:OnlyBeat",
    beat_schedule_filename=str(settings.STATE_DIR / "beat"),
    beat_schedule={
        "sweep": {"task": "billing.tasks.sweep", "schedule": 5.0, "options": {"expires": 5}},
        "settle cycles": {
            "task": "billing.tasks.settle_cycles",
            "schedule": 60.0,
            "options": {"expires": 60},
        },
        "note balances": {
            "task": "billing.tasks.note_balances",
            "schedule": 5.0,
            "options": {"expires": 5},
        },
        "compact usage": {
            "task": "meters.tasks.compact_usage",
            "schedule": 5.0,
            "options": {"expires": 5},
        },
        "make months": {
            "task": "meters.tasks.make_months",
            "schedule": 3600.0,
            "options": {"expires": 3600},
        },
        "forget calls": {
            "task": "billing.tasks.forget_calls",
            "schedule": 3600.0,
            "options": {"expires": 3600},
        },
        "settle dead calls": {
            "task": "meters.tasks.sweep_calls",
            "schedule": 10.0,
            "options": {"expires": 10},
        },
        "reconcile what was asked for": {
            "task": "lava.tasks.reconcile_waiting",
            "schedule": 30.0,
            "options": {"expires": 30},
        },
        "reconcile each night": {
            "task": "lava.tasks.reconcile_nightly",
            "schedule": crontab(hour="3", minute="40"),
            "options": {"expires": 3600},
        },
        "expire checkouts": {
            "task": "checkout.tasks.expire",
            "schedule": 60.0,
            "options": {"expires": 60},
        },
    },
)
app.autodiscover_tasks(["billing", "meters", "checkout", "lava"])
app.steps["worker"].add(WithBeat)
app.user_options["worker"].add(Option(["--beats"], is_flag=True, help="Tick as well."))
