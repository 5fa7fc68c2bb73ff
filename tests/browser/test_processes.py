"""What a merchant does in the console about money and keys, each by its pages: looked at before the
click, done once by a double click, found in the ledger after it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from playwright.sync_api import Page, expect

from billing import imports, moves
from billing.models import (
    Approval,
    AuditEntry,
    CreditGrant,
    CustomerImport,
    Membership,
    PlanMove,
    Refund,
    SecretKey,
    Subscription,
    User,
)
from lava.demo.card_network.process import CardNetwork
from tests import card_network as cn
from tests import factories
from tests.browser import axe
from tests.browser.looking import listen
from tests.browser.merchant import press_twice
from tests.browser.pictures import picture
from tests.lava.console.shop import lines, signed_in
from tests.lava.console.test_money_processes import Till

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
Role = Membership.Role


class Desk:
    """A till and the browser at it, in which one person after the other sits down."""

    def __init__(self, page: Page, url: str) -> None:
        self.page, self.url = page, f"{url}/console"
        self.till = Till()
        self.home = f"/connections/{self.till.connection.public_id}"
        self.sit_down(self.till.owner)

    def sit_down(self, person: User) -> None:
        session = signed_in(person).cookies["sessionid"].value
        self.page.context.add_cookies([{"name": "sessionid", "value": session, "url": self.url}])

    def colleague(self, name: str, role: str) -> User:
        person = factories.make_user(name=name)
        organization = self.till.shop.merchant.organization
        Membership.objects.create(user=person, organization=organization, role=role)
        return person

    def open(self, where: str) -> None:
        self.page.goto(f"{self.url}{where}")

    def preview(self, **fields: str) -> list[str]:
        """Fill in what is named by its label and ask what will change: the amounts of the lines."""
        for label, text in fields.items():
            self.page.get_by_label(label, exact=True).fill(text)
        self.page.get_by_role("button", name=re.compile("Show what will change|Update")).click()
        return self.lines()

    def lines(self) -> list[str]:
        """The amounts of the ledger lines that the page says it would write."""
        heading = self.page.get_by_role("heading", name="Ledger lines this writes")
        card = self.page.locator("section", has=heading)
        expect(card).to_be_visible()
        return [text.strip() for text in card.locator("tbody td:nth-child(3)").all_inner_texts()]

    def do(self, button: str, *, says: str) -> None:
        """Press a button twice, as the impatient do, and be told once that it is done."""
        self.press(button)
        self.hear(says)

    def press(self, button: str) -> None:
        press_twice(self.page, button)

    def hear(self, says: str) -> None:
        expect(self.page.locator(".lv-alert").first).to_contain_text(says)

    def ledger(self) -> list[tuple[str, str]]:
        return lines(self.till.connection)

    def shown_ledger(self, *words: str) -> None:
        """The customer's page tells the newest lines, newest first."""
        self.open(self.home)
        rows = self.page.locator("#ledger .cl-line:not(.cl-line--head)")
        for number, word in enumerate(words):
            expect(rows.nth(number)).to_contain_text(word)


@pytest.fixture
def desk(page: Page, live_server: Any, card_network: CardNetwork) -> Iterator[Desk]:
    """The till's desk; the browser may complain of nothing meanwhile."""
    said = listen(page)
    yield Desk(page, live_server.url)
    assert said == []


def actions() -> list[str]:
    return list(AuditEntry.objects.order_by("id").values_list("action", flat=True))


def test_a_payment_is_refunded_in_part_then_in_whole(desk: Desk) -> None:
    till, page = desk.till, desk.page
    till.shop.use(till.connection, "job", "5")
    refund = f"/payments/{till.payment.public_id}/refund"
    desk.open(f"/payments/{till.payment.public_id}")
    page.get_by_role("link", name="Refund").last.click()
    assert desk.preview(Amount="8", Reason="A slow week") == ["−$8.00"]
    assert not Refund.objects.exists()
    desk.do("Refund $8.00", says="$8.00 is paid back.")
    expect(page.get_by_role("main")).to_contain_text("A slow week")
    assert desk.ledger()[-1] == ("clawback", "-8.00")

    desk.open(refund)
    expect(page.get_by_label("Amount")).to_have_value("12.00")
    page.get_by_label("More than the unspent part").check()
    # What is left unspent goes, and the usage that was paid becomes owed.
    assert desk.preview(Amount="17", Reason="They leave") == ["−$12.00", "−$5.00"]
    desk.do("Refund $17.00", says="$17.00 is paid back.")
    assert desk.ledger()[-2:] == [("clawback", "-12.00"), ("clawback", "-5.00")]
    assert sorted(cents for _, cents, _ in cn.given_back(till.shop.merchant)) == [800, 1700]
    assert actions() == ["payment.refunded", "payment.refunded"]
    desk.shown_ledger("−$5.00", "−$12.00", "−$8.00")
    desk.open(refund)
    expect(page.get_by_text("All of it went back already")).to_be_visible()


def test_credits_are_given_and_taken(desk: Desk) -> None:
    till, page = desk.till, desk.page
    desk.open(desk.home)
    page.get_by_role("link", name="Give credits").first.click()
    assert desk.preview(Amount="7.50", Reason="A bad night") == ["+$7.50"]
    assert not CreditGrant.objects.filter(source="manual").exists()
    desk.do("Give $7.50", says="$7.50 given.")
    grant = CreditGrant.objects.get(source="manual")
    assert (grant.amount, grant.reason, grant.actor) == (
        Decimal("7.5"), "A bad night", till.owner.name,
    )  # fmt: skip
    page.get_by_role("link", name="Take credits").click()
    # Plan credit goes first, as it would be spent.
    assert desk.preview(Amount="26", Reason="Given to the wrong one") == ["−$25.00", "−$1.00"]
    desk.do("Take $26.00", says="$26.00 taken.")
    assert desk.ledger()[-3:] == [("grant", "7.50"), ("adjust", "-25.00"), ("adjust", "-1.00")]
    assert actions() == ["credits.given", "credits.taken"]
    desk.shown_ledger("−$1.00", "−$25.00", "+$7.50")


def test_a_plan_is_switched_now_and_at_the_cycles_end(desk: Desk) -> None:
    till, page = desk.till, desk.page
    dear = factories.make_plan(till.shop.merchant, price="100", credit="120", name="Scale")
    cheap = factories.make_plan(till.shop.merchant, price="5", credit="5", name="Small")
    till.shop.use(till.connection, "job", "5")
    desk.open(desk.home)
    page.get_by_role("link", name="Switch plan").click()
    page.get_by_label("Scale").check()
    assert desk.preview() == ["−$20.00", "+$120.00"]
    assert len(cn.taken(till.shop.merchant)) == 1
    desk.do("Charge $80.00 and switch", says="is on Scale, and paid $80.00.")
    assert sorted(cents for _, cents, _ in cn.taken(till.shop.merchant)) == [2500, 8000]
    assert desk.ledger()[-2:] == [("expire", "-20.00"), ("grant", "120.00")]
    row = Subscription.objects.get(connection=till.connection)
    assert row.plan_id == dear.pk

    desk.open(f"{desk.home}/switch-plan")
    page.get_by_label("Small").check()
    page.get_by_role("button", name="Show what will change").click()
    expect(page.get_by_text("the cycle’s end writes them")).to_be_visible()
    desk.press(page.get_by_role("button", name=re.compile("^Switch ")).inner_text())
    desk.hear("moves to Small")
    row.refresh_from_db()
    assert (row.plan_id, row.pending_plan_id) == (dear.pk, cheap.pk)
    desk.open(f"{desk.home}/switch-plan")
    desk.do("Stay on Scale", says="stays on Scale.")
    row.refresh_from_db()
    assert (row.plan_id, row.pending_plan_id) == (dear.pk, None)
    assert actions() == ["plan.switched", "plan.switched", "plan.stayed"]
    assert len(cn.taken(till.shop.merchant)) == 2


def test_a_key_is_rotated_shown_once_and_the_old_one_ends_as_chosen(desk: Desk) -> None:
    till, page = desk.till, desk.page

    def status(key: str) -> int:
        return Client().get("/v1/plans", headers={"Authorization": f"Bearer {key}"}).status_code

    def rotate(choice: str) -> str:
        """Rotate the newest key and read the new one where it is shown."""
        desk.open("/keys")
        page.get_by_role("link", name="Rotate").first.click()
        page.get_by_label(choice).check()
        desk.press("Make the new key")
        expect(page.get_by_role("heading", name="Your new key")).to_be_visible()
        fresh = page.locator("#secret-key").inner_text()
        page.get_by_role("link", name="I have copied it").click()
        expect(page.get_by_role("main")).not_to_contain_text(fresh)
        return fresh

    first = rotate("Works on until you revoke it")
    assert (SecretKey.objects.count(), status(first), status(till.shop.key)) == (2, 200, 200)
    second = rotate("Stops at once")
    assert (SecretKey.objects.count(), status(second), status(first)) == (3, 200, 401)
    # The oldest works until it is revoked.
    page.get_by_role("link", name="Revoke").last.click()
    desk.press("Revoke this key")
    desk.hear("is revoked. Requests with it are refused.")
    assert (status(till.shop.key), status(second)) == (401, 200)
    assert actions() == ["key.rotated", "key.rotated", "key.revoked"]


def test_customers_are_moved_to_a_new_version_while_the_page_looks_on(desk: Desk) -> None:
    till, page = desk.till, desk.page
    desk.open(f"/plans/{till.shop.plan.public_id}/version")
    page.get_by_label("Price", exact=True).fill("30")
    desk.do("Make the version", says="Version 2 of Studio is sold from now on.")
    desk.open(f"/plans/{till.shop.plan.public_id}/move")
    page.get_by_label("Version 2").check()
    page.get_by_label("At the end of each one’s cycle").check()
    page.get_by_role("button", name="Show what will change").click()
    row = page.locator("tr", has=page.get_by_role("link", name=str(till.connection.customer)))
    expect(row).to_contain_text(re.compile(r"\$25\.00.*\$30\.00"))
    assert not PlanMove.objects.exists()
    desk.press("Move 1 customer to version 2")
    expect(page.get_by_role("heading", name="0 of 1")).to_be_visible()
    job = PlanMove.objects.get()
    subscription = Subscription.objects.get(connection=till.connection)
    assert subscription.pending_plan_id is None
    # A worker comes by; the page finds out by itself.
    moves.run(job.pk, now=till.shop.now)
    expect(page.get_by_role("heading", name="1 of 1")).to_be_visible(timeout=10_000)
    subscription.refresh_from_db()
    assert subscription.pending_plan_id == job.to_plan_id != till.shop.plan.pk
    assert actions() == ["plan.versioned", "plan.moved"]
    assert desk.ledger() == [("grant", "25.00")]


def test_customers_are_imported_from_a_file_while_the_page_looks_on(desk: Desk) -> None:
    page, merchant = desk.page, desk.till.shop.merchant

    def choose(text: str) -> None:
        file: Any = {"name": "old.csv", "mimeType": "text/csv", "buffer": text.encode()}
        page.get_by_label("file").set_input_files(file)
        page.get_by_role("button", name=re.compile("^Look at")).click()

    good = "phone,name,reference_id\n+14155550177,Mara Lind,m-1\n"
    desk.open("/connections/")
    page.get_by_role("link", name="Import").click()
    page.get_by_role("link", name="Import customers").click()
    choose(good + "4155550178,Ben Ode,m-2\n")
    row = page.locator("tr", has_text="Ben Ode")
    expect(row).to_contain_text(re.compile("^3.*phone: must be a phone number"))
    picture(page, "import-wrong")
    choose(good)
    expect(page.get_by_text("1 new, 0 there already")).to_be_visible()
    picture(page, "import-right")
    assert not CustomerImport.objects.exists()
    desk.press("Import 1 customer")
    expect(page.get_by_role("heading", name="0 of 1")).to_be_visible()
    job = CustomerImport.objects.get()
    imports.run(job.pk, now=merchant.now())
    expect(page.get_by_role("heading", name="1 of 1")).to_be_visible(timeout=10_000)
    picture(page, "import-done")
    page.get_by_role("link", name="Open the connections").click()
    expect(page.get_by_role("link", name="Mara Lind")).to_be_visible()
    assert actions() == ["customers.imported"]


def test_typing_finds_a_customer_and_the_keyboard_opens_them(desk: Desk) -> None:
    page, customer = desk.page, desk.till.connection.customer
    customer.first_name, customer.last_name = "Mara", "Lind"
    customer.email = "mara@tallgrass.example"
    customer.save()
    desk.open("/plans/")
    page.keyboard.press("/")
    field = page.get_by_role("combobox", name="Search")
    field.press_sequentially("mar")
    hits = page.get_by_role("option")
    # The customer, and what has these letters: Margin.
    expect(hits).to_have_text([re.compile("Mara Lind"), "Margin"])
    picture(page, "palette")
    assert axe.violations(page) == []
    field.press("ArrowDown")
    expect(hits.first).to_have_attribute("aria-selected", "true")
    expect(field).to_have_attribute("aria-activedescendant", "hit-0")
    field.press("ArrowUp")
    field.press("ArrowDown")
    field.press("Escape")
    expect(hits).to_have_count(0)
    expect(field).to_have_value("mar")
    field.fill("mara")
    expect(hits).to_have_count(1)
    field.press("ArrowDown")
    field.press("Enter")
    page.wait_for_url(f"**{desk.home}")
    # Without a choice Enter searches, as without the list.
    field.fill("nobody such")
    expect(page.get_by_text("Nothing found.")).to_be_visible()
    field.press("Enter")
    expect(page.get_by_role("heading", name="Results for “nobody such”")).to_be_visible()


def test_credits_above_the_limit_take_two_and_are_given_once_or_refused(desk: Desk) -> None:
    till, page = desk.till, desk.page
    organization = till.shop.merchant.organization
    organization.second_person_above = Decimal(10)
    organization.save()
    ben = desk.colleague("Ben Support", Role.SUPPORT)
    for amount in ("40", "50"):
        desk.open(f"{desk.home}/give-credits")
        assert desk.preview(Amount=amount, Reason=f"Worth {amount}") == [f"+${amount}.00"]
        expect(page.get_by_text("A second person is needed.")).to_be_visible()
        desk.do(f"Ask to give ${amount}.00", says="Nothing moves until another person")
    assert Approval.objects.count() == 2
    # Who asked cannot approve.
    expect(page.get_by_role("button", name=re.compile("^Approve"))).to_have_count(0)
    assert not CreditGrant.objects.filter(source="manual").exists()

    desk.sit_down(ben)
    desk.open("/approvals/")
    page.locator("a.cl-cover").first.click()
    assert desk.lines() == ["+$40.00"]
    desk.do("Approve and give $40.00", says="Approved: $40.00 given.")
    picture(page, "approval-given")
    grant = CreditGrant.objects.get(source="manual")
    assert (grant.amount, grant.actor) == (40, f"{till.owner.name}, approved by {ben.name}")
    desk.open("/approvals/")
    page.locator("a.cl-cover").first.click()
    page.get_by_label("Reason").fill("Twice is too often")
    desk.do("Refuse", says="sees your reason here.")
    assert CreditGrant.objects.filter(source="manual").count() == 1
    assert list(Approval.objects.order_by("id").values_list("state", flat=True)) == [
        "approved", "refused",
    ]  # fmt: skip
    desk.open("/approvals/")
    expect(page.locator("a.cl-cover")).to_have_count(0)
    desk.shown_ledger("+$40.00")
