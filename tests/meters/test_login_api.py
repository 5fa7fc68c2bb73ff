"""A terminal's own key by a login in the browser; a spend key that is changed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from billing import errors, keys
from billing.models import Membership, SecretKey
from meters.gateway.models import ForwardToken
from tests import factories

pytestmark = pytest.mark.django_db


class Shop:
    def __init__(self) -> None:
        self.merchant = factories.make_merchant()
        self.plan = factories.make_plan(self.merchant, price="0")
        self.meter = factories.make_meter(self.merchant, self.plan)
        self.key = factories.make_key(self.merchant)
        self.owner = self.merchant.organization.memberships.get(role="owner").user

    def call(self, method: str, path: str, body: Any = None) -> Any:
        return getattr(Client(), method)(
            f"/v1/{path}",
            body,
            content_type="application/json",
            headers={"Authorization": f"Bearer {self.key}"},
        )


@pytest.fixture
def shop() -> Shop:
    return Shop()


def test_a_change_keeps_what_it_does_not_name_and_null_is_no_limit(shop: Shop) -> None:
    body = {
        "name": "App",
        "allowed_models": ["a"],
        "spend_limit": {"amount": "5", "cycle": "daily"},
        "rate_limit": {"rpm": 6},
        "expires_at": (timezone.now() + timedelta(hours=1)).isoformat(),
    }
    made = shop.call("post", "spend_keys", body).json()
    path = f"spend_keys/{made['spend_key_id']}"
    changed = shop.call("patch", path, {"name": "Other", "rate_limit": None}).json()
    kept = {name: value for name, value in made.items() if name != "key"}
    assert changed == kept | {"name": "Other", "rate_limit": None}
    # A key that has ended is still renamed, and given another end only in the future.
    ForwardToken.objects.update(expires_at=timezone.now() - timedelta(hours=1))
    assert shop.call("patch", path, {"name": "Ended"}).status_code == 200
    past = shop.call("patch", path, {"expires_at": "2020-01-01T00:00:00Z"})
    assert past.json()["error"]["param"] == "expires_at"
    assert shop.call("delete", path).json() == {"success": True}
    assert shop.call("get", path).status_code == 404
    assert shop.call("post", f"{path}/rotate").status_code == 404


def test_an_offered_key_is_fetched_once_and_in_time(shop: Shop) -> None:
    now = timezone.now()
    late = keys.offer(shop.merchant, user=shop.owner, now=now - keys.OFFER_LIFE)
    code = keys.offer(shop.merchant, user=shop.owner, now=now)
    with pytest.raises(errors.Invalid):
        keys.redeem(late, now=now)
    told = {"code": code}
    first = Client().post("/v1/auth/callback", told, content_type="application/json")
    assert first.status_code == 200
    row = keys.find(first.json()["secret_key"])
    assert row.merchant == shop.merchant and row.created_by == shop.owner
    # No answer with a secret is kept for whoever knows a key of repetition.
    headers = {"Idempotency-Key": "again"}
    for _ in range(2):
        again = Client().post(
            "/v1/auth/callback", told, content_type="application/json", headers=headers
        )
        assert (again.status_code, again.json()["error"]["code"]) == (400, "invalid_code")
    assert SecretKey.objects.filter(created_by=shop.owner).count() == 1


@pytest.mark.parametrize(
    "query",
    ["", "state=abcdefgh&port=", "state=abcdefgh&port=65536", "state=a&port=4000",
     "state=abcdefgh&port=4000%40evil.example", "state=%3Cscript%3E&port=4000"],
)  # fmt: skip
def test_a_login_link_that_is_not_whole_offers_nothing(shop: Shop, query: str) -> None:
    browser = Client()
    browser.force_login(shop.owner, backend="billing.tenancy.RoleBackend")
    page = browser.get(f"/console/keys/connect?{query}")
    assert page.status_code == 400 and b"not whole" in page.content
    assert browser.post(f"/console/keys/connect?{query}").status_code == 400


def test_a_role_that_makes_no_keys_offers_none(shop: Shop) -> None:
    support = factories.make_user()
    Membership.objects.create(
        user=support, organization=shop.merchant.organization, role=Membership.Role.SUPPORT
    )
    browser = Client()
    asked = "/console/keys/connect?state=abcdefgh&port=4000"
    assert browser.get(asked)["Location"].startswith("/console/login/")
    browser.force_login(support, backend="billing.tenancy.RoleBackend")
    assert browser.get(asked).status_code == browser.post(asked).status_code == 403
