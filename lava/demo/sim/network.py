"""A card network inside the process: what `billing.stripe` asks, answered from memory.

It stands in for the local card network (`lava.demo.card_network`, real HTTP) where thousands of
charges are wanted a minute: the same answers, keys that make a charge once, declines, and calls
that are lost before or after the money moved. `install` puts it behind `billing.stripe`'s functions
and takes it away again; nothing of the product knows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from unittest import mock

from billing import errors, money, stripe
from billing.models import Merchant, Payment
from billing.stripe import Card, Intent

GOOD, DECLINES = "pm_good", "pm_declines"
# What can happen to a call: it never arrives, or its answer never does.
LOST, DROPPED = "lost", "dropped"


@dataclass
class Network:
    """Intents by id; `declining`: the customers whose cards are refused now; `faults`: one for
    each next charge of a customer."""

    intents: dict[str, Intent] = field(default_factory=dict)
    by_payment: dict[str, str] = field(default_factory=dict)
    owner: dict[str, str] = field(default_factory=dict)
    declining: set[str] = field(default_factory=set)
    faults: dict[str, str] = field(default_factory=dict)
    customers: int = 0

    def create_customer(self, merchant: Merchant, **words: Any) -> str:
        self.customers += 1
        return f"cus_sim_{self.customers}"

    def create_intent(
        self, payment: Payment, *, customer_id: str, card_id: str = "", confirm: bool = False
    ) -> Intent:
        fault = self.faults.pop(customer_id, None) if payment.off_session else None
        if fault == LOST:
            raise errors.CardUnknown("The card network did not answer.")
        made = self.by_payment.get(payment.public_id)
        if made is None:
            made = f"pi_sim_{len(self.intents) + 1}"
            self.intents[made] = Intent(
                id=made,
                status="requires_payment_method",
                client_secret=f"{made}_secret",
                amount_minor=money.to_minor(payment.amount),
                currency=str(payment.amount.currency),
                charge_id="",
                card_id="",
                decline_code="",
                message="",
            )
            self.by_payment[payment.public_id] = made
            self.owner[made] = customer_id
            if payment.off_session or confirm:
                self._confirm(made, card_id)
        if fault == DROPPED:
            raise errors.CardUnknown("The card network did not answer.")
        found = self.intents[made]
        if payment.off_session and found.status != "succeeded":
            raise errors.CardDeclined("Your card was declined.", code=found.decline_code)
        return found

    def confirm_intent(self, payment: Payment, *, card_id: str) -> Intent:
        found = self._confirm(payment.intent_id, card_id)
        if found.status != "succeeded":
            raise errors.CardDeclined("Your card was declined.", code=found.decline_code)
        return found

    def retrieve_intent(self, merchant: Merchant, intent_id: str) -> Intent:
        return self.intents[intent_id]

    def find_intent(self, payment: Payment, *, customer_id: str) -> Intent | None:
        made = self.by_payment.get(payment.public_id)
        return self.intents[made] if made else None

    def retrieve_card(self, merchant: Merchant, card_id: str) -> Card:
        return Card(id=card_id, brand="visa", last4="4242", exp_month=12, exp_year=2040)

    def taken(self) -> dict[str, tuple[int, str]]:
        """What was taken, by our payment's public id: minor units and currency."""
        return {
            payment: (self.intents[made].amount_minor, self.intents[made].currency)
            for payment, made in self.by_payment.items()
            if self.intents[made].status == "succeeded"
        }

    def _confirm(self, intent_id: str, card_id: str) -> Intent:
        found = self.intents[intent_id]
        if found.status != "succeeded":
            refused = self.owner[intent_id] in self.declining
            found = replace(
                found,
                status="requires_payment_method" if refused else "succeeded",
                charge_id=intent_id.replace("pi_", "ch_"),
                card_id=card_id,
                decline_code="generic_decline" if refused else "",
                message="Your card was declined." if refused else "",
            )
            self.intents[intent_id] = found
        return found


@contextmanager
def install(network: Network) -> Iterator[Network]:
    """Put a network behind `billing.stripe` for as long as the block runs."""
    names = (
        "create_customer", "create_intent", "confirm_intent", "retrieve_intent", "find_intent",
        "retrieve_card",
    )  # fmt: skip
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(mock.patch.object(stripe, name, getattr(network, name)))
        yield network
