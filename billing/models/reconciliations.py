"""What a look at the books and at the card network found, kept to be read.

Written by `billing.reconciliations` alone.
"""

from __future__ import annotations

from django.db import models

from billing.models.base import Tenant


class Reconciliation(Tenant):
    """One run: asked for, done by a worker, read in the console. It changes nothing it looks at."""

    ID_PREFIX = "rcn"

    class State(models.TextChoices):
        WAITING = "waiting", "Waits for a worker"
        RUNNING = "running", "Under way"
        DONE = "done", "Done"
        # The network did not answer; what the books say of themselves is kept.
        FAILED = "failed", "Not finished"

    OPEN = (State.WAITING, State.RUNNING)

    state = models.CharField(max_length=7, choices=State, default=State.WAITING)
    # Who asked; empty for the timetable.
    actor = models.CharField(max_length=255, blank=True)
    # Both sides are compared from here on, in real time; null: from the beginning.
    since = models.DateTimeField(null=True, blank=True)
    # Real times, as the network's are.
    asked_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    # [{"name", "sides", "first", "second", "off", "count"}, ...], amounts as strings.
    checks = models.JSONField(default=list)
    # [{"kind", "ours", "theirs", "our_amount", "their_amount", "currency", "payment", "refund",
    #   "mended_by", "mended_at", "left"}, ...]
    gaps = models.JSONField(default=list)
    # Why it is not finished, for people.
    error = models.CharField(max_length=255, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["merchant"],
                name="one_reconciliation_at_a_time",
                condition=models.Q(state__in=["waiting", "running"]),
            ),
            models.CheckConstraint(
                condition=models.Q(state__in=["waiting", "running"], finished_at=None)
                | models.Q(state__in=["done", "failed"], finished_at__isnull=False),
                name="a_reconciliation_that_is_over_says_when",
            ),
        ]
        indexes = [models.Index(fields=["merchant", "-id"], name="reconciliation_by_merchant")]

    def __str__(self) -> str:
        return f"Reconciliation, {self.asked_at:%Y-%m-%d %H:%M}"

    @property
    def open_gaps(self) -> list[dict[str, object]]:
        """The gaps nobody has mended since."""
        return [gap for gap in self.gaps if not gap.get("mended_at")]
