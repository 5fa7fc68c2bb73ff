"""A merchant's wish to move the subscribers of one plan to another version of it.

Written by `billing.moves` alone.
"""

from __future__ import annotations

from django.db import models

from billing.models.base import Tenant
from billing.models.plans import Plan


class PlanMove(Tenant):
    """A job that moves subscribers one by one; it goes on after `cursor` whenever it stopped."""

    ID_PREFIX = "mov"

    class When(models.TextChoices):
        NEXT_CYCLE = "next_cycle", "At the end of each one's cycle"
        AT_ONCE = "at_once", "At once, in the running cycle"

    class State(models.TextChoices):
        RUNNING = "running", "Under way"
        DONE = "done", "Done"

    from_plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="moves_away")
    to_plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="moves_here")
    when = models.CharField(max_length=10, choices=When)
    state = models.CharField(max_length=7, choices=State, default=State.RUNNING)
    # Who asked for it.
    actor = models.CharField(max_length=255)
    # The last subscription looked at, in the order of their ids.
    cursor = models.UUIDField(null=True, editable=False)
    moved = models.PositiveIntegerField(default=0)
    # Left where they are: cancelled at the end of the cycle, another change pending, ended.
    left = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["from_plan"],
                name="a_plan_has_one_move_under_way",
                condition=models.Q(state="running"),
            ),
            models.CheckConstraint(
                condition=~models.Q(from_plan=models.F("to_plan")),
                name="a_move_goes_somewhere",
            ),
            models.CheckConstraint(
                condition=models.Q(state="running", finished_at=None)
                | models.Q(state="done", finished_at__isnull=False),
                name="a_move_that_is_done_says_when",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.from_plan} to {self.to_plan}"
