"""Holds: credits set aside for work that is about to run.

Written by `billing/sql/holds.sql` alone, under the connection's lock; `billing.holds` is its door.
"""

from __future__ import annotations

from django.db import models

from billing.models.base import Walled, bounded, credit_field
from billing.models.connections import Connection


class Hold(Walled):
    """An amount that nothing else may spend until it is settled or released.

    No ledger line: nothing has moved yet. The open holds of a connection add up to its `held`,
    which every check of what can be spent takes off. A hold ends once, by its charge (`settled`),
    by its holder (`released`) or by the sweep after `expires_at` (`expired`). Work that has run is
    charged all the same: one that expired is `settled` by a charge that comes late.
    """

    ID_PREFIX = "hld"

    class State(models.TextChoices):
        OPEN = "open", "Set aside"
        SETTLED = "settled", "Charged"
        RELEASED = "released", "Given back"
        EXPIRED = "expired", "Given back after its time"

    connection = models.ForeignKey(
        Connection,
        on_delete=models.PROTECT,
        related_name="holds",
        db_index=False,
        db_constraint=False,
    )
    amount = credit_field()
    state = models.CharField(max_length=8, choices=State, default=State.OPEN)
    # What it is for, as the holder says, e.g. `gateway` or the merchant's own words.
    purpose = models.CharField(max_length=255, blank=True)
    # On the merchant's clock.
    expires_at = models.DateTimeField()
    created_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)
    # The request that was charged for its work; its table is meters'.
    request_id = models.UUIDField(null=True)

    class Meta:
        indexes = [
            models.Index(fields=["merchant", "-id"], name="hold_by_merchant"),
            models.Index(
                fields=["connection", "expires_at"],
                name="hold_that_is_open",
                condition=models.Q(state="open"),
            ),
        ]
        constraints = [
            models.CheckConstraint(condition=bounded("amount"), name="a_hold_is_not_negative"),
            models.CheckConstraint(
                condition=models.Q(state="open", ended_at=None)
                | (~models.Q(state="open") & models.Q(ended_at__isnull=False)),
                name="a_hold_has_ended_or_is_open",
            ),
            models.CheckConstraint(
                condition=models.Q(request_id=None) | models.Q(state="settled"),
                name="a_hold_with_a_request_is_settled",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.amount} for {self.purpose or 'work'}"
