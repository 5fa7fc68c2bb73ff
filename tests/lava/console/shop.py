"""A business with something of everything, its texts marked by one word, and its people."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from django.test import Client
from django.utils import timezone
from moneyed import Money

from billing import approvals, events, keys, merchants, outbox, plans, secrets, team
from billing.models import (
    Approval,
    Connection,
    CustomerImport,
    Delivery,
    DeliveryAttempt,
    Invitation,
    LedgerEntry,
    Membership,
    Merchant,
    Organization,
    Payment,
    PlanMove,
    Reconciliation,
    Refund,
    User,
    WebhookEndpoint,
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
        self._gateway(phone)
        self.event = events.record(
            merchant, "payment.succeeded", now=now, connection=self.connection
        )
        self.refund = self._refund(now)
        self.move = self._move(now)
        self.customer_import = self._import(now)
        self.endpoint, self.delivery, self.attempt = self._webhook()
        self.reconciliation = self._reconciliation()
        self.approval = self.ask(f"{word} asked kindly", by=f"{word} asker")
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
        # The merchant's own call: the figures of these books are the customer's own requests.
        self.call = gateway.call(merchant)
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

    def _refund(self, now: datetime) -> Refund:
        """A dollar that went back; no credit was bought with the payment, so none is taken."""
        row = Refund(
            merchant=self.merchant,
            payment=self.payment,
            connection=self.connection,
            status=Refund.Status.SUCCEEDED,
            amount=Money(1, "USD"),
            key=f"test:{self.word}",
            reason=f"{self.word} was kind",
            actor=f"{self.word} person",
            refund_id=f"re_{self.word}",
            receipt_number=f"{self.word[:2].upper()}-2",
            created_at=now,
            settled_at=now,
        )
        row.save()
        Payment.objects.filter(pk=self.payment.pk).update(refunded=1)
        self.payment.refresh_from_db()
        return row

    def ask(self, reason: str, *, by: str) -> Approval:
        """Credits that somebody who has left the team wanted to give; a second person decides."""
        wish = approvals.Wish(
            act=Approval.Act.GIVE, connection=self.connection, amount=Decimal(300), reason=reason
        )
        asker = factories.make_user(name=by)
        return approvals.ask(wish, by=asker, key=f"test:{asker.email}", at=timezone.now())

    def _move(self, now: datetime) -> PlanMove:
        """The plan's second version, and a move back from it that is over: nobody was on it."""
        terms = plans.of(self.plan)
        self.next_version = plans.new_version(self.plan, terms=terms, now=now, keep_offering=True)
        row = PlanMove(
            merchant=self.merchant,
            from_plan=self.next_version,
            to_plan=self.plan,
            when=PlanMove.When.NEXT_CYCLE,
            state=PlanMove.State.DONE,
            actor=f"{self.word} person",
            created_at=now,
            finished_at=now,
        )
        row.save()
        return row

    def _import(self, now: datetime) -> CustomerImport:
        """An import that is over: whoever it named was there already."""
        row = CustomerImport(
            merchant=self.merchant,
            key=self.word,
            filename=f"{self.word}.csv",
            count=1,
            left=1,
            state=CustomerImport.State.DONE,
            actor=f"{self.word} person",
            created_at=now,
            finished_at=now,
        )
        row.save()
        return row

    def _webhook(self) -> tuple[WebhookEndpoint, Delivery, DeliveryAttempt]:
        """An endpoint that answered 500 once."""
        now = timezone.now()
        endpoint = WebhookEndpoint(
            merchant=self.merchant,
            name=f"{self.word} hook",
            url=f"https://{self.word.lower()}.example/hooks",
            secret=secrets.seal("whsec_c2VjcmV0c2VjcmV0c2VjcmV0"),
            sequence=1,
            created_at=now,
        )
        endpoint.save()
        delivery = Delivery(
            merchant=self.merchant,
            endpoint=endpoint,
            event=self.event,
            sequence=1,
            body=f'{{"word": "{self.word}"}}',
            attempts=1,
            next_attempt_at=now,
            created_at=now,
        )
        delivery.save()
        attempt = DeliveryAttempt.objects.create(
            delivery=delivery, number=1, status=500, answer=f"{self.word} broke", duration_ms=12,
            at=now,
        )  # fmt: skip
        return endpoint, delivery, attempt

    def _reconciliation(self) -> Reconciliation:
        """A run that found one gap: a payment that the network does not have."""
        now = timezone.now()
        row = Reconciliation(
            merchant=self.merchant,
            state=Reconciliation.State.DONE,
            actor=f"{self.word} person",
            asked_at=now,
            started_at=now,
            finished_at=now,
            checks=[
                {
                    "name": "Each balance is the sum of its entries",
                    "sides": "Balances and ledger",
                    "first": "22.00", "second": "22.00", "off": 0, "count": 3,
                }
            ],
            gaps=[
                {
                    "kind": "not_paid", "ours": self.payment.public_id, "theirs": "pi_gap",
                    "our_amount": "25.00", "their_amount": None, "currency": "USD",
                    "payment": str(self.payment.pk), "refund": str(self.refund.pk),
                }
            ],
        )  # fmt: skip
        row.save()
        return row

    @property
    def public_ids(self) -> set[str]:
        """Every id of these books that a page could show."""
        rows: list[Any] = [
            self.plan, self.bundle, self.meter, self.key, self.connection, self.payment,
            self.message, self.provider_key, self.provider, self.price, self.token, self.call,
            self.message, self.refund, self.move, self.next_version, self.endpoint, self.delivery,
            self.customer_import,
            self.reconciliation, self.approval,
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
