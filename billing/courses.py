"""Courses: which cycles a subscription runs through, before and after a change of plan.

A course is a plan, an anchor and the number of the cycle that begins there; its bounds are
`billing.periods`' and never chained. Read by `billing.subscriptions`, `billing.renewals`,
`billing.changes` and whoever needs the cycle of an instant; writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from billing import periods
from billing.models import Plan, Subscription


@dataclass(frozen=True, slots=True)
class Course:
    """The cycles of a plan from an anchor on: cycle number `first` begins there."""

    plan: Plan
    anchor: datetime
    zone: str
    first: int = 0

    def cycle(self, index: int) -> periods.Cycle:
        """The cycle of a number of the subscription.

        Raises:
            ValueError: it lies before the anchor.
        """
        if index < self.first:
            raise ValueError(f"cycle {index} lies before the anchor of cycle {self.first}")
        place = index - self.first
        bounds = periods.cycle(self.anchor, self.plan.billing_interval, place, self.zone)
        return replace(bounds, index=index)

    def index_at(self, now: datetime) -> int:
        """The number of the cycle that holds `now`; the first for anything before the anchor."""
        place = periods.index_at(self.anchor, self.plan.billing_interval, self.zone, now)
        return self.first + place


def running(subscription: Subscription) -> Course:
    """The course the subscription is on now."""
    return Course(
        plan=subscription.plan,
        anchor=subscription.anchor,
        zone=subscription.time_zone,
        first=subscription.anchor_index,
    )


def coming(subscription: Subscription, *, onto: Plan | None = None) -> Course:
    """The course after the running cycle: of the pending plan, if one is (or of `onto`).

    At the same interval the anchor stays, so that it never drifts: an anchor of Jan 31 that changes
    plan on Feb 28 still gives Mar 31. At another interval the end of the cycle is the new anchor.
    """
    plan = onto or subscription.pending_plan or subscription.plan
    if plan.billing_interval == subscription.plan.billing_interval:
        return replace(running(subscription), plan=plan)
    return Course(
        plan=plan,
        anchor=subscription.cycle_end,
        zone=subscription.time_zone,
        first=subscription.cycle_index + 1,
    )
