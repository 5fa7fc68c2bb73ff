"""What a merchant does in the console: each act says what it will change, and twice is once."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils import timezone

from billing import credits, team
from billing.models import (
    Connection,
    CreditGrant,
    Invitation,
    Membership,
    OutboxMessage,
    Plan,
    SecretKey,
    Subscription,
    User,
)
from lava.console import brand
from meters.models import Meter, MeterPrice
from tests.lava.console.shop import PASSWORD, Shop, lines, signed_in
from tests.lava.console.test_wall import address, brand_form, meter_form, plan_form

pytestmark = pytest.mark.django_db
Role = Membership.Role


def on(name: str, **ids: Any) -> str:
    return address(name, ids)


# Customers ---------------------------------------------------------------------------------------


def test_credits_are_shown_as_now_and_after_then_given_once(ours: Shop) -> None:
    connection, client = ours.sandbox.connection, ours.client(Role.SUPPORT)
    give = on("connection-give", key=connection.public_id)
    before = credits.balance(connection, now=ours.sandbox.merchant.now()).total
    shown = client.post(give, {"amount": "5.50", "reason": "A bad night"})
    assert shown.status_code == 200
    assert b"$27.50" in shown.content  # 22.00 now, 5.50 more after
    assert credits.balance(connection, now=ours.sandbox.merchant.now()).total == before

    sent = {"amount": "5.50", "reason": "A bad night", "step": "give", "given": "0"}
    assert client.post(give, sent).status_code == 302
    assert client.post(give, sent).status_code == 422
    assert credits.balance(connection, now=ours.sandbox.merchant.now()).total == before + Decimal(
        "5.5"
    )
    grant = CreditGrant.objects.get(connection=connection, source="manual")
    assert (grant.reason, grant.actor) == ("A bad night", "Support Northwind")


@pytest.mark.parametrize("amount", ["", "0", "-5", "1e3", "NaN", "five", "1,00", "9" * 13])
def test_an_amount_that_is_none_gives_nothing(ours: Shop, amount: str) -> None:
    connection = ours.sandbox.connection
    answer = ours.client().post(
        on("connection-give", key=connection.public_id),
        {"amount": amount, "reason": "x", "step": "give", "given": "0"},
    )
    assert answer.status_code == 422
    assert not CreditGrant.objects.filter(connection=connection, source="manual").exists()


def test_credits_without_a_reason_are_not_given(ours: Shop) -> None:
    answer = ours.client().post(
        on("connection-give", key=ours.sandbox.connection.public_id),
        {"amount": "5", "reason": "  ", "step": "give", "given": "0"},
    )
    assert answer.status_code == 422
    assert b"Say why the credits are given." in answer.content


def test_given_credits_pay_what_is_owed_first_and_the_page_said_so(ours: Shop) -> None:
    books = ours.sandbox
    books.use("big", 20_000_000)
    books.connection.refresh_from_db()
    owed = books.connection.debt
    assert owed > 0
    give = on("connection-give", key=books.connection.public_id)
    shown = ours.client().post(give, {"amount": "10", "reason": "x"}).content.decode()
    assert f"{owed - 10:.2f}" in shown
    ours.client().post(give, {"amount": "10", "reason": "x", "step": "give", "given": "0"})
    books.connection.refresh_from_db()
    assert books.connection.debt == owed - 10
    assert lines(books.connection)[-2:] == [("debt", "-10.00"), ("debt", "10.00")]


def test_a_plan_is_cancelled_at_the_cycles_end_once_and_can_be_kept(ours: Shop) -> None:
    client = ours.client(Role.SUPPORT)
    cancel = on("connection-cancel", key=ours.sandbox.connection.public_id)
    assert client.post(cancel).status_code == 302
    first = Subscription.objects.get(pk=ours.sandbox.subscription.pk)
    assert first.pending_change == "cancellation"
    assert client.post(cancel).status_code == 302
    again = Subscription.objects.get(pk=first.pk)
    assert (again.cancelled_at, again.status) == (first.cancelled_at, "active")
    assert b"Keep Northwind plan" in client.get(cancel).content
    assert client.post(cancel, {"keep": "1"}).status_code == 302
    assert Subscription.objects.get(pk=first.pk).pending_change is None


def test_a_disabled_customer_is_refused_and_comes_back(ours: Shop) -> None:
    client, connection = ours.client(Role.SUPPORT), ours.sandbox.connection
    disable = on("connection-disable", key=connection.public_id)
    for _ in range(2):
        assert client.post(disable).status_code == 302
        connection.refresh_from_db()
        assert connection.status == Connection.Status.DISABLED
    for _ in range(2):
        assert client.post(disable, {"enable": "1"}).status_code == 302
        connection.refresh_from_db()
        assert connection.status == Connection.Status.ACTIVE


# Pricing -----------------------------------------------------------------------------------------


def test_a_plan_is_archived_once_and_its_customers_stay(ours: Shop) -> None:
    client = ours.client(Role.DEVELOPER)
    archive = on("plan-archive", key=ours.sandbox.plan.public_id)
    assert b"1 customer on it" in client.get(archive).content
    assert client.post(archive).status_code == 302
    first = Plan.objects.get(pk=ours.sandbox.plan.pk).archived_at
    assert first is not None
    assert client.post(archive).status_code == 302
    assert Plan.objects.get(pk=ours.sandbox.plan.pk).archived_at == first
    assert ours.sandbox.connection.subscription.plan_id == ours.sandbox.plan.pk


def test_the_price_customers_agreed_to_stays(ours: Shop) -> None:
    plan, client = ours.sandbox.plan, ours.client()
    answer = client.post(
        on("plan", key=plan.public_id), plan_form(ours, ours.sandbox) | {"price": "99"}
    )
    assert answer.status_code == 422
    plan.refresh_from_db()
    assert plan.price.amount == 25
    kept = plan_form(ours, ours.sandbox)
    del kept["price"], kept["billing_interval"]
    assert client.post(on("plan", key=plan.public_id), kept).status_code == 302
    plan.refresh_from_db()
    assert (plan.name, plan.price.amount, plan.included_credit) == ("Bigger", 25, 30)


def test_what_is_wrong_in_a_plan_is_said_and_nothing_is_saved(ours: Shop) -> None:
    count = Plan.objects.count()
    answer = ours.client().post(
        on("plan-new"), plan_form(ours, ours.sandbox) | {"name": "", "price": "abc"}
    )
    assert answer.status_code == 422
    assert b"Nothing was saved" in answer.content and b'value="abc"' in answer.content
    assert Plan.objects.count() == count


def test_a_changed_price_is_a_new_version_and_the_same_price_is_none(ours: Shop) -> None:
    meter, client = ours.sandbox.meter, ours.client(Role.DEVELOPER)
    form = meter_form(ours, ours.sandbox)
    for _ in range(2):
        assert client.post(on("meter", key=meter.public_id), form).status_code == 302
        assert MeterPrice.objects.filter(meter=meter).count() == 2
    used = ours.sandbox.request
    assert used is not None
    used.refresh_from_db()
    assert used.price.version == 1


def test_a_slug_is_taken_once(ours: Shop) -> None:
    client, form = ours.client(), meter_form(ours, ours.sandbox)
    assert client.post(on("meter-new"), form).status_code == 302
    answer = client.post(on("meter-new"), form)
    assert answer.status_code == 422
    assert Meter.objects.of(ours.sandbox.merchant).filter(slug="words").count() == 1


def test_a_meter_comes_off_a_plan_and_on_again_once(ours: Shop) -> None:
    meter, plan = ours.sandbox.meter, ours.sandbox.plan
    client, attach = ours.client(), on("meter-attach", key=meter.public_id)
    for _ in range(2):
        client.post(attach, {"plan": plan.public_id, "take_off": "1"})
        assert not plan.meters.exists()
    for _ in range(2):
        client.post(attach, {"plan": plan.public_id})
        assert plan.meters.count() == 1


def test_the_calculator_and_the_charge_agree(ours: Shop) -> None:
    form = meter_form(ours, ours.sandbox) | {
        "kind": "tiers", "tier-0-rate": "3", "tier-1-start": "1,000,000", "tier-1-rate": "2",
        "calculator_quantity": "1,500,000",
    }  # fmt: skip
    told = ours.client().post(on("meter-calculate"), form).json()
    ours.sandbox.meter.refresh_from_db()
    charged = ours.sandbox.use("check", 500_000)  # after 1,000,000: all in the second tier
    first = ours.sandbox.request
    assert first is not None
    assert Decimal(told["fee"]) == first.fee + charged.fee == Decimal(4)


# Developers --------------------------------------------------------------------------------------


def test_a_key_is_shown_once_and_stops_at_once(ours: Shop, client: Any) -> None:
    console = ours.client(Role.DEVELOPER)
    page = console.post(on("keys"), {"name": "Server"}).content.decode()
    secret = page.split('id="secret-key">')[1].split("<")[0]
    assert secret.startswith("aks_test_")
    assert secret not in console.get(on("keys")).content.decode()
    header = {"HTTP_AUTHORIZATION": f"Bearer {secret}"}
    assert client.get("/v1/connections", **header).status_code == 200
    made = SecretKey.objects.of(ours.sandbox.merchant).get(name="Server")
    revoke = on("key-revoke", key=made.public_id)
    assert console.post(revoke).status_code == 302
    first = SecretKey.objects.get(pk=made.pk).revoked_at
    assert console.post(revoke).status_code == 302
    assert SecretKey.objects.get(pk=made.pk).revoked_at == first is not None
    assert client.get("/v1/connections", **header).status_code == 401


def test_a_key_needs_a_name(ours: Shop) -> None:
    answer = ours.client().post(on("keys"), {"name": " "})
    assert answer.status_code == 400 and b"Name the key" in answer.content


# Team --------------------------------------------------------------------------------------------


def test_a_business_keeps_its_last_owner(ours: Shop) -> None:
    client, owner = ours.client(), ours.member(Role.OWNER)
    assert client.post(on("team-role", member=owner.pk), {"role": "viewer"}).status_code == 409
    assert client.post(on("team-remove", member=owner.pk)).status_code == 409
    assert ours.member(Role.OWNER).pk == owner.pk
    second = ours.member(Role.DEVELOPER)
    assert client.post(on("team-role", member=second.pk), {"role": "owner"}).status_code == 302
    assert client.post(on("team-remove", member=owner.pk)).status_code == 302
    assert [row.user_id for row in ours.organization.memberships.filter(role="owner")] == [
        second.user_id
    ]


def test_who_is_invited_joins_once_with_the_offered_role(ours: Shop, client: Any) -> None:
    page = ours.client().post(on("team"), {"email": "New@Team.example", "role": "support"})
    link = page.content.decode().split('id="invitation-link">')[1].split("<")[0]
    mail = OutboxMessage.objects.get(to="new@team.example")
    assert link in mail.body and mail.merchant_id == ours.live.merchant.pk
    path = "/" + link.split("/", 3)[3]
    assert b"Join Northwind Works" in client.get(path).content
    form = {"name": "Noor Haddad", "password": " a spaced password "}
    assert client.post(path, form).status_code == 302
    member = ours.organization.memberships.get(user__email="new@team.example")
    assert member.role == "support"
    # They sign in with the password to the letter, and the link is spent.
    assert client.get("/console/connections/").status_code == 200
    client.logout()
    assert client.get(path).status_code == 404
    assert client.post(path, form).status_code == 404
    sent = {"username": "new@team.example", "password": " a spaced password "}
    assert client.post("/console/login/", sent).status_code == 302


def test_an_invitation_taken_back_or_ended_opens_nothing(ours: Shop, client: Any) -> None:
    path = on("join", secret=ours.invitation_secret)
    assert client.get(path).status_code == 200
    revoke = on("team-revoke", invitation=ours.invitation.public_id)
    for _ in range(2):
        assert ours.client().post(revoke).status_code == 302
    assert client.get(path).status_code == 404
    _, link = team.invite(
        ours.organization, email="late@team.example", role="viewer",
        by=ours.people[Role.OWNER], now=timezone.now() - team.LIFE,
    )  # fmt: skip
    late = on("join", secret=link.rsplit("/", 1)[1])
    assert client.post(late, {"name": "L", "password": PASSWORD}).status_code == 404
    assert not User.objects.filter(email="late@team.example").exists()


def test_an_invitation_is_for_its_address_alone(ours: Shop, theirs: Shop) -> None:
    stranger = theirs.client()
    path = on("join", secret=ours.invitation_secret)
    answer = stranger.post(path)
    assert answer.status_code == 422
    assert not ours.organization.memberships.filter(user=theirs.people[Role.OWNER]).exists()
    assert Invitation.objects.get(pk=ours.invitation.pk).accepted_at is None


def test_who_has_an_account_signs_in_to_join(ours: Shop, theirs: Shop, client: Any) -> None:
    member = theirs.people[Role.SUPPORT]
    _, link = team.invite(
        ours.organization, email=member.email, role="viewer",
        by=ours.people[Role.OWNER], now=timezone.now(),
    )  # fmt: skip
    path = "/" + link.split("/", 3)[3]
    assert client.post(path, {"name": "Thief", "password": PASSWORD}).status_code == 200
    assert not ours.organization.memberships.filter(user=member).exists()
    known = signed_in(member)
    assert known.post(path).status_code == 302
    assert ours.organization.memberships.get(user=member).role == "viewer"
    assert ours.word in known.get("/console/").content.decode()


def test_a_new_invitation_ends_the_older_one(ours: Shop, client: Any) -> None:
    ours.client().post(on("team"), {"email": ours.invitation.email, "role": "viewer"})
    assert client.get(on("join", secret=ours.invitation_secret)).status_code == 404
    assert ours.organization.invitations.filter(revoked_at=None).count() == 1


def test_who_is_in_the_team_is_not_invited(ours: Shop) -> None:
    answer = ours.client().post(
        on("team"), {"email": ours.people[Role.VIEWER].email.upper(), "role": "viewer"}
    )
    assert answer.status_code == 422 and b"in the team already" in answer.content


# Brand -------------------------------------------------------------------------------------------

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 40


def test_a_brand_is_saved_for_both_books_and_shown(ours: Shop) -> None:
    client = ours.client()
    form: dict[str, Any] = brand_form(ours, ours.sandbox) | {
        "time_zone": "Europe/Amsterdam",
        "support_email": "help@north.example",
        "logo": SimpleUploadedFile("logo.png", PNG, "image/png"),
    }
    assert client.post(on("brand"), form).status_code == 302
    ours.organization.refresh_from_db()
    assert (ours.organization.name, ours.organization.brand_color) == ("New name", "#123456")
    assert bytes(ours.organization.logo) == PNG
    zones = ours.organization.merchants.values_list("time_zone", flat=True)
    assert set(zones) == {"Europe/Amsterdam"}
    assert b"/hosted/logo/" in client.get("/console/brand").content
    form = brand_form(ours, ours.sandbox) | {"remove_logo": "1"}
    client.post(on("brand"), form)
    ours.organization.refresh_from_db()
    assert not ours.organization.logo


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", " "),
        ("brand_color", "red"),
        ("brand_color", "#12345g"),
        ("support_email", "nobody"),
        ("terms_url", "javascript:alert(1)"),
        ("terms_url", "ftp://example.com"),
        ("privacy_url", "example"),
        ("receipt_prefix", "1A"),
        ("receipt_prefix", "TOOLONG"),
        ("time_zone", "Europe/Atlantis"),
    ],
)
def test_a_wrong_field_of_the_brand_is_said_and_nothing_is_saved(
    ours: Shop, field: str, value: str
) -> None:
    answer = ours.client().post(on("brand"), brand_form(ours, ours.sandbox) | {field: value})
    assert answer.status_code == 422
    assert b'aria-invalid="true"' in answer.content
    ours.organization.refresh_from_db()
    assert ours.organization.name == "Northwind Works"


@pytest.mark.parametrize("data", [b"<svg onload=alert(1)>", b"GIF89a", PNG + b"\0" * 65536])
def test_a_logo_of_another_kind_or_too_large_is_refused(ours: Shop, data: bytes) -> None:
    form: dict[str, Any] = brand_form(ours, ours.sandbox)
    form["logo"] = SimpleUploadedFile("logo.png", data, "image/png")
    assert ours.client().post(on("brand"), form).status_code == 422
    ours.organization.refresh_from_db()
    assert not ours.organization.logo and ours.organization.name == "Northwind Works"


@pytest.mark.parametrize("color", ["#000000", "#ffffff", "#ffff00", "#7fa8ff", "#0b5f8f"])
def test_every_colour_stays_readable_in_the_preview(ours: Shop, color: str) -> None:
    for shade in brand.shades(color):
        assert float(shade.on_fill_contrast.split(" ")[0]) >= 4.5
        assert float(shade.accent_contrast.split(" ")[0]) >= 4.5


# Search ------------------------------------------------------------------------------------------


def test_a_whole_id_goes_to_its_page_and_words_list_what_they_hit(ours: Shop) -> None:
    client, books = ours.client(), ours.sandbox
    used = books.request
    assert used is not None
    for public_id, page in (
        (books.connection.public_id, "connections"),
        (books.plan.public_id, "plans"),
        (books.meter.public_id, "meters"),
        (books.payment.public_id, "payments"),
        (used.public_id, "requests"),
    ):
        answer = client.get(on("search"), {"q": f" {public_id} "})
        assert answer["Location"] == f"/console/{page}/{public_id}"
        assert client.get(answer["Location"]).status_code == 200
    for text, found in (
        ("quill.example", books.connection.public_id),
        ("Northwind Quill", books.connection.public_id),
        ("+1 (415) 555-1001", books.connection.public_id),
        ("northwind-job", used.public_id),
        ("NO-1", books.payment.public_id),
        ("northwind-meter", books.meter.public_id),
        ("wind pl", books.plan.public_id),
    ):
        assert found in client.get(on("search"), {"q": text}).content.decode(), text
    assert b"Nothing found" in client.get(on("search"), {"q": "nothing such"}).content


# What cannot be read ----------------------------------------------------------------------------


def test_a_nul_is_refused_everywhere_and_breaks_nothing(ours: Shop) -> None:
    client = ours.client()
    give = on("connection-give", key=ours.sandbox.connection.public_id)
    for answer in (
        client.get(on("search"), {"q": "a\0b"}),
        client.get(on("outbox"), {"\0": "x"}),
        client.get("/console/requests/a%00b"),
        client.post(give, {"amount": "5", "reason": "a\0b", "step": "give", "given": "0"}),
        client.post("/console/login/", {"username": "a\0b", "password": "x"}),
    ):
        assert answer.status_code == 400
        assert b"That could not be read" in answer.content


def test_what_is_not_there_is_a_page_of_the_console(ours: Shop, client: Any) -> None:
    for browser, frame in ((ours.client(), True), (client, False)):
        answer = browser.get("/console/nowhere")
        assert answer.status_code == 404
        assert b"There is nothing here" in answer.content
        assert (b"Connections" in answer.content) is frame


def test_a_form_that_was_open_too_long_says_so(ours: Shop) -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(ours.people[Role.OWNER], backend="billing.tenancy.RoleBackend")
    answer = browser.post(on("connection-give", key=ours.sandbox.connection.public_id))
    assert answer.status_code == 403
    assert b"open too long" in answer.content
