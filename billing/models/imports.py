"""A merchant's wish to enter many customers at once, read and looked at before.

Written by `billing.imports` alone.
"""

from __future__ import annotations

from django.db import models

from billing.models.base import Tenant


class CustomerImport(Tenant):
    """A job that makes customers line by line; it goes on after `made` + `left` of its lines."""

    ID_PREFIX = "imp"

    class State(models.TextChoices):
        RUNNING = "running", "Under way"
        DONE = "done", "Done"

    # Of the page it was confirmed on: pressed twice, it is one job.
    key = models.CharField(max_length=64)
    filename = models.CharField(max_length=255)
    # What the lines say, by the words of `billing.connections.create`; dropped when it is done.
    lines = models.JSONField(default=list)
    count = models.PositiveIntegerField()
    state = models.CharField(max_length=7, choices=State, default=State.RUNNING)
    # Who asked for it.
    actor = models.CharField(max_length=255)
    made = models.PositiveIntegerField(default=0)
    # Left as they are: there was a customer of that phone or reference.
    left = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["merchant", "key"], name="an_import_is_confirmed_once"),
            models.CheckConstraint(
                condition=models.Q(state="running", finished_at=None)
                | models.Q(
                    state="done",
                    finished_at__isnull=False,
                    count=models.F("made") + models.F("left"),
                ),
                name="an_import_that_is_done_did_every_line",
            ),
        ]
        indexes = [
            models.Index(
                fields=["id"], name="import_under_way", condition=models.Q(state="running")
            ),
        ]

    def __str__(self) -> str:
        return self.filename

    @property
    def done(self) -> int:
        """How many lines were done."""
        return int(self.made) + int(self.left)
