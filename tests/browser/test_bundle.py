"""A plan that stops, in Chromium: a declined card, work that ran into debt, and a bundle that pays
the debt first."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser import customer, merchant
from tests.product import Backend, Product

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("product")]


def test_a_bundle_bought_alone_pays_the_debt_first_on_a_plan_that_stops(
    product: Product, page: Page
) -> None:
    facts = merchant.shop_by_code(product, when_depleted="block", price="5", credit="5")
    backend = Backend(product, facts["key"])
    session = backend.post(
        "checkout_sessions",
        checkout_mode="subscription",
        origin_url="https://app.example",
        return_url="https://app.example/thanks",
        subscription_config_id=facts["plan"],
    )
    page.goto(session["url"])
    customer.confirm_phone(page, backend, "+14155550177")
    customer.pay(page, name="Ada Quill", email="ada@quill.example", card="4000000000000002")
    expect(page.get_by_role("alert")).to_contain_text("Nothing was charged")
    customer.enter_card(page, "4242424242424242")
    page.get_by_role("button", name=re.compile("^Pay")).click()
    expect(page.get_by_role("heading", name="You have $5.00 of credits")).to_be_visible()

    done = backend.get(f"checkout_sessions/{session['checkout_session_id']}")
    body = {"connection_id": done["connection_id"], "meter_slug": "chat"}
    backend.post("requests", request_id="a", input_tokens=2_000_000, **body)
    ran = backend.post("requests", request_id="b", input_tokens=100_000, **body)
    assert ran["balance"]["total_remaining"] == "-1.3000000000"
    refused = backend.http.post(
        "requests", json={**body, "request_id": "c", "input_tokens": 1, "enforce": True}
    )
    assert refused.status_code == 402

    bundle = backend.post(
        "checkout_sessions",
        checkout_mode="credit_bundle",
        origin_url="https://app.example",
        connection_id=done["connection_id"],
        credit_bundle_id=facts["bundle"],
    )
    page.goto(bundle["url"])
    page.get_by_role("button", name="Text me a code").click()
    page.get_by_label("Enter your code").wait_for()
    code = customer.code_for(backend, "+14155550177")
    page.get_by_label("Enter your code").press_sequentially(code)
    page.get_by_role("button", name=re.compile("^Pay")).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("8.70")
    ledger = backend.get(f"connections/{done['connection_id']}/ledger")["data"]
    assert [(line["kind"], line["amount"]) for line in ledger[:3]] == [
        ("debt", "1.3000000000"),
        ("debt", "-1.3000000000"),
        ("grant", "10.0000000000"),
    ]
    audit = product.manage("audit")
    assert (audit.returncode, audit.stdout) == (0, ""), audit.stdout + audit.stderr
