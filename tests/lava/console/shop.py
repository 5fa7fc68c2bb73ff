"""A business with something of everything, its texts marked by one word, and its people."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from django.test import Client
from django.utils import timezone
from moneyed import Money

from billing import events, keys, merchants, outbox, team
from billing.models import (
    Connection,
    Invitation,
    LedgerEntry,
    Membership,
    Merchant,
    Organization,
    Payment,
    User,
)
from meters.gateway import keyring, spendkeys
from meters.models import UsageRequest
from tests import factories
from tests.meters.gateway import books as gateway
from tests.meters.test_charge import report

Role = Membership.Role
PASSWORD = "correct horse battery"


class Books:
    """One set of books with a row in every table the console shows."""

    def __init__(self, merchant: Merchant, word: str, *, phone: str) -> None:
        self.merchant, self.word = merchant, word
        now = merchant.now()
        self.plan = factories.make_plan(merchant, name=f"{word} plan")
        self.bundle = factories.make_bundle(self.plan)
        self.bundle.name = f"{word} bundle"
        self.bundle.save()
        self.meter = factories.make_meter(
            merchant, self.plan, slug=f"{word.lower()}-meter", tiers=[("0", "3"), ("1000000", "2")]
        )
        self.key, self.secret = keys.make(merchant, name=f"{word} key")
        self.connection = factories.make_connection(merchant, phone=phone, now=now)
        customer = self.connection.customer
        customer.first_name, customer.last_name = word, "Quill"
        customer.email = f"{word.lower()}@quill.example"
        customer.save()
        self.subscription = factories.make_subscription(
            self.plan, connection=self.connection, now=now
        )
        self.card = factories.make_card(self.connection)
        self.payment = self._payment(now)
        self.message = outbox.text(merchant, to=phone, body=f"{word} 123456", now=now)
        events.record(merchant, "payment.succeeded", now=now, connection=self.connection)
        self._gateway(phone)
        self.request = self.use(f"{word.lower()}-job", 1_000_000) if merchant.is_sandbox else None

    def _gateway(self, phone: str) -> None:
        """A key, a provider, a price, a token, and a call of each end."""
        merchant, word, now = self.merchant, self.word, self.merchant.now()
        self.provider_key = keyring.set_key(
            merchant, provider="openai", key=f"sk-{word}-0123456789", actor=word, now=now
        )
        self.provider = keyring.add_provider(
            merchant,
            slug=f"{word.lower()}-llm",
            name=f"{word} LLM",
            base_url=f"https://{word.lower()}.example/v1",
            now=now,
        )
        self.price = keyring.set_price(
            merchant,
            provider=self.provider.slug,
            model=f"{word.lower()}-model",
            rates={"input": Decimal(1)},
            actor=word,
            now=now,
        )
        self.token, self.token_text = spendkeys.make(
            merchant,
            name=f"{word} token",
            now=now,
            connection=self.connection if merchant.is_sandbox else None,
            meter=self.meter if merchant.is_sandbox else None,
            limits=spendkeys.Limits(spend_limit=Decimal(5), request_limit=100, rpm=60),
        )
        payer = {"connection": self.connection, "meter": self.meter} if merchant.is_sandbox else {}
        self.call = gateway.call(merchant, token=self.token, **payer)
        gateway.block(merchant, token=self.token, connection=self.connection)

    def use(self, request_id: str, tokens: int, **fields: Any) -> UsageRequest:
        charged = report(
            self.secret,
            self.connection,
            request_id,
            meter_slug=self.meter.slug,
            input_tokens=tokens,
            **fields,
        )
        return UsageRequest.objects.of(self.merchant).get(pk=charged.request.pk)

    def _payment(self, now: datetime) -> Payment:
        row = Payment(
            merchant=self.merchant,
            connection=self.connection,
            purpose=Payment.Purpose.SUBSCRIPTION,
            status=Payment.Status.SUCCEEDED,
            amount=Money(25, "USD"),
            key=f"test:{self.connection.public_id}",
            plan=self.plan,
            subscription=self.subscription,
            cycle_index=0,
            card=self.card,
            intent_id=f"pi_{self.word}",
            receipt_number=f"{self.word[:2].upper()}-1",
            created_at=now,
            settled_at=now,
        )
        row.save()
        return row

    @property
    def public_ids(self) -> set[str]:
        """Every id of these books that a page could show."""
        rows: list[Any] = [
            self.plan, self.bundle, self.meter, self.key, self.connection, self.payment,
            self.message, self.provider_key, self.provider, self.price, self.token, self.call,
        ]  # fmt: skip
        if self.request is not None:
            rows.append(self.request)
        return {row.public_id for row in rows}


class Shop:
    """A business: live books, a sandbox, one person of each role, an open invitation."""

    def __init__(self, word: str, *, number: int = 1) -> None:
        self.word = word
        self.people = {
            role: factories.make_user(
                f"{role}-{word.lower()}@team.example", name=f"{role.title()} {word}",
                password=PASSWORD,
            )
            for role in Role.values
        }  # fmt: skip
        self.organization: Organization = merchants.create(
            name=f"{word} Works",
            owner=self.people[Role.OWNER],
            support_email=f"help@{word.lower()}.example",
        )
        for role in Role.values:
            if role != Role.OWNER:
                Membership.objects.create(
                    user=self.people[role], organization=self.organization, role=role
                )
        self.invitation: Invitation
        self.invitation, link = team.invite(
            self.organization,
            email=f"{word.lower()}@invited.example",
            role=Role.SUPPORT,
            by=self.people[Role.OWNER],
            now=timezone.now(),
        )
        self.invitation_secret = link.rsplit("/", 1)[1]
        self.sandbox = Books(self.organization.sandbox, word, phone=f"+1415555{number}001")
        self.live = Books(self.organization.live, f"{word}live", phone=f"+1415555{number}002")

    def member(self, role: str) -> Membership:
        return self.organization.memberships.get(role=role)

    def client(self, role: str = Role.OWNER) -> Client:
        return signed_in(self.people[role])


def signed_in(user: User) -> Client:
    """A browser of somebody who has signed in; they begin in the sandbox."""
    client = Client()
    client.force_login(user, backend="billing.tenancy.RoleBackend")
    return client


def lines(connection: Connection) -> list[tuple[str, str]]:
    """The ledger of a connection: kinds and amounts, oldest first."""
    rows = LedgerEntry.objects.filter(connection=connection).order_by("seq")
    return [(row.kind, f"{row.amount:.2f}") for row in rows]
