"""The merchant wall of the console, over every address it has.

`CASES` says of each URL name how it is asked, and what a role needs for it. An address that is not
in it fails the first test, so that no page is added without its wall.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.db import transaction
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse

from billing import tenancy
from billing.models import Membership, User
from tests.lava.console.shop import Books, Shop, signed_in

pytestmark = pytest.mark.django_db
Role = Membership.Role
Data = dict[str, str]
HOUR = timedelta(hours=1)


def nothing(shop: Shop, books: Books) -> Data:
    return {}


@dataclass(frozen=True)
class Case:
    """How one address is asked.

    `ids` gives the ids in its path out of a shop and its books. `get` and `post`: the permission
    each needs, None where the method does not exist. `data` is what is posted.
    """

    ids: Callable[[Shop, Books], dict[str, Any]] = nothing
    get: str | None = None
    post: str | None = None
    data: Callable[[Shop, Books], Data] = nothing
    sandbox_only: bool = False
    # What a good POST answers: 302, or 200 where it answers with a page or a fragment.
    done: int = 302
    asks: tuple[str, ...] = field(default=())
    # What stands behind the `?` of its address, always.
    query: str = ""


def plan_form(shop: Shop, books: Books) -> Data:
    return {
        "name": "Bigger", "price": "25.00", "billing_interval": "month", "included_credit": "30",
        "rollover_type": "full", "bundle_rollover_type": "full", "when_depleted": "overage",
        "overage_threshold": "10",
    }  # fmt: skip


def meter_form(shop: Shop, books: Books) -> Data:
    return {
        "name": "Words", "slug": "words", "unit": "tokens_1m", "kind": "rate",
        "token_basis": "input+output", "tier_window": "lifetime", "base_cost_payer": "merchant",
        "tier_rate_type": "fixed", "tier-0-start": "0", "tier-0-rate": "5",
    }  # fmt: skip


def brand_form(shop: Shop, books: Books) -> Data:
    return {
        "name": "New name", "brand_color": "#123456", "support_email": "", "terms_url": "",
        "privacy_url": "", "receipt_prefix": "NN", "time_zone": "UTC",
    }  # fmt: skip


CASES: dict[str, Case] = {
    "index": Case(get="billing.view_any"),
    "environment": Case(post="billing.view_any", data=lambda shop, books: {"mode": "live"}),
    "search": Case(get="billing.view_any", asks=("q",)),
    "search-live": Case(get="billing.view_any", asks=("q",)),
    "connections": Case(get="billing.view_connection", asks=("q", "plan", "before")),
    "connection": Case(
        ids=lambda shop, books: {"key": books.connection.public_id}, get="billing.view_connection"
    ),
    "connection-give": Case(
        ids=lambda shop, books: {"key": books.connection.public_id},
        get="billing.change_connection",
        post="billing.change_connection",
        data=lambda shop, books: {"amount": "5", "reason": "x", "step": "give", "given": "0"},
    ),
    "connection-take": Case(
        ids=lambda shop, books: {"key": books.connection.public_id},
        get="billing.change_connection",
        post="billing.change_connection",
        data=lambda shop, books: {"amount": "5", "reason": "x", "step": "take", "given": "0"},
    ),
    "connection-switch": Case(
        ids=lambda shop, books: {"key": books.connection.public_id},
        get="billing.change_connection",
        post="billing.change_connection",
        data=lambda shop, books: {"plan": books.next_version.public_id},
        done=200,
    ),
    "connection-cancel": Case(
        ids=lambda shop, books: {"key": books.connection.public_id},
        get="billing.change_connection",
        post="billing.change_connection",
    ),
    "connection-disable": Case(
        ids=lambda shop, books: {"key": books.connection.public_id},
        get="billing.change_connection",
        post="billing.change_connection",
    ),
    "imports": Case(get="billing.view_connection"),
    "import-new": Case(
        get="billing.change_connection",
        post="billing.change_connection",
        data=lambda shop, books: {
            "text": "reference_id\nfresh\n",
            "filename": "new.csv",
            "key": "k",
            "step": "import",
        },
    ),
    "import": Case(
        ids=lambda shop, books: {"key": books.customer_import.public_id},
        get="billing.view_connection",
    ),
    "requests": Case(get="meters.view_usagerequest", asks=("q", "connection", "meter", "before")),
    "request": Case(
        ids=lambda shop, books: {"key": books.request.public_id},  # type: ignore[union-attr]
        get="meters.view_usagerequest",
        sandbox_only=True,
    ),
    "payments": Case(get="billing.view_payment", asks=("connection",)),
    "payment": Case(
        ids=lambda shop, books: {"key": books.payment.public_id}, get="billing.view_payment"
    ),
    "payment-refund": Case(
        ids=lambda shop, books: {"key": books.payment.public_id},
        get="billing.add_refund",
        post="billing.add_refund",
        data=lambda shop, books: {"amount": "5", "reason": "x", "key": "k", "step": "preview"},
        done=200,
    ),
    "refunds": Case(get="billing.view_payment", asks=("connection", "before")),
    "refund": Case(
        ids=lambda shop, books: {"key": books.refund.public_id}, get="billing.view_payment"
    ),
    "approvals": Case(get="billing.view_approval", asks=("show", "before")),
    "approval": Case(
        ids=lambda shop, books: {"key": books.approval.public_id}, get="billing.view_approval"
    ),
    "approval-decide": Case(
        ids=lambda shop, books: {"key": books.approval.public_id},
        post="billing.change_approval",
        data=lambda shop, books: {"step": "approve", "answer": "x"},
    ),
    "plans": Case(get="billing.view_plan"),
    "plan-new": Case(get="billing.change_plan", post="billing.change_plan", data=plan_form),
    "plan-preview": Case(post="billing.view_plan", data=plan_form, done=200),
    "plan": Case(
        ids=lambda shop, books: {"key": books.plan.public_id},
        get="billing.view_plan",
        post="billing.change_plan",
        data=plan_form,
    ),
    "plan-archive": Case(
        ids=lambda shop, books: {"key": books.plan.public_id},
        get="billing.change_plan",
        post="billing.change_plan",
    ),
    "plan-version": Case(
        ids=lambda shop, books: {"key": books.plan.public_id},
        get="billing.change_plan",
        post="billing.change_plan",
        data=plan_form,
    ),
    "plan-move": Case(
        ids=lambda shop, books: {"key": books.plan.public_id},
        get="billing.change_plan",
        post="billing.change_plan",
        data=lambda shop, books: {"to": books.next_version.public_id, "when": "next_cycle"},
    ),
    "moves": Case(get="billing.view_plan"),
    "move": Case(ids=lambda shop, books: {"key": books.move.public_id}, get="billing.view_plan"),
    "meters": Case(get="meters.view_meter"),
    "meter-new": Case(get="meters.change_meter", post="meters.change_meter", data=meter_form),
    "meter-calculate": Case(post="meters.view_meter", data=meter_form, done=200),
    "meter": Case(
        ids=lambda shop, books: {"key": books.meter.public_id},
        get="meters.view_meter",
        post="meters.change_meter",
        data=meter_form,
    ),
    "meter-attach": Case(
        ids=lambda shop, books: {"key": books.meter.public_id},
        post="meters.change_meter",
        data=lambda shop, books: {"plan": books.plan.public_id, "take_off": "1"},
    ),
    "what-if": Case(get="meters.view_meter"),
    "meter-what-if": Case(
        ids=lambda shop, books: {"key": books.meter.public_id},
        post="meters.view_meter",
        data=meter_form,
        done=200,
    ),
    "plan-what-if": Case(
        ids=lambda shop, books: {"key": books.plan.public_id},
        post="billing.view_plan",
        data=plan_form,
        done=200,
    ),
    "ledger": Case(get="billing.view_ledgerentry", asks=("connection", "before")),
    "keys": Case(
        get="billing.view_secretkey",
        post="billing.change_secretkey",
        data=lambda shop, books: {"name": "another"},
        done=200,
    ),
    "key-connect": Case(
        get="billing.change_secretkey",
        post="billing.change_secretkey",
        query="?state=abcdef0123&port=65535",
    ),
    "key-rotate": Case(
        ids=lambda shop, books: {"key": books.key.public_id},
        get="billing.change_secretkey",
        post="billing.change_secretkey",
        data=lambda shop, books: {"old": "works"},
        done=200,
    ),
    "key-revoke": Case(
        ids=lambda shop, books: {"key": books.key.public_id},
        get="billing.change_secretkey",
        post="billing.change_secretkey",
    ),
    "gateway": Case(
        get="meters.view_gatewaycall", asks=("q", "connection", "provider", "state", "before")
    ),
    "gateway-call": Case(
        ids=lambda shop, books: {"key": books.call.public_id}, get="meters.view_gatewaycall"
    ),
    "gateway-tokens": Case(get="meters.view_forwardtoken", asks=("before",)),
    "gateway-token-new": Case(
        get="meters.change_forwardtoken",
        post="meters.change_forwardtoken",
        data=lambda shop, books: {
            "name": "Bot",
            "payer": "customer",
            "customer": books.connection.public_id,
            "meter": books.meter.slug,
            "spend_limit": "5",
            "spend_cycle": "monthly",
        },
        done=200,
    ),
    "gateway-token": Case(
        ids=lambda shop, books: {"key": books.token.public_id},
        get="meters.view_forwardtoken",
        post="meters.change_forwardtoken",
    ),
    "gateway-token-change": Case(
        ids=lambda shop, books: {"key": books.token.public_id},
        get="meters.change_forwardtoken",
        post="meters.change_forwardtoken",
        data=lambda shop, books: {"name": "Renamed", "spend_limit": "7", "spend_cycle": "daily"},
    ),
    "gateway-token-rotate": Case(
        ids=lambda shop, books: {"key": books.token.public_id},
        get="meters.change_forwardtoken",
        post="meters.change_forwardtoken",
        done=200,
    ),
    "gateway-token-revoke": Case(
        ids=lambda shop, books: {"key": books.token.public_id},
        get="meters.change_forwardtoken",
        post="meters.change_forwardtoken",
    ),
    "gateway-keys": Case(
        get="meters.view_providerkey",
        post="meters.change_providerkey",
        data=lambda shop, books: {"provider": "openai", "key": "sk-new-key-0123456789"},
        asks=("provider",),
    ),
    "gateway-key-delete": Case(
        ids=lambda shop, books: {"key": books.provider_key.public_id},
        get="meters.change_providerkey",
        post="meters.change_providerkey",
    ),
    "gateway-provider-new": Case(
        get="meters.change_providerkey",
        post="meters.change_providerkey",
        data=lambda shop, books: {
            "name": "Ours",
            "slug": "ours",
            "base_url": "https://llm.example.com/v1",
            "dialect": "openai",
            "slot": "authorization",
            "key": "token-0123456789",
        },
    ),
    "gateway-provider-remove": Case(
        ids=lambda shop, books: {"key": books.provider.public_id},
        get="meters.change_providerkey",
        post="meters.change_providerkey",
    ),
    "gateway-prices": Case(
        get="meters.view_modelprice",
        post="meters.change_modelprice",
        data=lambda shop, books: {"provider": "openai", "model": "gpt-4o*", "input": "1.25"},
        asks=("provider", "q"),
    ),
    "gateway-price-remove": Case(
        ids=lambda shop, books: {"key": books.price.public_id},
        get="meters.change_modelprice",
        post="meters.change_modelprice",
    ),
    "webhooks": Case(
        get="billing.view_webhookendpoint", asks=("endpoint", "delivery", "before", "try")
    ),
    "webhook-new": Case(
        get="billing.change_webhookendpoint",
        post="billing.change_webhookendpoint",
        data=lambda shop, books: {"name": "Mine", "url": "http://127.0.0.1:9/h", "all": "1"},
        done=200,
    ),
    "webhook": Case(
        ids=lambda shop, books: {"key": books.endpoint.public_id},
        get="billing.change_webhookendpoint",
        post="billing.change_webhookendpoint",
        data=lambda shop, books: {"name": "Mine", "url": "http://127.0.0.1:9/h", "all": "1"},
    ),
    "webhook-pause": Case(
        ids=lambda shop, books: {"key": books.endpoint.public_id},
        post="billing.change_webhookendpoint",
    ),
    "webhook-rotate": Case(
        ids=lambda shop, books: {"key": books.endpoint.public_id},
        get="billing.change_webhookendpoint",
        post="billing.change_webhookendpoint",
        done=200,
    ),
    "webhook-delete": Case(
        ids=lambda shop, books: {"key": books.endpoint.public_id},
        get="billing.change_webhookendpoint",
        post="billing.change_webhookendpoint",
    ),
    "webhook-send-now": Case(
        ids=lambda shop, books: {"key": books.endpoint.public_id},
        post="billing.change_webhookendpoint",
    ),
    "webhook-resend": Case(
        ids=lambda shop, books: {"key": books.delivery.public_id},
        post="billing.change_webhookendpoint",
    ),
    "reconcile": Case(
        get="billing.view_reconciliation", post="billing.change_reconciliation", asks=("run",)
    ),
    "reconcile-mend": Case(
        ids=lambda shop, books: {"key": books.reconciliation.public_id, "place": 0},
        post="billing.change_reconciliation",
    ),
    "clock": Case(
        get="billing.view_clock",
        post="billing.change_clock",
        data=lambda shop, books: {"to": (books.merchant.now() + HOUR).isoformat()},
        sandbox_only=True,
    ),
    "outbox": Case(get="billing.view_outboxmessage", sandbox_only=True, asks=("to", "before")),
    "mails": Case(get="billing.view_organization", asks=("mail", "language")),
    "mail-page": Case(get="billing.view_organization", asks=("mail", "language")),
    "brand": Case(
        get="billing.view_organization", post="billing.change_organization", data=brand_form
    ),
    "brand-preview": Case(post="billing.view_organization", data=brand_form, done=200),
    "safety": Case(
        get="billing.view_organization",
        post="billing.change_organization",
        data=lambda shop, books: {"second_person_above": "100", "support_refunds_up_to": "50"},
    ),
    "account": Case(get="billing.view_any"),
    "account-password": Case(post="billing.view_any"),
    "account-two-step": Case(get="billing.view_any", post="billing.view_any"),
    "account-two-step-off": Case(get="billing.view_any", post="billing.view_any"),
    "account-codes": Case(post="billing.view_any"),
    "account-sign-out": Case(
        post="billing.view_any", data=lambda shop, books: {"sign_in": "others"}
    ),
    "audit": Case(get="billing.view_auditentry", asks=("who", "before")),
    "export-connections": Case(get="billing.view_connection", asks=("q", "plan")),
    "export-requests": Case(get="meters.view_usagerequest", asks=("q", "connection", "meter")),
    "export-payments": Case(get="billing.view_payment", asks=("connection",)),
    "export-refunds": Case(get="billing.view_payment", asks=("connection",)),
    "calendar": Case(get="billing.view_subscription", asks=("day",)),
    "margin": Case(get="billing.view_any", asks=("from",)),
    "export-margin": Case(get="billing.view_any"),
    "export-calendar": Case(get="billing.view_subscription"),
    "export-usage": Case(get="billing.view_any"),
    "export-plans": Case(get="billing.view_plan"),
    "export-credit": Case(get="billing.view_ledgerentry"),
    "export-numbers": Case(get="billing.view_any"),
    "export-ledger": Case(get="billing.view_ledgerentry", asks=("connection",)),
    "team": Case(
        get="billing.view_membership",
        post="billing.change_membership",
        data=lambda shop, books: {"email": "new@team.example", "role": "viewer"},
        done=200,
    ),
    "team-role": Case(
        ids=lambda shop, books: {"member": shop.member(Role.VIEWER).pk},
        post="billing.change_membership",
        data=lambda shop, books: {"role": "support"},
    ),
    "team-remove": Case(
        ids=lambda shop, books: {"member": shop.member(Role.VIEWER).pk},
        get="billing.change_membership",
        post="billing.change_membership",
    ),
    "team-revoke": Case(
        ids=lambda shop, books: {"invitation": shop.invitation.public_id},
        post="billing.change_membership",
    ),
}
# Open to strangers by their nature, each with tests of its own.
DOORS = {"login", "second-step", "logout", "first-run", "join", "forgot", "reset"}


@contextmanager
def undone() -> Iterator[None]:
    """What is done inside is taken back, so that one shop serves every address."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def address(name: str, ids: dict[str, Any]) -> str:
    return reverse(f"admin:{name}", kwargs=ids)


def text_of(answer: Any) -> str:
    """What an answer says, streamed or not."""
    return str(answer.getvalue().decode())


def ask(client: Any, case: Case, name: str, method: str, shop: Shop, books: Books) -> HttpResponse:
    where = address(name, case.ids(shop, books)) + case.query
    if method == "get":
        answer: HttpResponse = client.get(where)
        return answer
    posted: HttpResponse = client.post(where, case.data(shop, books))
    return posted


def methods() -> Iterator[tuple[str, str, str]]:
    """Every (name, method, permission) there is."""
    for name, case in CASES.items():
        for method in ("get", "post"):
            permission = getattr(case, method)
            if permission is not None:
                yield name, method, permission


EVERY = sorted(methods())


def everything(shop: Shop) -> dict[str, list[Any]]:
    """Every row of a shop, so that a change anywhere shows."""
    organization = shop.organization
    books = [shop.sandbox.merchant.pk, shop.live.merchant.pk]
    found: dict[str, list[Any]] = {}
    for model in apps.get_models():
        names = {field.name for field in model._meta.get_fields()}
        rows = model._default_manager.all()
        if model.__name__ == "Merchant":
            rows = rows.filter(pk__in=books)
        elif model.__name__ == "Organization":
            rows = rows.filter(pk=organization.pk)
        elif "merchant" in names:
            rows = rows.filter(merchant__in=books)
        elif "organization" in names:
            rows = rows.filter(organization=organization)
        else:
            continue
        found[model.__name__] = [
            [bytes(value) if isinstance(value, memoryview) else value for value in row]
            for row in rows.order_by("pk").values_list()
        ]
    return found


def test_every_address_of_the_console_has_its_case() -> None:
    names = {pattern.name for pattern in admin.site.get_urls()}
    assert names - DOORS == set(CASES)
    assert names >= DOORS


def test_every_page_names_the_permission_its_case_says(ours: Shop) -> None:
    """A view without a guard has no permission; the case says what the guard of GET must be."""
    for pattern in admin.site.get_urls():
        if pattern.name in DOORS or pattern.name == "index":
            continue
        case = CASES[pattern.name]
        assert pattern.callback.permission in (case.get, case.post), pattern.name


def test_the_owner_is_answered(ours: Shop) -> None:
    client = ours.client()
    for name, method, _ in EVERY:
        case = CASES[name]
        with undone():
            answer = ask(client, case, name, method, ours, ours.sandbox)
        wanted = 200 if method == "get" else case.done
        assert answer.status_code == wanted, (name, method, text_of(answer)[:400])
        assert "no-store" in answer["Cache-Control"], (name, method)


@pytest.mark.parametrize("role", [role for role in Role.values if role != Role.OWNER])
def test_a_role_is_answered_or_refused_by_its_rights(ours: Shop, role: str) -> None:
    """The owner, whom nothing is refused, has the test above."""
    client, member = ours.client(role), ours.member(role)
    before = everything(ours)
    for name, method, permission in EVERY:
        if tenancy.may(member, permission):
            with undone():
                answer = ask(client, CASES[name], name, method, ours, ours.sandbox)
            assert answer.status_code < 400, (name, method)
        else:
            answer = ask(client, CASES[name], name, method, ours, ours.sandbox)
            assert answer.status_code == 403, (name, method)
    assert everything(ours) == before


def test_no_role_but_the_owner_may_do_everything(ours: Shop) -> None:
    """The matrix above means something: each other role is refused somewhere."""
    for role in Role.values:
        refused = [name for name, _, need in EVERY if not tenancy.may(ours.member(role), need)]
        assert bool(refused) == (role != Role.OWNER)


@pytest.mark.parametrize("who", ["stranger", "person without a team"])
def test_who_is_in_no_team_is_sent_to_sign_in(ours: Shop, who: str) -> None:
    client = Client()
    if who != "stranger":
        client = signed_in(User.objects.create_user("alone@nobody.example", "a long password"))
    before = everything(ours)
    for name, method, _ in EVERY:
        answer = ask(client, CASES[name], name, method, ours, ours.sandbox)
        assert answer.status_code == 302, (name, method)
        assert answer["Location"].startswith("/console/login/?next="), (name, method)
    assert everything(ours) == before


WITH_IDS = [(name, method) for name, method, _ in EVERY if CASES[name].ids is not nothing]


def test_another_merchants_id_is_not_found_and_changes_nothing(ours: Shop, theirs: Shop) -> None:
    client, before = ours.client(), everything(theirs)
    for name, method in WITH_IDS:
        answer = ask(client, CASES[name], name, method, theirs, theirs.sandbox)
        assert answer.status_code == 404, (name, method)
        assert theirs.word.encode() not in answer.content, (name, method)
    assert everything(theirs) == before


def test_an_id_of_the_live_books_is_not_found_in_the_sandbox(ours: Shop) -> None:
    client, before = ours.client(), everything(ours)
    for name, method in WITH_IDS:
        if name.startswith("team-") or CASES[name].sandbox_only:
            # The team is the business's, whichever books are open.
            continue
        answer = ask(client, CASES[name], name, method, ours, ours.live)
        assert answer.status_code == 404, (name, method)
    assert everything(ours) == before


def test_what_belongs_to_the_sandbox_is_not_found_in_the_live_books(ours: Shop) -> None:
    client = ours.client()
    client.post(address("environment", {}), {"mode": "live"})
    for name in ("clock", "outbox"):
        answer = client.get(address(name, {}))
        assert answer.status_code == 404, name
        assert ours.live.message.body.encode() not in answer.content
    moved = client.post(address("clock", {}), {"to": (ours.live.merchant.now() + HOUR).isoformat()})
    assert moved.status_code == 404
    ours.live.merchant.refresh_from_db()
    assert not ours.live.merchant.clock_offset


def test_no_page_shows_anything_of_another_merchant_or_of_the_other_books(
    ours: Shop, theirs: Shop
) -> None:
    client = ours.client()
    hidden = theirs.sandbox.public_ids | theirs.live.public_ids | ours.live.public_ids
    for name, method, _ in EVERY:
        if method == "get":
            ids = CASES[name].ids(ours, ours.sandbox)
            page = text_of(client.get(address(name, ids)))
            assert theirs.word not in page and theirs.word.lower() not in page, name
            assert not [one for one in hidden if one in page], name
            assert ours.live.word not in page, name
            assert theirs.sandbox.secret not in page and ours.sandbox.secret not in page, name
            assert ours.sandbox.token_text not in page and "sk-Northwind" not in page, name


def test_the_pages_do_show_their_own(ours: Shop) -> None:
    """The search for what is hidden can fail: the same search finds what is not."""
    client = ours.client()
    for name in ("connections", "connection", "requests", "payments", "plans", "meters", "ledger",
                 "keys", "gateway", "gateway-call", "gateway-tokens", "gateway-token",
                 "gateway-keys", "gateway-prices", "outbox", "webhooks", "refunds", "refund",
                 "moves", "reconcile", "approvals", "approval", "export-connections",
                 "export-requests", "export-payments", "export-refunds",
                 "export-ledger"):  # fmt: skip
        page = text_of(client.get(address(name, CASES[name].ids(ours, ours.sandbox))))
        assert ours.sandbox.word in page, name


# Parameters that choose among names of ours, or name a day: no id means anything there.
CHOICES = {"state", "show", "mail", "language", "day", "from"}


def worth_asking(parameter: str, books: Books) -> list[str]:
    """What of these books could mean something to a parameter: their words, and their ids.

    One that is named after a kind of row takes ids of that kind alone (`billing.ids.parse`): it is
    asked for these, and for one of another kind.
    """
    words = [books.word, f"{books.word.lower()}-job", books.connection.customer.phone, "ZA-1"]
    if parameter in CHOICES:
        return words
    kind = getattr(books, parameter, None)
    if kind is None:
        return [*words, *books.public_ids]
    fitting = [one for one in books.public_ids if one.startswith(f"{kind.ID_PREFIX}_")]
    return [*words, *fitting, books.payment.public_id]


def test_a_filter_by_another_merchants_id_or_words_finds_nothing(ours: Shop, theirs: Shop) -> None:
    client = ours.client()
    for name, case in CASES.items():
        for parameter in case.asks:
            for value in worth_asking(parameter, theirs.sandbox):
                answer = client.get(address(name, {}), {parameter: value})
                assert answer.status_code in (200, 404), (name, parameter, value)
                # What was asked for may be repeated in its field; nothing else of theirs is shown.
                page = text_of(answer).replace(value, "")
                assert theirs.word not in page, (name, parameter, value)
                assert theirs.word.lower() not in page, (name, parameter, value)
                shown = [one for one in theirs.sandbox.public_ids if one in page]
                assert not shown, (name, parameter, value)


def test_another_merchants_ids_in_a_form_are_refused(ours: Shop, theirs: Shop) -> None:
    client = ours.client()
    before = everything(theirs)
    form = plan_form(ours, ours.sandbox)
    plan = address("plan", {"key": ours.sandbox.plan.public_id})
    client.post(plan, form | {"meters": theirs.sandbox.meter.public_id})
    assert not ours.sandbox.plan.meters.filter(pk=theirs.sandbox.meter.pk).exists()
    stolen = {
        "bundle-0-id": theirs.sandbox.bundle.public_id,
        "bundle-0-name": "Mine", "bundle-0-cost": "1", "bundle-0-credit": "1",
    }  # fmt: skip
    assert client.post(plan, form | stolen).status_code == 422
    attach = address("meter-attach", {"key": ours.sandbox.meter.public_id})
    assert client.post(attach, {"plan": theirs.sandbox.plan.public_id}).status_code == 404
    preview = address("plan-preview", {})
    assert client.post(preview, form | {"plan": theirs.sandbox.plan.public_id}).status_code == 404
    shown = client.post(preview, form | {"meters": theirs.sandbox.meter.public_id}).content
    assert theirs.word.encode() not in shown
    client.post(address("environment", {}), {"organization": str(theirs.organization.pk)})
    assert theirs.word.encode() not in client.get("/console/").content
    assert everything(theirs) == before


def test_who_leaves_the_team_opens_nothing_more_at_once(ours: Shop) -> None:
    client = ours.client(Role.SUPPORT)
    assert client.get("/console/connections/").status_code == 200
    ours.member(Role.SUPPORT).delete()
    assert client.get("/console/connections/").status_code == 302


def test_books_of_two_businesses_are_open_one_at_a_time(ours: Shop, theirs: Shop) -> None:
    both = ours.people[Role.OWNER]
    Membership.objects.create(user=both, organization=theirs.organization, role=Role.VIEWER)
    client = signed_in(both)
    client.post(address("environment", {}), {"organization": str(theirs.organization.pk)})
    page = client.get("/console/connections/").content.decode()
    assert theirs.word in page and ours.sandbox.connection.public_id not in page
    # An owner at home, a reader there.
    give = address("connection-give", {"key": theirs.sandbox.connection.public_id})
    assert client.post(give, {"amount": "5"}).status_code == 403


PAYLOAD = '"><svg onload=alert(1)>'


def test_no_text_of_anybody_becomes_markup(ours: Shop) -> None:
    """A hostile text in everything that people or backends can name, on every page."""
    books = ours.sandbox
    customer = books.connection.customer
    for row, fields in (
        (books.plan, ("name",)),
        (books.bundle, ("name",)),
        (books.meter, ("name",)),
        (books.key, ("name",)),
        (customer, ("first_name", "last_name", "email")),
        (books.connection, ("reference",)),
        (books.message, ("to", "subject", "body")),
        (books.token, ("name", "created_by")),
        (books.provider, ("name",)),
        (books.provider_key, ("created_by",)),
        (books.price, ("model", "created_by")),
        (books.payment, ("failure_message", "flag")),
        (books.refund, ("reason", "actor", "failure_message", "flag")),
        (books.move, ("actor",)),
        (books.next_version, ("name",)),
        (books.endpoint, ("name", "url")),
        (books.delivery, ("body",)),
        (books.attempt, ("answer", "error")),
        (books.reconciliation, ("actor", "error")),
        (ours.organization, ("name", "support_email", "terms_url")),
        (ours.people[Role.OWNER], ("name",)),
        (ours.invitation, ("email",)),
    ):
        for name in fields:
            setattr(row, name, PAYLOAD)
        row.save(update_fields=fields)
    client = ours.client()
    books.approval = books.ask(PAYLOAD, by=PAYLOAD)
    books.request = books.use(PAYLOAD, 10, model=PAYLOAD, metadata={PAYLOAD: PAYLOAD})
    give = {"amount": "5", "reason": PAYLOAD, "step": "give", "given": "0"}
    client.post(address("connection-give", {"key": books.connection.public_id}), give)
    client.post(address("keys", {}), {"name": PAYLOAD})
    seen = 0
    for name, case in CASES.items():
        if name.startswith("export-"):
            continue
        where = address(name, case.ids(ours, books))
        answers = [client.get(where)] if case.get else []
        answers += [client.get(where, dict.fromkeys(case.asks, PAYLOAD))] if case.asks else []
        if name not in ("environment", "key-revoke"):
            bad = dict.fromkeys(case.data(ours, books), PAYLOAD)
            answers += [client.post(where, bad)] if case.post and bad else []
        for answer in answers:
            page = answer.content.decode()
            assert "<svg onload" not in page, name
            policy = answer["Content-Security-Policy"]
            if name == "mail-page" and answer.status_code == 200:
                # Mail readers need inline styles; in this frame nothing runs at all.
                assert policy.startswith("default-src 'none';") and "; sandbox;" in policy
                policy = policy.replace("style-src 'unsafe-inline'", "")
            else:
                assert policy.startswith("default-src 'self';")
            assert "unsafe" not in policy
            seen += "&lt;svg onload" in page
    assert seen > 20
