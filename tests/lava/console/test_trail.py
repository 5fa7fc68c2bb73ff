"""The audit trail: each change leaves one entry with before and after; a repeat leaves none."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction

from billing.models import AuditEntry, Membership
from lava.console import trail
from tests.lava.console.shop import Shop
from tests.lava.console.test_wall import (
    CASES,
    EVERY,
    address,
    ask,
    brand_form,
    meter_form,
    plan_form,
)

pytestmark = pytest.mark.django_db
Role = Membership.Role
# Posts that change nothing anybody could want to look up.
SILENT = {
    "environment", "plan-preview", "meter-calculate", "brand-preview", "meter-what-if",
    "plan-what-if",
    # Previews of what a card and the ledger would see; the acts are in test_money_processes.
    "payment-refund", "connection-switch",
    # Without an app that is confirmed there is nothing to turn off or renew; see test_accounts.
    "account-two-step", "account-two-step-off", "account-codes",
    # It mails a link; the link's own page changes the password.
    "account-password",
}  # fmt: skip


def entries(shop: Shop) -> list[AuditEntry]:
    return list(AuditEntry.objects.filter(organization=shop.organization).order_by("pk"))


@pytest.mark.parametrize(
    "name", sorted(name for name, method, _ in EVERY if method == "post" and name not in SILENT)
)
def test_every_change_is_written_down_with_who_made_it(ours: Shop, name: str) -> None:
    answer = ask(ours.client(), CASES[name], name, "post", ours, ours.sandbox)
    assert answer.status_code == CASES[name].done
    (entry,) = entries(ours)
    assert (entry.actor, entry.actor_email) == ("Owner Northwind", "owner-northwind@team.example")
    assert entry.action in trail.WORDS
    assert entry.action.partition(".")[0] in trail.KINDS
    page = ours.client().get("/console/audit").content.decode()
    assert trail.WORDS[entry.action] in page


@pytest.mark.parametrize("name", sorted(SILENT))
def test_what_changes_nothing_is_not_written_down(ours: Shop, name: str) -> None:
    ask(ours.client(), CASES[name], name, "post", ours, ours.sandbox)
    assert entries(ours) == []


def test_an_entry_holds_the_fields_that_differ_and_no_others(ours: Shop) -> None:
    client, plan = ours.client(), ours.sandbox.plan
    form = plan_form(ours, ours.sandbox)
    del form["price"], form["billing_interval"]
    client.post(address("plan", {"key": plan.public_id}), form)
    (entry,) = entries(ours)
    assert entry.action == "plan.changed" and entry.target == plan.public_id
    assert entry.before == {
        "name": "Northwind plan",
        "included_credit": "25",
        "meters": ["northwind-meter"],
    }
    assert entry.after["name"] == "Bigger" and entry.after["included_credit"] == "30"
    # The same form again changes nothing.
    client.post(address("plan", {"key": plan.public_id}), form)
    assert len(entries(ours)) == 1


def test_a_change_made_twice_is_written_once(ours: Shop) -> None:
    client, books = ours.client(), ours.sandbox
    person = {"key": books.connection.public_id}
    acts: list[tuple[str, dict[str, Any], dict[str, str]]] = [
        ("connection-disable", person, {}),
        ("connection-disable", person, {"enable": "1"}),
        ("connection-cancel", person, {}),
        ("connection-cancel", person, {"keep": "1"}),
        ("plan-archive", {"key": books.plan.public_id}, {}),
        ("meter", {"key": books.meter.public_id}, meter_form(ours, books)),
        ("key-revoke", {"key": books.key.public_id}, {}),
        ("gateway-token", {"key": books.token.public_id}, {}),
        ("gateway-token", {"key": books.token.public_id}, {"resume": "1"}),
        (
            "gateway-token-change",
            {"key": books.token.public_id},
            {"name": "Bot", "spend_limit": "7", "spend_cycle": "daily"},
        ),
        ("gateway-token-revoke", {"key": books.token.public_id}, {}),
        ("gateway-key-delete", {"key": books.provider_key.public_id}, {}),
        ("gateway-provider-remove", {"key": books.provider.public_id}, {}),
        ("gateway-price-remove", {"key": books.price.public_id}, {}),
        ("brand", {}, brand_form(ours, books)),
        ("team-role", {"member": ours.member(Role.VIEWER).pk}, {"role": "support"}),
    ]
    for count, (name, ids, data) in enumerate(acts, start=1):
        for _ in range(2):
            client.post(address(name, ids), data)
        assert len(entries(ours)) == count, name


def test_what_is_refused_is_not_written_down(ours: Shop) -> None:
    client = ours.client()
    owner = ours.member(Role.OWNER)
    client.post(address("team-remove", {"member": owner.pk}))
    client.post(address("keys", {}), {"name": ""})
    client.post(address("plan-new", {}), plan_form(ours, ours.sandbox) | {"name": ""})
    assert entries(ours) == []


def test_a_key_is_never_written_down_in_clear(ours: Shop) -> None:
    page = ours.client().post(address("keys", {}), {"name": "Server"}).content.decode()
    secret = page.split('id="secret-key">')[1].split("<")[0]
    (entry,) = entries(ours)
    assert secret not in f"{entry.before}{entry.after}{entry.target}{entry.target_name}"


@pytest.mark.parametrize("name", ["gateway-token-new", "gateway-token-rotate", "gateway-keys"])
def test_a_secret_of_the_gateway_is_never_written_down_in_clear(ours: Shop, name: str) -> None:
    page = ask(ours.client(), CASES[name], name, "post", ours, ours.sandbox).content.decode()
    secret = CASES[name].data(ours, ours.sandbox).get("key", "")
    if not secret:
        secret = page.split('id="forward-token">')[1].split("<")[0]
        assert secret.startswith("lft_test_")
    (entry,) = entries(ours)
    assert secret not in f"{entry.before}{entry.after}{entry.target}{entry.target_name}"
    assert secret not in ours.client().get("/console/audit").content.decode()


def test_the_other_books_changes_are_not_shown(ours: Shop, theirs: Shop) -> None:
    ours.client().post(address("plan-archive", {"key": ours.sandbox.plan.public_id}))
    theirs.client().post(address("plan-archive", {"key": theirs.sandbox.plan.public_id}))
    client = ours.client()
    assert ours.sandbox.plan.public_id in client.get("/console/audit").content.decode()
    client.post(address("environment", {}), {"mode": "live"})
    page = client.get("/console/audit").content.decode()
    assert "Nothing was changed yet" in page


@pytest.mark.parametrize("sql", ["UPDATE billing_auditentry SET actor = 'x'",
                                 "DELETE FROM billing_auditentry"])  # fmt: skip
def test_nobody_changes_the_trail(ours: Shop, sql: str) -> None:
    ours.client().post(address("plan-archive", {"key": ours.sandbox.plan.public_id}))
    with (
        pytest.raises(IntegrityError, match="append-only"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute(sql)


def test_who_and_what_narrow_the_list(ours: Shop) -> None:
    ours.client().post(address("plan-archive", {"key": ours.sandbox.plan.public_id}))
    ours.client(Role.DEVELOPER).post(address("keys", {}), {"name": "Server"})
    client = ours.client()
    for query, seen, hidden in (
        ({"kind": "key"}, "made the key", "archived the plan"),
        ({"kind": "plan"}, "archived the plan", "made the key"),
        ({"who": "Developer"}, "made the key", "archived the plan"),
    ):
        page = client.get("/console/audit", query).content.decode()
        assert seen in page and hidden not in page
