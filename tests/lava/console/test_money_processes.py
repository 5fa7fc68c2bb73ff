"""Processes that move money: what the page shows is what the ledger gets, and twice is once."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client

from billing import credits, plans, reconciliations
from billing.models import (
    AuditEntry,
    Connection,
    LedgerEntry,
    Membership,
    Payment,
    PlanMove,
    Reconciliation,
    Refund,
    SecretKey,
    Subscription,
    WebhookEndpoint,
)
from lava import reconciling, tasks
from tests import card_network as cn
from tests import factories
from tests.lava.console.shop import lines, signed_in
from tests.lava.console.test_wall import address

pytestmark = pytest.mark.django_db
Role = Membership.Role


def on(name: str, **ids: Any) -> str:
    return address(name, ids)


class Till:
    """A shop at the local card network, with one paid customer and the owner's browser."""

    def __init__(self, **plan: Any) -> None:
        self.shop = cn.Shop(**plan)
        self.connection = self.shop.subscribe()
        self.owner = factories.make_user("owner@till.example", name="Olga Till")
        organization = self.shop.merchant.organization
        Membership.objects.create(user=self.owner, organization=organization, role=Role.OWNER)
        self.client = signed_in(self.owner)

    @property
    def payment(self) -> Payment:
        return Payment.objects.of(self.shop.merchant).order_by("id").first()  # type: ignore[return-value]


@pytest.fixture
def till(card_network: cn.CardNetwork) -> Till:
    return Till()


def field(page: str, name: str) -> str:
    """The value of a hidden field, as the browser would send it."""
    found = re.search(rf'name="{name}" value="([^"]*)"', page)
    assert found, name
    return found.group(1)


def new_lines(connection: Connection, since: int) -> list[tuple[str, Decimal, Decimal]]:
    rows = LedgerEntry.objects.filter(connection=connection, seq__gt=since).order_by("seq")
    return [(row.kind, row.amount, row.balance_after) for row in rows]


def shown_amounts(page: str) -> list[str]:
    """The amounts in the table of lines that the page says it would write."""
    table = page.split("Ledger lines this writes")[1].split("</table>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", table.split("<tbody>")[1], re.S)
    return [re.sub(r"<[^>]+>", "", re.findall(r'<td class="num">(.*?)</td>', row, re.S)[0])
            for row in rows]  # fmt: skip


# Refunds -----------------------------------------------------------------------------------------


def test_a_refund_shows_its_lines_then_writes_just_those_once(till: Till) -> None:
    connection, payment = till.connection, till.payment
    till.shop.use(connection, "job", "5")
    before = Connection.objects.get(pk=connection.pk).entry_count
    refund = on("payment-refund", key=payment.public_id)
    assert 'value="20.00"' in till.client.get(refund).content.decode()
    typed = {"amount": "20.00", "reason": "Asked kindly"}
    page = till.client.post(refund, typed).content.decode()
    assert shown_amounts(page) == ["−$20.00"]
    assert Connection.objects.get(pk=connection.pk).entry_count == before
    assert not Refund.objects.exists() and not cn.given_back(till.shop.merchant)

    sent = typed | {"step": "refund", "key": field(page, "key")}
    answers = [till.client.post(refund, sent) for _ in range(2)]
    row = Refund.objects.get()
    assert [answer["Location"] for answer in answers] == [f"/console/refunds/{row.public_id}"] * 2
    assert new_lines(connection, before) == [("clawback", Decimal(-20), Decimal(0))]
    assert [amount for _, amount, _ in cn.given_back(till.shop.merchant)] == [2000]
    assert AuditEntry.objects.filter(action="payment.refunded").count() == 1
    detail = till.client.get(on("refund", key=row.public_id)).content.decode()
    assert "Asked kindly" in detail and "Olga Till" in detail and "$20.00" in detail
    assert "Part refunded" in till.client.get(on("payments")).content.decode()


def test_more_than_is_unspent_goes_back_by_force_alone_and_becomes_owed(till: Till) -> None:
    till.shop.use(till.connection, "job", "15")
    refund = on("payment-refund", key=till.payment.public_id)
    typed = {"amount": "25", "reason": "All of it", "key": "k1"}
    refused = till.client.post(refund, typed)
    assert refused.status_code == 422 and b"spent but for $10.00" in refused.content
    page = till.client.post(refund, typed | {"force": "1"}).content.decode()
    assert shown_amounts(page) == ["−$10.00", "−$15.00"]
    assert "$15.00 was spent already and becomes owed" in page
    till.client.post(refund, typed | {"force": "1", "step": "refund"})
    till.connection.refresh_from_db()
    assert (till.connection.debt, till.connection.balance) == (15, -15)


def test_a_refund_whose_answer_is_lost_says_so_and_is_not_made_twice(
    till: Till, card_network: cn.CardNetwork
) -> None:
    cn.fault(card_network, "drop", path="/v1/refunds")
    refund = on("payment-refund", key=till.payment.public_id)
    typed = {"amount": "25", "reason": "x", "key": "k", "step": "refund"}
    answer = till.client.post(refund, typed, follow=True).content.decode()
    assert "is on its way" in answer and "Being checked" in answer
    till.client.post(refund, typed)
    assert Refund.objects.count() == 1
    assert [amount for _, amount, _ in cn.given_back(till.shop.merchant)] == [2500]


@pytest.mark.parametrize("amount", ["", "0", "-1", "NaN", "25.001", "26", "1e1", "9" * 13])
def test_an_amount_a_card_cannot_get_refunds_nothing(till: Till, amount: str) -> None:
    answer = till.client.post(
        on("payment-refund", key=till.payment.public_id),
        {"amount": amount, "reason": "x", "key": "k", "step": "refund"},
    )
    assert answer.status_code == 422
    assert not Refund.objects.exists()


def test_a_payment_that_is_all_back_says_so(till: Till) -> None:
    refund = on("payment-refund", key=till.payment.public_id)
    typed = {"amount": "25", "reason": "x", "step": "refund"}
    till.client.post(refund, typed | {"key": "one"})
    assert b"All of it went back already" in till.client.get(refund).content
    till.client.post(refund, typed | {"key": "two"})
    assert Refund.objects.count() == 1


# Credits taken -----------------------------------------------------------------------------------


def test_credits_are_taken_once_as_shown_and_never_more_than_is_there(till: Till) -> None:
    take = on("connection-take", key=till.connection.public_id)
    typed = {"amount": "5", "reason": "Given twice"}
    page = till.client.post(take, typed).content.decode()
    assert shown_amounts(page) == ["−$5.00"]
    sent = typed | {"step": "take", "given": field(page, "given")}
    assert till.client.post(take, sent).status_code == 302
    assert till.client.post(take, sent).status_code == 422
    assert lines(till.connection)[-1:] == [("adjust", "-5.00")]
    more = till.client.post(take, {"amount": "21", "reason": "x"})
    assert more.status_code == 422 and b"Only 20 is left to take" in more.content


def test_what_is_left_after_a_taking_is_shown_as_the_taking_leaves_it(till: Till) -> None:
    """A bundle that ends goes before the plan's credits, which do not."""
    type(till.shop.plan).objects.update(bundle_rollover_type="none")
    cn.buy(till.connection, factories.make_bundle(till.shop.plan), now=till.shop.now)
    take = on("connection-take", key=till.connection.public_id)
    page = till.client.post(take, {"amount": "7", "reason": "Given twice"})
    after = page.context["after"]
    assert (after["cycle"], after["bundle"]) == (25, 3)
    sent = {"amount": "7", "reason": "Given twice", "step": "take"}
    till.client.post(take, sent | {"given": field(page.content.decode(), "given")})
    left = credits.balance(till.connection, now=till.shop.now)
    assert (left.cycle, left.bundle) == (25, 3)


# Switch plan -------------------------------------------------------------------------------------


def test_an_upgrade_charges_what_was_shown_and_writes_the_lines_shown(till: Till) -> None:
    dear = factories.make_plan(till.shop.merchant, price="100", credit="120", name="Scale")
    till.shop.use(till.connection, "job", "5")
    before = Connection.objects.get(pk=till.connection.pk).entry_count
    switch = on("connection-switch", key=till.connection.public_id)
    page = till.client.get(switch, {"plan": dear.public_id}).content.decode()
    assert "Charge $80.00 and switch" in page
    shown = shown_amounts(page)
    assert Subscription.objects.get(connection=till.connection).plan_id == till.shop.plan.pk
    sent = {"plan": dear.public_id, "step": "switch", "charge": field(page, "charge")}
    assert till.client.post(switch, sent).status_code == 302
    assert Subscription.objects.get(connection=till.connection).plan_id == dear.pk
    written = [f"{'+' if amount > 0 else '−'}${abs(amount):.2f}"
               for _, amount, _ in new_lines(till.connection, before)]  # fmt: skip
    assert written == shown
    assert [amount for _, amount, _ in cn.taken(till.shop.merchant)].count(8000) == 1
    # A second press finds the customer on the plan: nothing is charged again.
    assert till.client.post(switch, sent).status_code == 422
    assert len(cn.taken(till.shop.merchant)) == 2


def test_a_price_that_moved_since_it_was_shown_is_shown_again(till: Till) -> None:
    dear = factories.make_plan(till.shop.merchant, price="100", name="Scale")
    switch = on("connection-switch", key=till.connection.public_id)
    page = till.client.get(switch, {"plan": dear.public_id}).content.decode()
    till.shop.use(till.connection, "job", "5")
    sent = {"plan": dear.public_id, "step": "switch", "charge": field(page, "charge")}
    answer = till.client.post(switch, sent)
    assert answer.status_code == 422 and b"has changed since" in answer.content
    assert len(cn.taken(till.shop.merchant)) == 1


def test_a_declined_upgrade_says_so_and_changes_nothing(
    till: Till, card_network: cn.CardNetwork
) -> None:
    dear = factories.make_plan(till.shop.merchant, price="100", name="Scale")
    cn.behave_as(card_network, till.connection, cn.DECLINES)
    switch = on("connection-switch", key=till.connection.public_id)
    page = till.client.get(switch, {"plan": dear.public_id}).content.decode()
    sent = {"plan": dear.public_id, "step": "switch", "charge": field(page, "charge")}
    answer = till.client.post(switch, sent, follow=True).content.decode()
    assert "nothing was charged" in answer
    assert Subscription.objects.get(connection=till.connection).plan_id == till.shop.plan.pk


def test_a_cheaper_plan_waits_for_the_cycles_end_and_can_be_taken_back(till: Till) -> None:
    cheap = factories.make_plan(till.shop.merchant, price="5", name="Small")
    switch = on("connection-switch", key=till.connection.public_id)
    page = till.client.get(switch, {"plan": cheap.public_id}).content.decode()
    assert "Charged now" in page and "the cycle’s end writes them" in page
    sent = {"plan": cheap.public_id, "step": "switch", "charge": field(page, "charge")}
    for _ in range(2):
        assert till.client.post(switch, sent).status_code == 302
    row = Subscription.objects.get(connection=till.connection)
    assert (row.plan_id, row.pending_plan_id) == (till.shop.plan.pk, cheap.pk)
    assert b"Moves to Small" in till.client.get(switch).content
    till.client.post(switch, {"stay": "1"})
    assert Subscription.objects.get(pk=row.pk).pending_plan_id is None


# Versions and moves ------------------------------------------------------------------------------


def test_a_new_version_is_sold_and_its_customers_are_moved_by_a_job(till: Till) -> None:
    plan = till.shop.plan
    form = {
        "name": plan.name, "price": "30", "billing_interval": "month", "included_credit": "30",
        "rollover_type": "full", "bundle_rollover_type": "full", "when_depleted": "overage",
        "overage_threshold": "10",
    }  # fmt: skip
    made = till.client.post(on("plan-version", key=plan.public_id), form)
    newest = plans.versions(plan)[-1]
    assert made["Location"] == f"/console/plans/{newest.public_id}"
    assert (newest.version, newest.price.amount) == (2, 30)
    assert till.shop.meter in newest.meters.all()
    move = on("plan-move", key=plan.public_id)
    page = till.client.get(move, {"to": newest.public_id, "when": "next_cycle"}).content.decode()
    assert "Move 1 customer to version 2" in page and "$30.00" in page
    assert not PlanMove.objects.exists()
    begun = [till.client.post(move, {"to": newest.public_id, "when": "next_cycle"})
             for _ in range(2)]  # fmt: skip
    job = PlanMove.objects.get()
    where = f"/console/moves/{job.public_id}"
    assert [answer["Location"] for answer in begun] == [where, where]
    waiting = till.client.get(where).content.decode()
    assert "0 of 1" in waiting and "data-refresh" in waiting
    from billing import moves

    moves.run(job.pk, now=till.shop.now)
    done = till.client.get(where).content.decode()
    assert "1 of 1" in done and "data-refresh" not in done
    assert job.public_id in till.client.get(on("moves")).content.decode()
    assert Subscription.objects.get(connection=till.connection).pending_plan_id == newest.pk


# Keys and webhooks -------------------------------------------------------------------------------


@pytest.mark.parametrize(("old", "works"), [("works", True), ("stops", False)])
def test_a_key_is_rotated_and_the_old_one_does_as_was_chosen(
    till: Till, old: str, works: bool
) -> None:
    key = SecretKey.objects.of(till.shop.merchant).get()
    page = till.client.post(on("key-rotate", key=key.public_id), {"old": old}).content.decode()
    fresh = re.search(r"aks_test_\w+", page.split('id="secret-key"')[1])
    assert fresh
    api = Client()

    def status(secret: str) -> int:
        return api.get("/v1/plans", headers={"Authorization": f"Bearer {secret}"}).status_code

    assert status(fresh.group(0)) == 200
    assert (status(till.shop.key) == 200) is works
    again = till.client.post(on("key-rotate", key=key.public_id), {"old": old})
    assert again.status_code == (200 if works else 409)


def test_a_webhooks_secret_is_shown_once_and_the_messages_show_their_bytes(till: Till) -> None:
    made = till.client.post(
        on("webhook-new"), {"name": "Mine", "url": "http://127.0.0.1:9/hooks", "all": "1"}
    ).content.decode()
    secret = re.search(r"whsec_[\w+/=]+", made)
    assert secret
    row = WebhookEndpoint.objects.get()
    assert row.events == []
    page = till.client.get(on("webhooks")).content.decode()
    assert secret.group(0) not in page and "Nothing to tell yet" in page
    from django.utils import timezone

    from billing import deliveries, events

    events.record(till.shop.merchant, "payment.succeeded", now=till.shop.now, amount="1.00")
    sent = deliveries.tell(till.shop.merchant.pk, now=timezone.now())
    assert sent
    assert not deliveries.deliver(sent[0])
    page = till.client.get(on("webhooks")).content.decode()
    assert "Failing since" in page and "&quot;event&quot;:&quot;payment.succeeded&quot;" in page
    assert "X-Webhook-Signature" in page and "No answer" in page
    later = deliveries.due(timezone.now())
    assert later == []
    till.client.post(on("webhook-send-now", key=row.public_id))
    assert deliveries.due(timezone.now()) == sent
    till.client.post(on("webhook-pause", key=row.public_id))
    assert deliveries.due(timezone.now()) == []
    assert b"is paused" in till.client.get(on("webhooks")).content
    rotated = till.client.post(on("webhook-rotate", key=row.public_id)).content.decode()
    assert secret.group(0) not in rotated and "whsec_" in rotated
    assert b"rotated since" in till.client.get(on("webhooks")).content


@pytest.mark.parametrize("url", ["", "ftp://a.example", "http://10.0.0.1/", "javascript:alert(1)"])
def test_an_address_that_is_none_is_said_at_its_field(till: Till, url: str) -> None:
    answer = till.client.post(on("webhook-new"), {"name": "Mine", "url": url, "all": "1"})
    assert answer.status_code == 422
    assert b'id="url-help"' in answer.content and not WebhookEndpoint.objects.exists()


# Reconcile ---------------------------------------------------------------------------------------


def run_now(till: Till) -> Reconciliation:
    till.client.post(on("reconcile"))
    tasks.reconcile_waiting.apply()
    row = Reconciliation.objects.latest("id")
    if row.state == Reconciliation.State.WAITING:
        reconciling.run(row.pk)
        row.refresh_from_db()
    return row


def test_books_that_agree_are_at_zero_on_every_check(till: Till) -> None:
    till.shop.use(till.connection, "job", "5")
    row = run_now(till)
    assert (row.state, row.gaps) == ("done", [])
    assert [check["off"] for check in row.checks] == [0] * 7
    assert all(Decimal(check["first"]) == Decimal(check["second"]) for check in row.checks)
    page = till.client.get(on("reconcile")).content.decode()
    assert "7 of 7 at zero" in page and "Olga Till" in page


def test_a_refund_made_at_stripe_is_a_gap_and_one_click_enters_it(till: Till) -> None:
    cn.post(till.shop.merchant, "refunds", payment_intent=till.payment.intent_id, amount="500")
    from unittest import mock

    from billing import reconcile

    with mock.patch.object(reconcile, "UNDER_WAY", reconcile.UNDER_WAY * 0):
        row = run_now(till)
    assert [gap["kind"] for gap in row.gaps] == ["refund_not_entered"]
    page = till.client.get(on("reconcile")).content.decode()
    assert "Enter the refund of $5.00" in page and "1 differs" in page
    mend = on("reconcile-mend", key=row.public_id, place=0)
    for _ in range(2):
        assert till.client.post(mend).status_code == 302
    refund = Refund.objects.get()
    assert (refund.amount.amount, refund.status) == (5, "succeeded")
    row.refresh_from_db()
    assert row.gaps[0]["mended_by"] == "Olga Till" and row.open_gaps == []
    assert AuditEntry.objects.filter(action="gap.mended").count() == 1
    assert run_now(till).gaps == []


def test_a_drifted_balance_shows_on_the_page(till: Till) -> None:
    """The check can fail: a row changed behind the ledger's back is counted and said."""
    from django.db import connection as database

    with database.cursor() as cursor:
        cursor.execute(
            "UPDATE billing_connection SET balance = balance + 1 WHERE id = %s",
            [till.connection.pk],
        )
    row = run_now(till)
    broken = [check["name"] for check in row.checks if check["off"]]
    assert broken == ["Each balance is the sum of its entries"]
    assert "+$1.00 apart" in till.client.get(on("reconcile")).content.decode()


def test_a_network_that_is_away_is_said_and_the_own_sums_are_kept(
    till: Till, settings: Any
) -> None:
    settings.STRIPE_API_BASE = "http://127.0.0.1:9"
    row = run_now(till)
    assert row.state == "failed" and len(row.checks) == 5
    assert b"Stripe was not compared" in till.client.get(on("reconcile")).content


def test_a_run_is_taken_by_one_worker_and_again_only_after_its_lease(till: Till) -> None:
    from django.utils import timezone

    now = timezone.now()
    row = reconciliations.ask(till.shop.merchant, since=None, now=now)
    assert reconciliations.ask(till.shop.merchant, since=None, now=now).pk == row.pk
    assert reconciliations.begin(row.pk, now=now) is not None
    assert reconciliations.begin(row.pk, now=now) is None
    assert reconciliations.waiting(now) == []
    late = now + reconciliations.LEASE * 2
    assert reconciliations.waiting(late) == [row.pk]
    assert reconciliations.begin(row.pk, now=late) is not None
