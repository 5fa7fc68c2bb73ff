"""What a merchant does in the console, by the words on its pages."""

from __future__ import annotations

import json
from typing import Any

from playwright.sync_api import Page, expect

from tests.product import Product

SHOP = """
import json
from tests import factories
merchant = factories.make_merchant()
plan = factories.make_plan(merchant, **{terms!r})
bundle = factories.make_bundle(plan)
factories.make_meter(merchant, plan)
print(json.dumps({{"key": factories.make_key(merchant), "plan": plan.public_id,
                   "bundle": bundle.public_id}}))
"""


def shop_by_code(product: Product, **terms: str) -> Any:
    """A merchant with a plan, a meter, a bundle and a key, made without the console."""
    made = product.manage("shell", "-v", "0", "-c", SHOP.format(terms=terms))
    assert made.returncode == 0, made.stderr
    return json.loads(made.stdout.strip().splitlines()[-1])


def press_twice(page: Page, button: str) -> None:
    """Press a button as the impatient do: the second time when the first is at the server."""
    found = page.get_by_role("button", name=button, exact=True)
    expect(found).to_be_enabled()
    found.evaluate("at => { at.click(); setTimeout(() => at.click(), 20); }")


def first_run(page: Page, product: Product, *, business: str) -> None:
    """The first page of an empty product: the business, its owner; ends at the checklist."""
    page.goto(f"{product.url}/console/")
    page.get_by_label("Business").fill(business)
    page.get_by_label("Your name").fill("Ana Ruiz")
    page.get_by_label("Your e-mail").fill("ana@northwind.example")
    page.get_by_label("Password").fill("a long enough password")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Welcome, Ana")


def make_meter(page: Page, product: Product) -> None:
    """The meter `chat`: tokens, 3 a million up to 10 million, then 2, counted for life."""
    page.goto(f"{product.url}/console/meters/new")
    page.get_by_label("Name").fill("Chat")
    expect(page.get_by_label("Slug")).to_have_value("chat")
    page.get_by_label("Tokens", exact=True).check()
    page.get_by_label("Tiers", exact=True).check()
    page.get_by_role("button", name="Add a tier").click()
    page.get_by_label("Price of tier 1").fill("3")
    page.get_by_label("Start of tier 2").fill("10,000,000")
    page.get_by_label("Price of tier 2").fill("2")
    page.get_by_label("Count for life").check()
    calculator = page.locator("[data-calculator]")
    page.get_by_label("A month of").fill("12,000,000")
    expect(calculator).to_contain_text("$34.00")
    page.get_by_role("button", name="Make meter").click()
    expect(page.get_by_role("status")).to_contain_text("Chat is ready")


def make_plan(page: Page, product: Product) -> str:
    """The plan Studio: 25.00 a month with 25.00 of credit, a bundle of 10, overage, the meter on.

    Gives its public id.
    """
    page.goto(f"{product.url}/console/plans/new")
    page.get_by_label("Name", exact=True).first.fill("Studio")
    page.get_by_label("Price", exact=True).fill("25.00")
    page.get_by_label("Credit each month").fill("25.00")
    page.get_by_label("Rolls over").check()
    expect(page.get_by_label("Chat")).to_be_checked()
    page.get_by_role("button", name="Add a bundle").click()
    row = page.locator("#plan-form [data-row]")
    row.get_by_label("Name").fill("Pack 10")
    row.get_by_label("They pay").fill("10")
    row.get_by_label("Credit").fill("10")
    page.get_by_label("Keep working, and charge the card").check()
    expect(page.locator("[data-preview-target]")).to_contain_text("$25.00")
    page.get_by_role("button", name="Make plan").click()
    expect(page.get_by_role("status")).to_contain_text("Studio is ready to sell")
    return page.url.rsplit("/", 1)[1]


def make_key(page: Page, product: Product) -> str:
    """A secret key, read where it is shown for the only time."""
    page.goto(f"{product.url}/console/keys")
    page.get_by_label("Name").fill("Production server")
    page.get_by_role("button", name="Make key").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Your new key")
    key = page.locator("#secret-key").inner_text()
    page.goto(f"{product.url}/console/keys")
    expect(page.get_by_role("main")).not_to_contain_text(key)
    return key
