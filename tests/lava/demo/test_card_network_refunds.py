"""Refunds never give back more than was paid; disputes open and close once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import stripe

from lava.demo.card_network.process import CardNetwork


@pytest.fixture
def client(network: CardNetwork) -> stripe.StripeClient:
    return stripe.StripeClient(
        "sk_test_local", base_addresses={"api": network.url}, max_network_retries=0
    )


def make_payment(client: stripe.StripeClient, **more: Any) -> stripe.PaymentIntent:
    params: Any = {
        "amount": 2500,
        "currency": "usd",
        "payment_method": "pm_card_visa",
        "allowed_payment_method_types": ["card"],
        "confirm": True,
        **more,
    }
    return client.v1.payment_intents.create(params)


def types_of(client: stripe.StripeClient, id: str) -> list[str]:
    """The events about one object, oldest first."""
    found = [
        str(event.type)
        for event in client.v1.events.list({"limit": 100}).data
        if event.data.object["id"] == id
    ]
    return found[::-1]


def test_a_payment_is_given_back_in_parts_up_to_the_whole(client: stripe.StripeClient) -> None:
    paid = make_payment(client)
    charge = str(paid.latest_charge)
    first = client.v1.refunds.create(
        {"payment_intent": paid.id, "amount": 1000, "reason": "requested_by_customer"}
    )
    assert (first.status, first.amount, first.charge) == ("succeeded", 1000, charge)
    part = client.v1.charges.retrieve(charge)
    assert (part.amount_refunded, part.refunded) == (1000, False)

    with pytest.raises(stripe.InvalidRequestError) as raised:
        client.v1.refunds.create({"charge": charge, "amount": 1501})
    assert "Refund amount ($15.01) is greater than unrefunded amount on charge ($15.00)" in str(
        raised.value
    )
    rest = client.v1.refunds.create({"charge": charge})
    assert rest.amount == 1500
    whole = client.v1.charges.retrieve(charge, {"expand": ["refunds"]})
    assert (whole.amount_refunded, whole.refunded) == (2500, True)
    assert whole.refunds is not None
    assert [item.id for item in whole.refunds.data] == [rest.id, first.id]
    with pytest.raises(stripe.InvalidRequestError) as raised:
        client.v1.refunds.create({"charge": charge})
    assert raised.value.code == "charge_already_refunded"
    listed = client.v1.refunds.list({"payment_intent": paid.id})
    assert [item.id for item in listed.data] == [rest.id, first.id]
    assert client.v1.refunds.retrieve(first.id).amount == 1000
    assert types_of(client, charge) == ["charge.succeeded", "charge.refunded", "charge.refunded"]
    assert types_of(client, first.id) == ["refund.created"]


def test_twenty_refunds_at_once_give_back_the_amount_and_no_more(
    client: stripe.StripeClient,
) -> None:
    paid = make_payment(client)

    def refund(_: int) -> int:
        try:
            return client.v1.refunds.create({"payment_intent": paid.id, "amount": 400}).amount
        except stripe.InvalidRequestError:
            return 0

    with ThreadPoolExecutor(8) as pool:
        given = sum(pool.map(refund, range(20)))
    assert given == 2400
    assert client.v1.charges.retrieve(str(paid.latest_charge)).amount_refunded == 2400


def test_what_was_not_paid_cannot_be_refunded(client: stripe.StripeClient) -> None:
    intent = client.v1.payment_intents.create({"amount": 2500, "currency": "usd"})
    with pytest.raises(stripe.InvalidRequestError, match="does not have a successful charge"):
        client.v1.refunds.create({"payment_intent": intent.id})
    with pytest.raises(stripe.InvalidRequestError, match="payment_intent or charge"):
        client.v1.refunds.create({"amount": 100})
    with pytest.raises(stripe.InvalidRequestError) as raised:
        client.v1.refunds.create({"charge": "ch_none"})
    assert raised.value.code == "resource_missing"


def test_a_dispute_is_opened_and_lost(network: CardNetwork, client: stripe.StripeClient) -> None:
    paid = make_payment(client)
    opened = network.control(
        "disputes/open", {"payment_intent": paid.id, "reason": "product_not_received"}
    )
    dispute = client.v1.disputes.retrieve(opened["id"])
    assert (dispute.status, dispute.amount, dispute.reason) == (
        "needs_response",
        2500,
        "product_not_received",
    )
    assert client.v1.charges.retrieve(str(paid.latest_charge)).disputed is True
    with pytest.raises(stripe.InvalidRequestError) as raised:
        client.v1.refunds.create({"payment_intent": paid.id})
    assert raised.value.code == "charge_disputed"

    network.control("disputes/close", {"dispute": dispute.id})
    assert client.v1.disputes.retrieve(dispute.id).status == "lost"
    assert types_of(client, dispute.id) == [
        "charge.dispute.created",
        "charge.dispute.funds_withdrawn",
        "charge.dispute.closed",
    ]
    with pytest.raises(stripe.InvalidRequestError, match="already closed"):
        client.v1.disputes.close(dispute.id)


def test_a_dispute_that_is_won_gives_the_funds_back(
    network: CardNetwork, client: stripe.StripeClient
) -> None:
    paid = make_payment(client)
    opened = network.control("disputes/open", {"charge": paid.latest_charge, "amount": 700})
    network.control("disputes/close", {"dispute": opened["id"], "status": "won"})
    listed = client.v1.disputes.list({"payment_intent": paid.id}).data
    assert [(item.status, item.amount) for item in listed] == [("won", 700)]
    assert "charge.dispute.funds_reinstated" in types_of(client, opened["id"])
    assert client.v1.refunds.create({"payment_intent": paid.id}).amount == 2500


def test_card_0259_is_disputed_by_itself(client: stripe.StripeClient) -> None:
    paid = make_payment(client, payment_method="pm_card_createDispute")
    assert paid.status == "succeeded"
    listed = client.v1.disputes.list({"charge": str(paid.latest_charge)}).data
    assert [item.reason for item in listed] == ["fraudulent"]
