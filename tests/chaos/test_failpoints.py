"""Every named place where a process may die, died at once: afterwards each charge, refund and
event is there once, the card network's list equals ours, and the audit is silent."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from email import message_from_string
from pathlib import Path

import httpx
import pytest

from billing import failpoints
from tests.chaos.shop import Shop, asked, quarrels, rest, taken
from tests.product import Product, eventually
from tests.receiver import Receiver

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("failpoints")]

REFUND = """
from django.utils import timezone
from billing import ids, refunds
from billing.models import Payment
payment = Payment.objects.filter(
    connection_id=ids.parse("con", {connection!r}), purpose="subscription").get()
refunds.refund(payment, reason="chaos", actor="test", key="chaos:" + str(payment.pk), force=True,
               now=payment.merchant.now())
"""
PHONES = itertools.count(14155550300)


class Armed:
    """A product whose processes die where they are told to."""

    def __init__(self, product: Product, folder: Path) -> None:
        self.product, self.folder = product, folder
        self.mails = folder / "mails"
        self.shop = Shop(product)

    def arm(self, place: str) -> None:
        (self.folder / place).touch()

    def wait_for(self, place: str) -> None:
        """Until somebody has died there."""
        eventually(lambda: not (self.folder / place).exists(), within_s=60)

    def customer(self) -> str:
        return self.shop.subscribe(f"+{next(PHONES)}")


@pytest.fixture(scope="module")
def armed() -> Iterator[Armed]:
    with tempfile.TemporaryDirectory(prefix="lava-fail-") as folder:
        env = {"LAVA_FAIL_DIR": folder, "EMAIL_URL": f"filemail:///{folder}/mails"}
        product = Product("--no-demo", env=env)
        try:
            yield Armed(product, Path(folder))
        finally:
            product.remove()


def test_a_process_that_dies_at_any_place_leaves_every_cent_in_its_place(armed: Armed) -> None:
    owed = {
        "overage": overage(armed),
        "top_up": top_ups(armed),
        "refund": refunds(armed),
        "event": events(armed),
        "delivery": deliveries(armed),
        "message": messages(armed),
        "call": calls(armed),
        "renewal": renewals(armed),
    }
    tried = {place for places in owed.values() for place in places}
    assert tried == set(failpoints.PLACES)
    assert [path.name for path in armed.folder.iterdir()] == ["mails"]
    rest(armed.product)
    assert quarrels(armed.product) == ""
    counted = asked(armed.product, COUNT)
    assert counted["overage"] == counted["top_up"] == len(failpoints.CHARGE)
    assert counted["refunds"] == 4
    # Whoever was subscribed when the month was over was renewed, once a month.
    assert counted["unrenewed"] == counted["owing"] == 0
    # A dead call is freed or charged, once; what was settled before the death stays so.
    assert counted["calls"] == 4 and counted["held"] == 0
    assert counted["charged_calls"] == counted["requests_of_calls"] >= 1
    charges = [row["amount"] for row in taken(armed.product)]
    assert sorted(charges) == sorted(counted["paid"])


COUNT = """
import json
from collections import Counter
from billing import money
from billing.models import Connection, Payment, Refund, Subscription
from meters.models import GatewayCall, UsageRequest
calls = GatewayCall.objects.all()
paid = Payment.objects.filter(status="succeeded")
print(json.dumps(Counter(paid.values_list("purpose", flat=True)) | {
    "refunds": Refund.objects.filter(status="succeeded").count(),
    "calls": calls.count(),
    "charged_calls": calls.filter(status="completed").count(),
    "requests_of_calls": UsageRequest.objects.filter(pk__in=calls.values("pk")).count(),
    "held": Connection.objects.exclude(held=0).count(),
    "owing": Connection.objects.filter(debt__gte=1).count(),
    "unrenewed": Subscription.objects.current().exclude(cycle_index=4).count(),
    "paid": [money.to_minor(row.amount) for row in paid],
}))
"""


def overage(armed: Armed) -> list[str]:
    """A charge at the threshold, by a worker."""
    places = [f"overage.{step}" for step in failpoints.CHARGE]
    for place in places:
        connection = armed.customer()
        armed.arm(place)
        armed.shop.use(connection, place, 12_000_000)
        armed.wait_for(place)
    return places


def top_ups(armed: Armed) -> list[str]:
    """A bundle that the customer has bought whenever credits run out."""
    places = [f"top_up.{step}" for step in failpoints.CHARGE]
    for place in places:
        connection = armed.customer()
        (subscription,) = armed.shop.backend.get("subscriptions", connection_id=connection)["data"]
        armed.shop.backend.http.put(
            f"subscriptions/{subscription['subscription_id']}",
            json={"auto_top_up_bundle_id": armed.shop.bundle, "auto_top_up_threshold": "20"},
        ).raise_for_status()
        armed.arm(place)
        armed.shop.use(connection, place, 3_000_000)
        armed.wait_for(place)
    return places


def refunds(armed: Armed) -> list[str]:
    """Money given back by a person's own process."""
    places = [f"refund.{step}" for step in ("intended", "sent", "settling", "settled")]
    for place in places:
        connection = armed.customer()
        armed.arm(place)
        # It dies, or whoever hears from the network of an earlier one does.
        armed.product.manage("shell", "-v", "0", "-c", REFUND.format(connection=connection))
        armed.wait_for(place)
    return places


def events(armed: Armed) -> list[str]:
    """The network's word that a charge was made."""
    places = ["event.stored", "event.handled"]
    for place in places:
        armed.arm(place)
        armed.customer()
        armed.wait_for(place)
    return places


def deliveries(armed: Armed) -> list[str]:
    """Our word to the merchant."""
    places = ["delivery.claimed", "delivery.sent"]
    receiver = Receiver()
    try:
        hook = armed.shop.post("webhooks", name="chaos", url=receiver.url)
        for place in places:
            armed.arm(place)
            armed.customer()
            armed.wait_for(place)
        eventually(lambda: len(receiver.received) >= len(places), within_s=60)
        # Its lease is two minutes: a merchant's own hand sends it again meanwhile.
        path = f"webhooks/{hook['webhook_id']}/deliveries"
        for row in armed.shop.backend.get(path)["data"]:
            armed.shop.post(f"{path}/{row['delivery_id']}/resend")
        rest(armed.product)
        armed.shop.backend.http.delete(f"webhooks/{hook['webhook_id']}").raise_for_status()
    finally:
        receiver.close()
    return places


OWE = """
from django.utils import timezone
from billing import outbox
from billing.models import Merchant
outbox.mail(Merchant.objects.get(mode="live"), to="a@customer.example", subject={subject!r},
            body="Hello", now=timezone.now())
print(1)
"""


def messages(armed: Armed) -> list[str]:
    """Our word to a person: at least once, and once to the eye wherever its worker dies."""
    places = [f"message.{step}" for step in ("taken", "sent", "noted")]
    for place in places:
        armed.arm(place)
        asked(armed.product, OWE.format(subject=place))
        armed.wait_for(place)
        # Not in another's place: what was left by the dead is sent before the next is armed.
        eventually(lambda: not asked(armed.product, OWED), within_s=60)
    sent: dict[str, list[str]] = {place: [] for place in places}
    for file in armed.mails.iterdir():
        for text in file.read_text().split("-" * 79):
            mail = message_from_string(text.lstrip())
            if mail["Subject"] in sent:
                sent[mail["Subject"]].append(mail["Message-ID"])
    assert {place: len(ids) for place, ids in sent.items()} == {
        "message.taken": 1, "message.sent": 2, "message.noted": 1,
    }  # fmt: skip
    assert all(len(set(ids)) == 1 for ids in sent.values())
    return places


OWED = """
import json
from billing import sweep
print(json.dumps(len(sweep.messages_owed())))
"""
OPEN_GATEWAY = """
import json
from django.utils import timezone
from billing import ids
from billing.models import Connection
from meters.gateway import keyring, spendkeys
from meters.models import Meter
connection = Connection.objects.get(pk=ids.parse("con", {connection!r}))
merchant, now = connection.merchant, timezone.now()
keyring.add_provider(merchant, slug="local", name="Local", base_url={base!r}, private=True, now=now)
keyring.set_key(merchant, provider="local", key="sk-local-0123456789", actor="test", now=now)
print(json.dumps(spendkeys.make(merchant, name="chaos", now=now, connection=connection,
                                meter=Meter.objects.of(merchant).get())[1]))
"""


def calls(armed: Armed) -> list[str]:
    """A stream through the gateway, whose process dies under it; the sweep ends what is left."""
    places = [f"call.{step}" for step in ("held", "streaming", "ended", "settled")]
    base = f"{armed.product.facts['ai_provider']['url']}/v1"
    code = OPEN_GATEWAY.format(connection=armed.customer(), base=base)
    token = asked(armed.product, code)
    for place in places:
        armed.arm(place)
        try:
            httpx.post(
                f"{armed.product.url}/v1/forward/local/v1/chat/completions",
                json={"model": "gpt-4o-mini", "stream": True,
                      "messages": [{"role": "user", "content": "Hello"}]},
                headers={"Authorization": f"Bearer {token}"}, timeout=30,
            )  # fmt: skip
        except httpx.HTTPError:
            pass
        armed.wait_for(place)
        eventually(lambda: answers(armed.product))
    return places


def answers(product: Product) -> bool:
    try:
        return httpx.get(f"{product.url}/readyz", timeout=5).is_success
    except httpx.HTTPError:
        return False


def renewals(armed: Armed) -> list[str]:
    """A month that is over, on the sandbox's clock; the workers find it."""
    places = [f"renewal.{step}" for step in failpoints.CHARGE]
    for place in places:
        rest(armed.product)
        armed.arm(place)
        armed.shop.post("test_helpers/clock/advance", seconds=32 * 86400, run=False)
        armed.wait_for(place)
    return places
