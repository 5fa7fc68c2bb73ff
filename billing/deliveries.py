"""Events on their way to the merchant: made after the commit, sent, tried again, given up.

`tell` makes the deliveries of events that were recorded, each with the next number of its endpoint;
`deliver` sends one. Both are the worker's, may run twice and anywhere, and hold no lock while they
talk. A process that dies while it sends leaves a delivery that is due again when its lease ends.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from random import uniform
from typing import Any
from uuid import UUID

import orjson
from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q
from django.utils import timezone

from billing import (
    credits,
    errors,
    events,
    failpoints,
    ids,
    ledger,
    money,
    outbox,
    outgoing,
    webhooks,
)
from billing.api import fields, vocabulary
from billing.models import (
    BalanceTold,
    Connection,
    Delivery,
    DeliveryAttempt,
    Event,
    LedgerEntry,
    Membership,
    Merchant,
    WebhookEndpoint,
)

# Pauses after the first, second, ... failed attempt: three days in all.
PAUSES = (
    timedelta(seconds=5),
    timedelta(seconds=30),
    timedelta(minutes=2),
    timedelta(minutes=10),
    timedelta(minutes=30),
    timedelta(hours=1),
    timedelta(hours=3),
    timedelta(hours=6),
    timedelta(hours=12),
    timedelta(hours=24),
    timedelta(hours=24),
)
# An attempt is lost when it has not said how it went by then: longer than one may take.
LEASE = timedelta(minutes=2)
# An endpoint that has not taken anything for so long is paused.
PAUSE_AFTER = timedelta(days=3)
BATCH = 200
BALANCE_UPDATED = "connection.wallet.balance.updated"
_UP_TO_DATE = {"entry_count": F("connection__entry_count")}


def untold() -> list[UUID]:
    """Merchants with events whose deliveries are not made yet."""
    rows = Event.objects.filter(is_told=False).order_by("merchant_id")
    return list(rows.values_list("merchant_id", flat=True).distinct()[:BATCH])


@transaction.atomic
def tell(merchant_id: UUID, *, now: datetime) -> list[UUID] | None:
    """Make the deliveries of a merchant's recorded events, at most a batch; gives their ids, or
    None once there is nothing left to tell.

    The endpoints' rows are locked, so that numbers have no gaps; two workers take turns.
    """
    waiting = Event.objects.filter(merchant_id=merchant_id, is_told=False)
    heard = WebhookEndpoint.objects.filter(merchant_id=merchant_id, deleted_at=None)
    # In one statement: an event that is seen here was recorded after every endpoint that is not.
    waiting.filter(~Exists(heard)).update(is_told=True)
    endpoints = list(
        heard.select_for_update(no_key=True, of=("self",)).select_related("merchant").order_by("pk")
    )
    batch = list(
        waiting.select_for_update(skip_locked=True, no_key=True, of=("self",)).order_by("pk")[
            :BATCH
        ]
    )
    if not batch:
        return None
    made = []
    for event in batch:
        body = message(event)
        for endpoint in endpoints:
            if endpoint.events and event.name not in endpoint.events:
                continue
            # An endpoint hears of what happened since it was made.
            if ids.made_at(event.pk) < ids.made_at(endpoint.pk):
                continue
            endpoint.sequence += 1
            made.append(
                Delivery(
                    pk=ids.new(sandbox=endpoint.merchant.is_sandbox),
                    merchant=endpoint.merchant,
                    endpoint=endpoint,
                    event=event,
                    sequence=endpoint.sequence,
                    body=body,
                    next_attempt_at=now,
                    created_at=now,
                )
            )
    Delivery.objects.bulk_create(made)
    WebhookEndpoint.objects.bulk_update(endpoints, ["sequence"])
    Event.objects.filter(pk__in=[event.pk for event in batch]).update(is_told=True)
    return [row.pk for row in made]


def note_balances() -> int:
    """Record `connection.wallet.balance.updated` for balances that moved since they were told.

    The only writer of that event, whatever moved the balance: a charge, a grant, an ending. Many
    lines in a moment are one event, and the charge itself stays one statement. Only merchants with
    an endpoint that wants it are looked at. Gives how many were recorded.
    """
    wanted = WebhookEndpoint.objects.filter(
        Q(events=[]) | Q(events__contains=[BALANCE_UPDATED]), deleted_at=None, paused_at=None
    )
    moved = list(
        Connection.objects.filter(merchant__in=wanted.values("merchant"), entry_count__gt=0)
        .exclude(Exists(BalanceTold.objects.filter(connection=OuterRef("pk"), **_UP_TO_DATE)))
        .exclude(status=Connection.Status.DELETED)
        .order_by("pk")
        .values_list("pk", flat=True)[:BATCH]
    )
    for connection_id in moved:
        _note_balance(connection_id)
    return len(moved)


@transaction.atomic
def _note_balance(connection_id: UUID) -> None:
    row = ledger.lock(connection_id)
    told, made = BalanceTold.objects.get_or_create(
        connection=row, defaults={"entry_count": row.entry_count}
    )
    if not made and told.entry_count == row.entry_count:
        return
    lines = LedgerEntry.objects.filter(connection=row)
    if not made:
        lines = lines.filter(seq__gt=told.entry_count)
    BalanceTold.objects.filter(connection=row).update(entry_count=row.entry_count)
    now = row.merchant.now()
    found = credits.balance(row, now=now)
    events.record(
        row.merchant,
        BALANCE_UPDATED,
        now=now,
        connection=row,
        currency=found.currency,
        balance={
            "total_remaining": money.wire(found.total),
            "cycle_remaining": money.wire(found.cycle),
            "bundle_remaining": money.wire(found.bundle),
            "overage_due": money.wire(found.debt),
        },
        causes=sorted(lines.values_list("kind", flat=True).distinct().order_by()),
        ledger_seq=row.entry_count,
    )


def message(event: Event) -> str:
    """What is sent of an event, once and for all."""
    data: dict[str, Any] = dict(event.data)
    if event.connection_id is not None:
        data = {"connection_id": ids.public("con", event.connection_id)} | data
    return orjson.dumps(
        {
            "id": event.public_id,
            "event": event.name,
            "created_at": fields.instant(event.created_at),
            "data": vocabulary.speak(data, vocabulary.Words.BOTH),
        }
    ).decode()


def due(now: datetime) -> list[UUID]:
    """Deliveries whose attempt is due, in the order of their numbers where it can be kept."""
    rows = Delivery.objects.filter(
        state=Delivery.State.PENDING,
        next_attempt_at__lte=now,
        endpoint__paused_at=None,
        endpoint__deleted_at=None,
    )
    return list(rows.order_by("next_attempt_at", "pk").values_list("pk", flat=True)[:BATCH])


def deliver(delivery_id: UUID) -> bool:
    """Send one delivery if it is due; gives whether it was taken. Never two attempts at once."""
    now = timezone.now()
    delivery = _claim(delivery_id, now=now)
    if delivery is None:
        return False
    failpoints.at("delivery.claimed")
    endpoint, body = delivery.endpoint, delivery.body.encode()
    try:
        signed = webhooks.headers(endpoint, message_id=delivery.event.public_id, body=body, at=now)
    except errors.Unavailable as error:
        outcome = outgoing.Outcome(status=None, body="", error=error.message, duration_ms=0)
    else:
        outcome = outgoing.post(
            endpoint.url,
            body,
            headers=signed
            | {
                "Content-Type": "application/json",
                "User-Agent": "Lava-Webhooks/1",
                "X-Webhook-Sequence": str(delivery.sequence),
                "X-Webhook-Attempt": str(delivery.attempts),
            },
            local=webhooks.local_allowed(endpoint.merchant),
        )
    failpoints.at("delivery.sent")
    _settle(delivery, outcome, now=timezone.now())
    return outcome.ok


@transaction.atomic
def resend(delivery: Delivery, *, now: datetime) -> None:
    """Have a delivery sent again, same id and bytes; also one that was taken or given up."""
    Delivery.objects.filter(pk=delivery.pk).update(
        state=Delivery.State.PENDING, attempts=0, next_attempt_at=now, delivered_at=None
    )


def send_now(endpoint: WebhookEndpoint, *, now: datetime) -> int:
    """Have everything that waits for an endpoint sent now; gives how much. Same ids and bytes."""
    waiting = Delivery.objects.filter(endpoint=endpoint, state=Delivery.State.PENDING)
    return int(waiting.filter(next_attempt_at__gt=now).update(next_attempt_at=now))


@transaction.atomic
def _claim(delivery_id: UUID, *, now: datetime) -> Delivery | None:
    """Take a delivery for one attempt: counted and leased before a byte is sent."""
    row: Delivery | None = (
        Delivery.objects.select_for_update(skip_locked=True, no_key=True, of=("self",))
        .select_related("endpoint__merchant__organization", "event")
        .filter(
            pk=delivery_id,
            state=Delivery.State.PENDING,
            next_attempt_at__lte=now,
            endpoint__paused_at=None,
            endpoint__deleted_at=None,
        )
        .first()
    )
    if row is None:
        return None
    row.attempts += 1
    row.next_attempt_at = now + LEASE
    row.save(update_fields=["attempts", "next_attempt_at"])
    return row


@transaction.atomic
def _settle(delivery: Delivery, outcome: outgoing.Outcome, *, now: datetime) -> None:
    """Write down how an attempt went and when the next is due; the endpoint is locked first."""
    endpoint = (
        WebhookEndpoint.objects.select_for_update(no_key=True, of=("self",))
        .select_related("merchant__organization")
        .get(pk=delivery.endpoint_id)
    )
    DeliveryAttempt.objects.create(
        delivery=delivery,
        number=delivery.attempts,
        status=outcome.status,
        error=outcome.error[:255],
        answer=outcome.body.replace("\x00", "\ufffd"),
        duration_ms=outcome.duration_ms,
        at=now,
    )
    # A lost attempt that comes back late changes nothing but the log.
    mine = Delivery.objects.filter(
        pk=delivery.pk, attempts=delivery.attempts, state=Delivery.State.PENDING
    )
    if outcome.ok:
        mine.update(state=Delivery.State.DELIVERED, delivered_at=now)
        if endpoint.failing_since is not None:
            endpoint.failing_since = None
            endpoint.save(update_fields=["failing_since"])
        return
    if delivery.attempts > len(PAUSES):
        mine.update(state=Delivery.State.FAILED)
    else:
        pause = PAUSES[delivery.attempts - 1] * uniform(0.9, 1.1)  # noqa: S311
        mine.update(next_attempt_at=now + pause)
    if endpoint.failing_since is None:
        endpoint.failing_since = now
        endpoint.save(update_fields=["failing_since"])
    elif endpoint.paused_at is None and now - endpoint.failing_since >= PAUSE_AFTER:
        _pause(endpoint, outcome, now=now)


def _pause(endpoint: WebhookEndpoint, outcome: outgoing.Outcome, *, now: datetime) -> None:
    """Stop an endpoint that takes nothing, and tell the owners of the business."""
    endpoint.paused_at = now
    endpoint.save(update_fields=["paused_at"])
    merchant: Merchant = endpoint.merchant
    reason = outcome.error or f"it answered {outcome.status}"
    owners = Membership.objects.filter(
        organization=merchant.organization, role=Membership.Role.OWNER
    ).select_related("user")
    for owner in owners:
        outbox.mail(
            merchant,
            to=owner.user.email,
            subject=f"Your webhook {endpoint.name} is paused",
            body=(
                f"Every message to {endpoint.url} has failed for three days; the last time: "
                f"{reason}\n\nNothing is lost: mend the address, then resume the webhook in the "
                "console under Developers, and what has waited is sent.\n"
            ),
            now=merchant.now(),
        )
