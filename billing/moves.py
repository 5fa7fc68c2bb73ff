"""Moves: bring the subscribers of one version of a plan to another version of it.

Nobody is moved by making a version (`plans.new_version`); a merchant who wants it looks at
`preview`, then calls `start`. The job goes subscriber by subscriber, each in a transaction of its
own that also moves the job's cursor, so it can stop at any instant and goes on where it was: `run`
is called by a worker, and the sweep finds jobs that are not done. Nothing is charged by a move.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from moneyed import Money

from billing import courses, errors, events, ledger, renewals, subscriptions
from billing.models import Plan, PlanMove, Subscription


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a move does to one subscriber. `left`: why it stays as it is, or empty."""

    subscription: Subscription
    effective_at: datetime
    from_price: Money
    to_price: Money
    keeps_top_up: bool
    # The new version costs something and there is no saved card: its renewal would be declined.
    lacks_card: bool
    left: str


def preview(
    from_plan: Plan,
    *,
    to_plan: Plan,
    when: str,
    now: datetime,
    after: UUID | None = None,
    most: int = 100,
) -> list[Change]:
    """What a move would do, subscriber by subscriber in the order of the job; `after`: the id of
    the last one of the page before. Changes nothing.

    Raises:
        billing.errors.Conflict: as `start`.
    """
    _check(from_plan, to_plan, when)
    return [_change(row, to_plan, when, now=now) for row in _after(from_plan, after)[:most]]


@transaction.atomic
def start(from_plan: Plan, *, to_plan: Plan, when: str, actor: str, now: datetime) -> PlanMove:
    """Begin to move everybody who is on a version to another one. Asked twice, it is the same job.

    Raises:
        billing.errors.Invalid: nobody's name is given, or no such `when`.
        billing.errors.Conflict: they are not versions of one plan, the target is offered no more,
            another move of these subscribers is under way, or (at once) the intervals differ.
    """
    _check(from_plan, to_plan, when)
    if not actor.strip():
        raise errors.Invalid("Say who moves the subscribers.", param="actor")
    Plan.objects.select_for_update().get(pk=from_plan.pk)
    made: PlanMove | None = PlanMove.objects.filter(
        from_plan=from_plan, state=PlanMove.State.RUNNING
    ).first()
    if made is not None:
        if (made.to_plan_id, made.when) != (to_plan.pk, when):
            raise errors.Conflict("These subscribers are being moved already.")
        return made
    move = PlanMove(
        merchant=from_plan.merchant,
        from_plan=from_plan,
        to_plan=to_plan,
        when=when,
        actor=actor.strip(),
        created_at=now,
    )
    move.save()
    return move


def run(move_id: UUID, *, now: datetime, most: int | None = None) -> PlanMove:
    """Go on with a job, to its end or for so many subscribers. Two workers at once move each
    subscriber once."""
    for count, _ in enumerate(_steps(move_id, now=now), start=1):
        if count == most:
            break
    found: PlanMove = PlanMove.objects.get(pk=move_id)
    return found


def _steps(move_id: UUID, *, now: datetime) -> Iterator[None]:
    while True:
        move = PlanMove.objects.select_related("from_plan", "to_plan").get(pk=move_id)
        if move.state == PlanMove.State.DONE:
            return
        following = _after(move.from_plan, move.cursor).first()
        if following is None:
            PlanMove.objects.filter(
                pk=move_id, cursor=move.cursor, state=PlanMove.State.RUNNING
            ).update(state=PlanMove.State.DONE, finished_at=now)
            continue
        _step(move_id, following, now=now)
        yield


@transaction.atomic
def _step(move_id: UUID, subscription: Subscription, *, now: datetime) -> None:
    """Move one subscriber and the cursor past them. Locks: the connection, then the job."""
    connection = ledger.lock(subscription.connection_id)
    move = (
        PlanMove.objects.select_for_update(of=("self",), no_key=True)
        .select_related("from_plan", "to_plan")
        .get(pk=move_id)
    )
    if move.cursor is not None and move.cursor >= subscription.pk:
        return
    subscription = subscriptions.locked(subscription)
    change = _change(subscription, move.to_plan, move.when, now=now)
    if change.left:
        move.left += 1
    else:
        move.moved += 1
        if move.when == PlanMove.When.AT_ONCE and not _is_renewing(subscription):
            _swap(subscription, move.to_plan)
        else:
            subscription.pending_change = Subscription.PendingChange.MOVE
            subscription.pending_plan = move.to_plan
            subscription.save()
        events.record(
            subscription.merchant,
            "subscription.changed",
            now=now,
            connection=connection,
            subscription_id=subscription.public_id,
            plan_id=subscription.plan.public_id,
            previous_plan_id=move.from_plan.public_id,
            pending_change=subscription.pending_change,
            pending_plan=move.to_plan.public_id if subscription.pending_plan else None,
        )
    move.cursor = subscription.pk
    move.save(update_fields=["cursor", "moved", "left"])


def _swap(subscription: Subscription, plan: Plan) -> None:
    """Another version in the running cycle: its terms count from now on, its price and credits from
    the next cycle."""
    subscription.auto_top_up_bundle = subscriptions.same_bundle(
        subscription.auto_top_up_bundle, plan
    )
    subscription.plan = plan
    subscription.save()


def _is_renewing(subscription: Subscription) -> bool:
    """Whether the next cycle is being paid on the old version: then it moves with the one after."""
    return bool(renewals.under_way().filter(subscription=subscription).exists())


def _after(plan: Plan, cursor: UUID | None) -> Any:
    rows = (
        Subscription.objects.current()
        .filter(plan=plan)
        .select_related("plan", "pending_plan", "merchant", "auto_top_up_bundle", "connection")
    )
    if cursor is not None:
        rows = rows.filter(pk__gt=cursor)
    return rows.order_by("pk")


def _change(subscription: Subscription, plan: Plan, when: str, *, now: datetime) -> Change:
    pending = subscription.pending_change
    left = ""
    if subscription.status not in Subscription.CURRENT or subscription.plan_id == plan.pk:
        left = "ended"
    elif pending == Subscription.PendingChange.CANCELLATION:
        left = "cancels"
    elif pending is not None:
        left = "another_change"
    at_once = when == PlanMove.When.AT_ONCE
    course = courses.coming(subscription, onto=plan)
    following = max(course.index_at(now), subscription.cycle_index + 1)
    bundle = subscription.auto_top_up_bundle
    return Change(
        subscription=subscription,
        effective_at=now if at_once else course.cycle(following).start,
        from_price=subscription.plan.price,
        to_price=plan.price,
        keeps_top_up=bundle is None or subscriptions.same_bundle(bundle, plan) is not None,
        lacks_card=plan.needs_card and subscription.connection.card is None,
        left=left,
    )


def _check(from_plan: Plan, to_plan: Plan, when: str) -> None:
    if when not in PlanMove.When.values:
        raise errors.Invalid(f"Choose one of {', '.join(PlanMove.When.values)}.", param="when")
    if from_plan.pk == to_plan.pk or from_plan.head_id != to_plan.head_id:
        raise errors.Conflict("Move subscribers between two versions of one plan.", param="to_plan")
    if to_plan.archived_at is not None:
        raise errors.Conflict(f"{to_plan} is offered no more.", code="plan_archived")
    at_once = when == PlanMove.When.AT_ONCE
    if at_once and from_plan.billing_interval != to_plan.billing_interval:
        raise errors.Conflict(
            "The interval differs: it can change with the next cycle only.", param="when"
        )
