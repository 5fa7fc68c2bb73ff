"""Merchants' own Stripe keys and Connect accounts: sealed, walled from each other, changed only
when nothing is open."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from django.db import connection as database
from django.test import Client

from billing import accounts, cards, credits, errors, overage, payments, receipts, refunds, stripe
from billing.models import CardAccount, Event, Payment, StripeEvent
from lava.demo.card_network import calls
from lava.demo.card_network.process import CardNetwork
from tests import card_network as cn
from tests import factories

pytestmark = pytest.mark.django_db

CANARY = "sk_test_canary51Hq"
KEYS = {
    "secret_key": CANARY,
    "publishable_key": "pk_test_canary51Hq",
    "webhook_secret": "whsec_canaryhook",
    "actor": "Ana Ruiz",
}
OWN = calls.account_of(CANARY)


def accounts_asked(network: CardNetwork, path: str = "/v1/*") -> set[str]:
    rows = network.control(f"journal?path={path}")["data"]
    return {row["account"] for row in rows}


def test_a_merchants_own_keys_take_its_payments_and_no_others(card_network: CardNetwork) -> None:
    own, other = cn.Shop(), cn.Shop()
    accounts.set_keys(own.merchant, **KEYS)
    own.subscribe()
    assert accounts_asked(card_network, "/v1/payment_intents") == {OWN}
    other.subscribe()
    assert accounts_asked(card_network, "/v1/payment_intents") == {OWN, calls.HOME}
    # The installation's account has the other merchant's payment alone.
    assert [row[0] for row in cn.taken(other.merchant)] == [
        row[0] for row in cn.ours(other.merchant)
    ]
    keys = stripe.page_keys(own.merchant)
    assert keys.publishable_key == "pk_test_canary51Hq"


def test_overage_refund_and_cards_go_to_the_same_account(card_network: CardNetwork) -> None:
    shop = cn.Shop()
    accounts.set_keys(shop.merchant, **KEYS)
    connection = shop.subscribe()
    shop.use(connection, "r1", "37")
    payment = overage.collect(connection.pk, now=shop.now)
    assert payment is not None and payment.status == "succeeded"
    row = refunds.refund(payment, reason="x", actor="Ana", key="k", now=shop.now)
    assert row.status == "succeeded"
    assert accounts_asked(card_network) <= {OWN, calls.HOME}
    assert accounts_asked(card_network, "/v1/refunds") == {OWN}


def test_an_account_under_connect_is_acted_for_with_the_installations_keys(
    card_network: CardNetwork,
) -> None:
    shop = cn.Shop()
    accounts.connect(shop.merchant, account_id="acct_connected1", actor="Ana Ruiz")
    shop.subscribe()
    assert accounts_asked(card_network, "/v1/payment_intents") == {"acct_connected1"}
    keys = stripe.page_keys(shop.merchant)
    assert (keys.publishable_key, keys.account) == ("pk_test_local", "acct_connected1")


def test_a_dump_holds_no_key_in_clear(card_network: CardNetwork) -> None:
    shop = cn.Shop()
    row = accounts.set_keys(shop.merchant, **KEYS)
    assert (row.hint, row.account_id) == ("51Hq", OWN)
    with database.cursor() as cursor:
        cursor.execute("SELECT c::text FROM billing_cardaccount c")
        dump = str(cursor.fetchall())
        cursor.execute("SELECT data::text FROM billing_event")
        dump += str(cursor.fetchall())
    hexed = CANARY.encode().hex()
    assert CANARY not in dump and hexed not in dump and "canaryhook" not in dump
    assert CANARY not in repr(stripe.credentials(shop.merchant))
    assert CANARY not in repr(row) + str(row)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("secret_key", "sk_live_51Hq"),
        ("secret_key", "pk_test_51Hq"),
        ("secret_key", ""),
        ("secret_key", "sk_test_51Hq\nX: y"),
        ("publishable_key", "pk_live_51Hq"),
        ("publishable_key", "sk_test_51Hq"),
        ("webhook_secret", "sk_test_51Hq"),
        ("webhook_secret", ""),
        ("actor", " "),
    ],
)
def test_what_is_no_key_is_refused_with_its_field(
    card_network: CardNetwork, field: str, value: str
) -> None:
    shop = cn.Shop()
    with pytest.raises(errors.Invalid) as refusal:
        accounts.set_keys(shop.merchant, **(KEYS | {field: value}))
    assert refusal.value.param == field
    assert value.strip() == "" or value not in refusal.value.message
    assert not CardAccount.objects.exists()


def test_keys_the_network_does_not_accept_are_not_kept(card_network: CardNetwork) -> None:
    shop = cn.Shop()
    cn.fault(card_network, "error", method="GET", path="/v1/account", status=401)
    with pytest.raises(errors.Refused) as refusal:
        accounts.set_keys(shop.merchant, **KEYS)
    assert refusal.value.code == "keys_not_accepted"
    assert CANARY not in refusal.value.message
    assert not CardAccount.objects.exists()


def test_keys_do_not_change_while_a_payment_or_refund_is_open(card_network: CardNetwork) -> None:
    shop = cn.Shop()
    connection = shop.subscribe()
    shop.use(connection, "r1", "37")
    cn.fault(card_network, "drop")
    unknown = overage.collect(connection.pk, now=shop.now)
    assert unknown is not None and unknown.status == "unknown"
    with pytest.raises(errors.Conflict) as refusal:
        accounts.set_keys(shop.merchant, **KEYS)
    assert refusal.value.code == "payments_open"
    paid = payments.refresh(unknown, now=shop.now)
    cn.fault(card_network, "drop", path="/v1/refunds")
    row = refunds.refund(paid, reason="x", actor="Ana", key="k", now=shop.now)
    with pytest.raises(errors.Conflict):
        accounts.set_keys(shop.merchant, **KEYS)
    refunds.refresh(row, now=shop.now)
    accounts.set_keys(shop.merchant, **KEYS)
    assert Event.objects.filter(name="merchant.card_account_changed").count() == 1


def test_another_account_asks_for_cards_again_and_new_keys_of_the_same_do_not(
    card_network: CardNetwork,
) -> None:
    shop = cn.Shop()
    connection = shop.subscribe()
    accounts.set_keys(shop.merchant, **KEYS)
    connection.refresh_from_db()
    connection.customer.refresh_from_db()
    assert connection.card is None and connection.customer.card_customer_id == ""
    cn.save_card(connection, cn.GOOD, now=shop.now)
    rolled = KEYS | {"webhook_secret": "whsec_rolled"}
    accounts.set_keys(shop.merchant, **rolled)
    assert connection.card is not None
    shop.use(connection, "r1", "37")
    paid = overage.collect(connection.pk, now=shop.now)
    assert paid is not None and paid.status == "succeeded"
    accounts.remove(shop.merchant, actor="Ana Ruiz")
    assert not CardAccount.objects.exists() and connection.card is None


# Events in


def own_event(payment: Payment, **more: Any) -> tuple[bytes, str]:
    subject = {"id": payment.intent_id, "object": "payment_intent"}
    values = {"secret": KEYS["webhook_secret"]} | more
    return cn.signed("payment_intent.succeeded", subject, **values)


def unsettled(shop: cn.Shop) -> Payment:
    """A bundle that the network has taken and we do not know of yet."""
    connection = shop.subscribe()
    bundle = factories.make_bundle(shop.plan)
    payment = payments.intend(
        connection,
        purpose=Payment.Purpose.BUNDLE,
        amount=bundle.cost,
        bundle=bundle,
        key="buy",
        now=shop.now,
    )
    payments.present(payment, now=shop.now)
    payment.refresh_from_db()
    card_id = cards.from_test_card(shop.merchant, cn.GOOD)
    stripe.confirm_intent(payment, card_id=card_id)
    return payment


def test_a_merchants_own_webhook_settles_its_own_payments(card_network: CardNetwork) -> None:
    shop = cn.Shop()
    accounts.set_keys(shop.merchant, **KEYS)
    payment = unsettled(shop)
    body, signature = own_event(payment)
    address = f"/webhooks/stripe/{shop.merchant.public_id}"
    for _ in range(3):
        assert cn.deliver(body, signature, to=address) == 200
    payment.refresh_from_db()
    assert payment.status == "succeeded"
    assert credits.balance(payment.connection, now=shop.now).total == Decimal(35)


def test_its_secret_opens_neither_the_installations_door_nor_anothers(
    card_network: CardNetwork,
) -> None:
    shop, other = cn.Shop(), cn.Shop()
    accounts.set_keys(shop.merchant, **KEYS)
    accounts.set_keys(
        other.merchant,
        **(KEYS | {"secret_key": "sk_test_two", "publishable_key": "pk_test_two"})
        | {"webhook_secret": "whsec_two"},
    )
    payment = unsettled(shop)
    body, signature = own_event(payment)
    for door in (
        "/webhooks/stripe",
        f"/webhooks/stripe/{other.merchant.public_id}",
        f"/webhooks/stripe/{shop.merchant.organization.live.public_id}",
        "/webhooks/stripe/mer_01JZZZZZZZZZZZZZZZZZZZZZZZ",
        "/webhooks/stripe/nonsense",
    ):
        assert cn.deliver(body, signature, to=door) == 400
    # And the other's own secret, at the other's door, touches no payment of this one.
    body, signature = own_event(payment, secret="whsec_two")
    assert cn.deliver(body, signature, to=f"/webhooks/stripe/{other.merchant.public_id}") == 200
    payment.refresh_from_db()
    assert payment.status == "pending"


def test_one_merchants_event_does_not_silence_anothers_of_the_same_name(
    card_network: CardNetwork,
) -> None:
    shop, other = cn.Shop(), cn.Shop()
    accounts.set_keys(other.merchant, **KEYS)
    payment = unsettled(shop)
    subject = {"id": payment.intent_id, "object": "payment_intent"}
    kind = "payment_intent.succeeded"
    body, signature = cn.signed(kind, subject, name="evt_same", secret=KEYS["webhook_secret"])
    assert cn.deliver(body, signature, to=f"/webhooks/stripe/{other.merchant.public_id}") == 200
    body, signature = cn.signed(kind, subject, name="evt_same")
    assert cn.deliver(body, signature) == 200
    payment.refresh_from_db()
    assert payment.status == "succeeded"
    assert StripeEvent.objects.count() == 2


def test_an_event_of_a_connected_account_names_it(card_network: CardNetwork) -> None:
    shop = cn.Shop()
    accounts.connect(shop.merchant, account_id="acct_connected1", actor="Ana Ruiz")
    payment = unsettled(shop)
    subject = {"id": payment.intent_id, "object": "payment_intent"}
    kind = "payment_intent.succeeded"
    for name, more in (("evt_1", {}), ("evt_2", {"account": "acct_other"})):
        body, signature = cn.signed(kind, subject, name=name, **more)
        assert cn.deliver(body, signature) == 200
        payment.refresh_from_db()
        assert payment.status == "pending"
    body, signature = cn.signed(kind, subject, name="evt_3", account="acct_connected1")
    assert cn.deliver(body, signature) == 200
    payment.refresh_from_db()
    assert payment.status == "succeeded"


def test_the_page_of_a_connected_account_says_so(card_network: CardNetwork) -> None:
    shop = cn.Shop()
    accounts.connect(shop.merchant, account_id="acct_connected1", actor="Ana Ruiz")
    connection = shop.subscribe()
    cn.behave_as(card_network, connection, cn.ASKS_ALWAYS)
    shop.renew(connection)
    payment = Payment.objects.get(purpose="renewal")
    path = "/pay/" + receipts.pay_address(payment).rpartition("/")[2]
    assert 'data-account="acct_connected1"' in Client().get(path).content.decode()
