"""The meter builder by hand: what belongs to no choice stays folded, and the figures follow."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from billing.models import Membership, Plan
from meters import prices
from meters.models import Meter, MeterPrice
from tests.browser import axe
from tests.browser.pictures import picture
from tests.lava.console.shop import Shop

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def ours(page: Page, live_server: Any) -> Shop:
    shop = Shop("Northwind", number=1)
    session = shop.client(Membership.Role.OWNER).cookies["sessionid"].value
    page.context.add_cookies(
        [{"name": "sessionid", "value": session, "url": f"{live_server.url}/console/"}]
    )
    return shop


def test_every_model_is_built_by_hand_with_its_figures_beside_it(
    page: Page, live_server: Any, ours: Shop
) -> None:
    page.goto(f"{live_server.url}/console/meters/new")
    calculator = page.locator("[data-calculator]")
    # Folded until it is chosen.
    for name in ("free_allowance", "package_size", "tier-0-flat", "rate_input"):
        expect(page.locator(f'[name="{name}"]')).to_be_hidden()
    expect(page.get_by_label("Count for life")).to_be_hidden()
    page.get_by_label("Name", exact=True).fill("Chat")
    page.get_by_label("Price of tier 1").fill("3")
    page.get_by_label("Free allowance").check()
    page.get_by_label("Free tokens").fill("2,000,000")
    expect(page.get_by_label("Count for life")).to_be_visible()
    expect(calculator).to_contain_text("the first 2 million tokens are free")
    expect(calculator).to_contain_text("$30.00")
    page.get_by_label("Packages").check()
    page.get_by_label("Size of a package").fill("3,000,000")
    expect(calculator).to_contain_text("4 packages of 3,000,000 tokens are paid")
    page.get_by_label("When used up").check()
    expect(calculator).to_contain_text("$27.00")
    picture(page, "meter-options")
    page.get_by_label("Flat amounts").check()
    page.get_by_label("Tiers", exact=True).check()
    page.get_by_role("button", name="Add a tier").click()
    page.get_by_label("Start of tier 2").fill("6,000,000")
    page.get_by_label("Price of tier 2").fill("2")
    page.get_by_label("Flat amount of tier 2").fill("10")
    expect(calculator).to_contain_text("$34.00")
    expect(calculator).to_contain_text("2, flat")
    picture(page, "meter-tiers")
    assert axe.violations(page) == []
    # A share has no packages: the box is away, and is not sent.
    page.get_by_label("A share of cost").check()
    expect(page.get_by_label("Packages")).to_be_hidden()
    page.get_by_label("A price a unit").check()
    expect(page.get_by_label("Packages")).to_be_checked()
    page.get_by_role("button", name="Make meter").click()
    expect(page.get_by_role("status")).to_contain_text("Chat is ready")
    picture(page, "meter-made")
    row = Meter.objects.select_related("price").get(slug="chat")
    assert row.price is not None
    terms = prices.of(row.price)
    assert [(tier.start, tier.rate, tier.flat) for tier in terms.tiers] == [
        (0, 3, 0), (6_000_000, 2, 10),
    ]  # fmt: skip
    assert (terms.free_allowance, terms.package_size, terms.package_rounding) == (
        2_000_000, 3_000_000, "down",
    )  # fmt: skip

    # All of a cycle at one rate: no flat amounts, and it always starts again.
    page.get_by_label("Flat amounts").uncheck()
    page.get_by_label("All of a cycle").check()
    expect(page.get_by_label("Flat amounts")).to_be_hidden()
    expect(page.get_by_label("Count for life")).to_be_hidden()
    # Of 12 million 2 are free; the 10 are 4 packages begun, 3 used up: 9 million at 2.
    expect(calculator).to_contain_text("$18.00")
    expect(calculator).to_contain_text("$27.00 is charged as it is used; $9.00 comes back")
    picture(page, "meter-volume")
    assert axe.violations(page) == []
    page.get_by_role("button", name="Publish version 2").click()
    expect(page.get_by_role("status")).to_contain_text("Version 2 counts")
    by_volume = MeterPrice.objects.get(meter=row, version=2)
    assert (by_volume.tier_mode, by_volume.tier_window) == ("volume", "cycle")

    # The same meter by kind of token: nothing of the rest is sent.
    page.get_by_label("By kind").check()
    for label, rate in (("Input", "3"), ("Output", "15"), ("Cached input", "0.3")):
        page.get_by_label(label, exact=True).fill(rate)
    expect(page.get_by_label("Free allowance")).to_be_hidden()
    page.get_by_label("of them are output").fill("2,000,000")
    page.get_by_label("are input read from the cache").fill("4,000,000")
    # 6 million at 3, 2 million at 15, 4 million at 0.30.
    expect(calculator).to_contain_text("$49.20")
    picture(page, "meter-kinds")
    assert axe.violations(page) == []
    page.get_by_role("button", name="Publish version 3").click()
    expect(page.get_by_role("status")).to_contain_text("Version 3 counts")
    latest = MeterPrice.objects.get(meter=row, version=3)
    assert latest.tier_kinds == ["input", "output", "cache_read"]
    assert (latest.free_allowance, latest.tier_flats) == (0, [])
    # As it stands it is no change, and the button says so.
    page.get_by_label("Output", exact=True).fill("16")
    expect(page.get_by_role("button", name="Publish version 4")).to_be_visible()
    page.get_by_label("Output", exact=True).fill("15.00")
    expect(page.get_by_role("button", name="Save", exact=True)).to_be_visible()
    # Another unit has no kinds of tokens.
    page.goto(f"{live_server.url}/console/meters/new")
    page.get_by_label("By kind").check()
    page.get_by_label("Minutes", exact=True).check()
    expect(page.get_by_label("By kind")).to_be_hidden()
    expect(page.get_by_label("One rate")).to_be_checked()


def test_refusals_are_shown_at_their_fields_and_nothing_is_lost(
    page: Page, live_server: Any, ours: Shop
) -> None:
    page.goto(f"{live_server.url}/console/meters/new")
    page.get_by_label("Name", exact=True).fill("Chat")
    page.get_by_label("Price of tier 1").fill("3")
    page.get_by_label("Free allowance").check()
    page.get_by_label("Flat amounts").check()
    page.get_by_role("button", name="Make meter").click()
    expect(page.get_by_text("or untick Free allowance")).to_be_visible()
    expect(page.get_by_text("or untick Flat amounts")).to_be_visible()
    expect(page.get_by_label("Price of tier 1")).to_have_value("3")
    picture(page, "meter-refused")
    where = f"{live_server.url}/console/meters/{ours.sandbox.meter.public_id}"
    page.goto(where)
    page.get_by_label("By kind").check()
    for label, rate in (("Input", "3"), ("Output", "15")):
        page.get_by_label(label, exact=True).fill(rate)
    page.get_by_role("button", name="What if").click()
    expect(page.get_by_text("The draft asks input $3.00, output $15.00 a million")).to_be_visible()
    picture(page, "meter-what-if")


def test_ctrl_k_searches_from_within_a_field(page: Page, live_server: Any, ours: Shop) -> None:
    page.goto(f"{live_server.url}/console/meters/new")
    page.get_by_label("Name", exact=True).focus()
    page.keyboard.press("Control+k")
    page.keyboard.type("northwind-meter")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("northwind-meter")
    expect(page.locator(f'main a[href$="{ours.sandbox.meter.public_id}"]')).to_be_visible()


def test_enter_in_the_plan_builder_saves_and_what_if_only_tries(
    page: Page, live_server: Any, ours: Shop
) -> None:
    page.goto(f"{live_server.url}/console/plans/new")
    name = page.get_by_label("Name", exact=True)
    name.fill("Solo")
    page.get_by_label("Price", exact=True).fill("10")
    page.get_by_role("button", name="What if").click()
    page.wait_for_url("**/what-if")
    assert axe.violations(page) == []
    picture(page, "what-if-plan")
    assert not Plan.objects.filter(name="Solo").exists()
    page.goto(f"{live_server.url}/console/plans/new")
    name.fill("Solo")
    page.get_by_label("Price", exact=True).fill("10")
    name.press("Enter")
    expect(page.get_by_role("heading", name="Solo")).to_be_visible()
    assert "what-if" not in page.url
    assert Plan.objects.filter(name="Solo").count() == 1
