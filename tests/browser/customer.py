"""What a customer does at checkout, by the words on the page."""

from __future__ import annotations

import re
from typing import Any

from tests.product import Backend, eventually


def code_for(backend: Backend, phone: str) -> str:
    """The newest code texted to a phone, from the sandbox's outbox."""
    texts = eventually(
        lambda: [
            row
            for row in backend.get("test_helpers/outbox", to=phone)["data"]
            if row["kind"] == "text"
        ]
    )
    found = re.match(r"\d{6}", texts[0]["body"])
    assert found is not None
    return found.group()


def confirm_phone(page: Any, backend: Backend, phone: str) -> None:
    """Steps 1 and 2: the number, then the code that was texted. The code submits itself."""
    page.get_by_label("Phone number").fill(phone.removeprefix("+1"))
    page.get_by_role("button", name="Text me a code").click()
    page.get_by_label("Enter your code").wait_for()
    page.get_by_label("Enter your code").press_sequentially(code_for(backend, phone))


def enter_card(page: Any, number: str) -> None:
    page.get_by_label("Card number").fill(number)
    page.get_by_role("textbox", name="Expiration date").fill("0831")
    page.get_by_label("Security code").fill("123")
    page.get_by_label("ZIP code").fill("04101")


def pay(page: Any, *, name: str, email: str, card: str = "4242424242424242") -> None:
    """Step 3: name, e-mail, card, and the button with the amount."""
    page.get_by_label("Full name").fill(name)
    page.get_by_label("Email").fill(email)
    enter_card(page, card)
    page.get_by_role("button", name=re.compile("^Pay")).click()
