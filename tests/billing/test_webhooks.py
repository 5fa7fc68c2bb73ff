"""Webhooks out: recorded with their cause, signed twice, sent until taken, logged, paused."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import threading
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import standardwebhooks
from django.db import connection, transaction
from django.test import Client
from django.utils import timezone

from billing import credits, deliveries, errors, events, ledger, outgoing, secrets, webhooks
from billing.models import Delivery, DeliveryAttempt, Event, OutboxMessage, WebhookEndpoint
from tests import factories
from tests.receiver import Receiver, drip

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    running = Receiver()
    yield running
    running.close()


@pytest.fixture
def shop(receiver: Receiver) -> Any:
    class Shop:
        merchant = factories.make_merchant()
        endpoint, secret = webhooks.create(
            merchant, name="Ours", url=receiver.url, now=timezone.now()
        )
        customer = factories.make_connection(merchant)

        def record(self, name: str = "payment.succeeded", **data: Any) -> Event:
            return events.record(
                self.merchant,
                name,
                now=self.merchant.now(),
                connection=self.customer,
                **data,
            )

        def send(self) -> None:
            """What the worker does in one sweep."""
            while deliveries.tell(self.merchant.pk, now=timezone.now()) is not None:
                pass
            for row in deliveries.due(timezone.now()):
                deliveries.deliver(row)

    return Shop()


def test_both_signatures_verify_with_the_reference_library_and_by_hand(
    shop: Any, receiver: Receiver
) -> None:
    event = shop.record(amount="10.00", note="\u00e9")
    shop.send()
    (headers, body) = receiver.received[-1]
    told = standardwebhooks.Webhook(shop.secret).verify(body, headers)
    assert told == json.loads(body)
    assert told["id"] == headers["webhook-id"] == event.public_id
    assert told["event"] == "payment.succeeded"
    assert told["data"] == {
        "connection_id": shop.customer.public_id,
        "customer_id": shop.customer.public_id,
        "amount": "10.00",
        "note": "\u00e9",
    }
    assert headers["X-Webhook-Signature"] == (
        hmac.new(shop.secret.encode(), body, hashlib.sha256).hexdigest()
    )
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(shop.secret).verify(body + b" ", headers)


def test_what_was_rolled_back_is_never_told(shop: Any, receiver: Receiver) -> None:
    shop.send()
    before = len(receiver.received)
    try:
        with transaction.atomic():
            shop.record()
            raise LookupError
    except LookupError:
        pass
    shop.send()
    assert len(receiver.received) == before


def test_a_failure_is_tried_again_with_the_same_id_and_bytes_until_it_is_taken(
    shop: Any, receiver: Receiver
) -> None:
    receiver.answers = [500, 302, 204]
    shop.record()
    shop.send()
    for _ in range(3):
        Delivery.objects.update(next_attempt_at=timezone.now())
        shop.send()
    assert len({(headers["webhook-id"], body) for headers, body in receiver.received}) == 1
    assert [headers["X-Webhook-Attempt"] for headers, _ in receiver.received] == ["1", "2", "3"]
    row = Delivery.objects.get()
    assert (row.state, row.attempts) == ("delivered", 3)
    assert [attempt.status for attempt in row.log.all()] == [500, 302, 204]
    assert WebhookEndpoint.objects.get().failing_since is None
    # Taken is taken.
    shop.send()
    assert len(receiver.received) == 3


def test_tries_go_on_for_three_days_and_then_it_is_given_up(
    shop: Any, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    total = sum(deliveries.PAUSES, timedelta())
    assert timedelta(days=2, hours=20) < total < timedelta(days=3, hours=6)
    monkeypatch.setattr(deliveries, "PAUSE_AFTER", timedelta(days=300))
    receiver.answers = [503]
    shop.record()
    shop.send()
    for _ in deliveries.PAUSES:
        waiting = Delivery.objects.get()
        assert waiting.state == "pending" and waiting.next_attempt_at > timezone.now()
        Delivery.objects.update(next_attempt_at=timezone.now())
        shop.send()
    row = Delivery.objects.get()
    assert (row.state, row.attempts) == ("failed", len(deliveries.PAUSES) + 1)
    # Sent again by hand, it is the same message.
    receiver.answers = [200]
    deliveries.resend(row, now=timezone.now())
    shop.send()
    assert Delivery.objects.get().state == "delivered"
    assert len({body for _, body in receiver.received}) == 1


def test_an_endpoint_that_fails_for_days_is_paused_and_its_owner_told(
    shop: Any, receiver: Receiver
) -> None:
    receiver.answers = [500]
    shop.record()
    shop.send()
    WebhookEndpoint.objects.update(failing_since=timezone.now() - timedelta(days=3))
    Delivery.objects.update(next_attempt_at=timezone.now())
    shop.send()
    paused = WebhookEndpoint.objects.get()
    assert paused.paused_at is not None
    mail = OutboxMessage.objects.get(kind="mail")
    assert "paused" in mail.subject and receiver.url in mail.body
    # Nothing is sent, nothing is lost.
    shop.record("payment.failed")
    Delivery.objects.update(next_attempt_at=timezone.now())
    shop.send()
    assert len(receiver.received) == 2
    receiver.answers = [200]
    webhooks.set_paused(paused, paused=False, now=timezone.now())
    Delivery.objects.update(next_attempt_at=timezone.now())
    shop.send()
    assert set(Delivery.objects.values_list("state", flat=True)) == {"delivered"}


def test_a_rotated_secret_signs_beside_the_new_one_for_a_day(shop: Any, receiver: Receiver) -> None:
    fresh = webhooks.rotate(shop.endpoint, now=timezone.now())
    shop.record()
    shop.send()
    (headers, body) = receiver.received[-1]
    for secret in (fresh, shop.secret):
        standardwebhooks.Webhook(secret).verify(body, headers)
    assert headers["X-Webhook-Signature"] == webhooks.plain_signature(fresh, body)
    assert headers["X-Webhook-Signature-Previous"] == webhooks.plain_signature(shop.secret, body)
    WebhookEndpoint.objects.update(previous_until=timezone.now())
    shop.record()
    shop.send()
    (headers, body) = receiver.received[-1]
    standardwebhooks.Webhook(fresh).verify(body, headers)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(shop.secret).verify(body, headers)
    assert "X-Webhook-Signature-Previous" not in headers


def test_each_endpoint_counts_without_gaps_whoever_tells(shop: Any) -> None:
    other, _ = webhooks.create(
        shop.merchant,
        name="Picky",
        url="https://hooks.example.com/",
        wanted=["payment.failed"],
        now=timezone.now(),
    )
    for number in range(30):
        shop.record("payment.failed" if number % 3 == 0 else "payment.succeeded")

    def tell() -> None:
        try:
            while deliveries.tell(shop.merchant.pk, now=timezone.now()) is not None:
                pass
        finally:
            connection.close()

    workers = [threading.Thread(target=tell) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for endpoint, count in ((shop.endpoint, 30), (other, 10)):
        numbers = Delivery.objects.filter(endpoint=endpoint).order_by("sequence")
        assert list(numbers.values_list("sequence", flat=True)) == list(range(1, count + 1))
    assert not Event.objects.filter(is_told=False).exists()


def test_two_workers_send_one_delivery_once(shop: Any, receiver: Receiver) -> None:
    shop.record()
    (row,) = deliveries.tell(shop.merchant.pk, now=timezone.now()) or []

    def send() -> None:
        try:
            deliveries.deliver(row)
        finally:
            connection.close()

    workers = [threading.Thread(target=send) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(receiver.received) == DeliveryAttempt.objects.count() == 1


def test_a_worker_that_dies_while_sending_leaves_it_due_again(
    shop: Any, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.record()
    deliveries.tell(shop.merchant.pk, now=timezone.now())

    def die(*_: Any, **__: Any) -> Any:
        raise SystemExit

    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        patched.setattr(outgoing, "post", die)
        deliveries.deliver(Delivery.objects.get().pk)
    assert deliveries.due(timezone.now()) == []
    assert len(deliveries.due(timezone.now() + deliveries.LEASE)) == 1
    Delivery.objects.update(next_attempt_at=timezone.now())
    shop.send()
    assert Delivery.objects.get().state == "delivered"


def test_a_receiver_that_drips_is_left_in_time(
    shop: Any, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outgoing, "LONGEST_S", 1.0)
    receiver.answers = [drip]
    shop.record()
    shop.send()
    attempt = DeliveryAttempt.objects.get()
    assert attempt.status is None and attempt.error
    assert 900 <= attempt.duration_ms < 4000


def test_a_name_that_points_inside_is_never_reached(
    shop: Any, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int(receiver.url.rsplit(":")[-1].partition("/")[0])
    answers = [[("93.184.215.14", port)], [("93.184.215.14", port), ("127.0.0.1", port)]]

    def resolve(host: str, port: int, **_: Any) -> Any:
        found = answers.pop() if host == "hooks.example.com" else []
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", entry) for entry in found]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    outcome = outgoing.post(f"https://hooks.example.com:{port}/", b"{}", headers={}, local=False)
    assert outcome.status is None and "not called from here" in outcome.error
    assert receiver.received == []


def test_live_books_and_production_never_call_this_machine(
    receiver: Receiver, settings: Any
) -> None:
    live = factories.make_merchant(sandbox=False)
    with pytest.raises(errors.Invalid):
        webhooks.create(live, name="x", url=receiver.url, now=timezone.now())
    settings.WEBHOOKS_TO_LOCALHOST = False
    with pytest.raises(errors.Invalid):
        webhooks.create(factories.make_merchant(), name="x", url=receiver.url, now=timezone.now())
    assert outgoing.post(receiver.url, b"{}", headers={}, local=False).status is None
    assert receiver.received == []


def test_balances_that_moved_are_told_once_however_many_lines(
    shop: Any, receiver: Receiver
) -> None:
    factories.give(shop.customer, "15")
    deliveries.note_balances()
    shop.send()
    receiver.received.clear()
    for _ in range(3):
        with transaction.atomic():
            locked = ledger.lock(shop.customer.pk)
            credits.take(locked, amount=Decimal(1), reason="x", actor="x", now=shop.merchant.now())
    assert deliveries.note_balances() == 1
    assert deliveries.note_balances() == 0
    shop.send()
    told = json.loads(receiver.received[-1][1])
    assert len(receiver.received) == 1
    assert told["event"] == "connection.wallet.balance.updated"
    with transaction.atomic():
        left = credits.balance(ledger.lock(shop.customer.pk), now=shop.merchant.now())
    assert told["data"]["balance"]["total_remaining"] == f"{left.total:.10f}"


def test_secrets_are_sealed_and_shown_once(shop: Any) -> None:
    row = WebhookEndpoint.objects.get()
    assert shop.secret.encode() not in bytes(row.secret)
    assert secrets.open(row.secret) == shop.secret
    key = factories.make_key(shop.merchant)
    for path in ("", f"/{row.public_id}"):
        answer = Client().get(f"/v1/webhooks{path}", headers={"Authorization": f"Bearer {key}"})
        assert answer.status_code == 200 and b"whsec_" not in answer.content


def test_the_eleventh_endpoint_is_refused_and_a_strangers_is_not_found(shop: Any) -> None:
    key = factories.make_key(shop.merchant)

    def call(method: str, path: str, body: Any = None, key: str = key) -> Any:
        return getattr(Client(), method)(
            f"/v1/webhooks{path}",
            body,
            content_type="application/json",
            headers={"Authorization": f"Bearer {key}"},
        )

    for number in range(9):
        made = call("post", "", {"name": f"n{number}", "url": "https://hooks.example.com/"})
        assert made.status_code == 201
    over = call("post", "", {"name": "eleven", "url": "https://hooks.example.com/"})
    assert over.status_code == 409
    stranger = factories.make_key(factories.make_merchant())
    webhook = shop.endpoint.public_id
    for method, path in (
        ("get", f"/{webhook}"),
        ("patch", f"/{webhook}"),
        ("delete", f"/{webhook}"),
        ("get", f"/{webhook}/deliveries"),
        ("post", f"/{webhook}/rotate"),
    ):
        body = {"name": "x"} if method in ("patch", "post") else None
        assert call(method, path, body, stranger).status_code == 404, path


def test_the_log_is_read_and_a_delivery_sent_again_by_the_api(
    shop: Any, receiver: Receiver
) -> None:
    receiver.answers = [500]
    shop.record()
    shop.send()
    headers = {"Authorization": f"Bearer {factories.make_key(shop.merchant)}"}
    base = f"/v1/webhooks/{shop.endpoint.public_id}/deliveries"
    (row,) = Client().get(base, headers=headers).json()["data"]
    assert row["status"] == "pending" and row["attempts"][0]["status"] == 500
    assert row["body"] == receiver.received[0][1].decode()
    again = Client().post(f"{base}/{row['delivery_id']}/resend", headers=headers)
    assert again.status_code == 200
    receiver.answers = [200]
    shop.send()
    (row,) = Client().get(base, headers=headers).json()["data"]
    assert row["status"] == "delivered"
