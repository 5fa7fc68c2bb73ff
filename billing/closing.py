"""What is settled when a cycle is over, before anything is collected or renewed for the next one.

Billing imports none of the rooms above it, so those that have something to settle (`meters.volume`)
register it here when the product starts. Called by `billing.renewals`, `changes`, `upgrades`,
`sweep` and `forecast`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from datetime import datetime
from decimal import Decimal
from typing import Protocol
from uuid import UUID

from billing.models import Merchant


class Settler(Protocol):
    """A room's part in the end of a cycle."""

    def due(self, now: datetime, merchant: Merchant | None = None) -> list[UUID]:
        """Subscriptions with a cycle that is over and not settled, at the real instant `now`."""

    def settle(self, subscription_id: UUID, *, now: datetime, early: bool = False) -> object:
        """Settle what of a subscription's cycles is over on the merchant's clock (`early`: the
        running one too). Twice it is once."""

    def expected(self, subscription_ids: Collection[UUID]) -> dict[UUID, Decimal]:
        """What subscriptions would be given when their cycles end, as it stands; others not."""


_SETTLERS: list[Settler] = []


def register(settler: Settler) -> None:
    """Have a room asked whenever a cycle ends; registered twice, it is asked once."""
    if settler not in _SETTLERS:
        _SETTLERS.append(settler)


def settle(subscription_id: UUID, *, now: datetime, early: bool = False) -> None:
    """Settle a subscription's cycles that are over, each room its part."""
    for settler in _SETTLERS:
        settler.settle(subscription_id, now=now, early=early)


def expected(subscription_ids: Collection[UUID]) -> dict[UUID, Decimal]:
    """What subscriptions would be given when their cycles end, as it stands now."""
    found: dict[UUID, Decimal] = defaultdict(Decimal)
    for settler in _SETTLERS:
        for key, amount in settler.expected(subscription_ids).items():
            found[key] += amount
    return found


def due(now: datetime, merchant: Merchant | None = None) -> list[UUID]:
    """Subscriptions with a cycle that is over and that nobody settled when it ended."""
    return sorted({row for settler in _SETTLERS for row in settler.due(now, merchant)})
