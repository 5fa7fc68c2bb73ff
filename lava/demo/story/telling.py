"""The telling: sixty days of one business, played in order on its sandbox's clock.

Everything is done by the product's own verbs at its own instant: checkouts are completed with test
cards, usage is reported, renewals, retries and rollovers are the clock's, overage is collected as a
worker would. A telling that was cut off goes on where its clock stands: what was done is found
done, usage that is past by then is left out.
"""

from __future__ import annotations

import itertools
from collections import deque
from datetime import datetime, timedelta
from decimal import Decimal

from django.db import transaction
from django.utils import timezone

from billing import clock, credits, errors, ids, ledger, overage, subscriptions, sweep
from billing.models import Connection, CreditGrant, Merchant, Payment, Plan
from checkout import sessions
from checkout.models import CheckoutSession
from lava.demo.story import cast, rhythm, stage
from meters import prices, usage

# A scene of a customer's, a new price of the merchant's, or a request.
Happening = tuple[datetime, int, object, cast.Customer | None]
# Requests in one transaction, at most: what is told is on disk at its end.
BATCH = 200


class Telling:
    """One business's story: `tell` it to the present."""

    def __init__(self, of: stage.Stage, *, key: str) -> None:
        self.stage = of
        self.business = of.business
        self.merchant: Merchant = of.merchant
        self.key = key
        self.until = timezone.now()
        self.people: dict[str, Connection] = {}
        self.plans: dict[str, Plan] = {}
        # Who ran out of credit on a plan that stops: from then on their backend asks first.
        self.stopped: set[str] = set()
        # Who is on no plan any more.
        self.gone: set[str] = set()
        self.due: datetime | None = None

    def tell(self) -> None:
        """Play all that is not played yet, then bring the clock to the present."""
        queue = deque(sorted(self._happenings(), key=lambda what: what[:2]))
        self._look_ahead()
        while queue:
            if isinstance(queue[0][2], rhythm.Use) and not self._is_due(queue[0][0]):
                self._use(queue)
            elif isinstance(queue[0][2], rhythm.Use):
                self._pass_to(queue[0][0])
            else:
                at, _, scene, customer = queue.popleft()
                self._play(scene, customer, at=at)
        clock.catch_up(self.merchant)

    def _happenings(self) -> list[Happening]:
        """Everything up to the present, each with a number that settles ties."""
        business, began = self.business, self.stage.began
        numbers = itertools.count()
        reached = self.merchant.now()
        found: list[Happening] = []
        for price in business.prices:
            at = rhythm.moment(business, began, price.day, 6.5)
            found.append((at, next(numbers), price, None))
        for person in business.customers:
            joins = max(
                rhythm.moment(business, began, person.joins, _hour(person)),
                began + timedelta(minutes=5),
            )
            join = cast.Scene(person.joins, 0, "join", person.plan)
            found.append((joins, next(numbers), join, person))
            for scene in person.scenes:
                at = rhythm.moment(business, began, scene.day, scene.hour)
                found.append((at, next(numbers), scene, person))
            found += [
                (use.at, next(numbers), use, person)
                for use in rhythm.uses(business, began, person)
                if use.at > max(joins, reached)
            ]
        return [what for what in found if what[0] <= self.until]

    # --- Time ------------------------------------------------------------------------------------

    def _is_due(self, at: datetime) -> bool:
        return self.due is not None and self.due <= at

    def _pass_to(self, at: datetime) -> datetime:
        """Let the sandbox's clock run to `at`; what falls due on the way runs. Gives its time."""
        if at > self.merchant.now():
            clock.advance(self.merchant, to=at)
        self._look_ahead()
        return max(at, self.merchant.now())

    def _look_ahead(self) -> None:
        self.due = sweep.next_instant(self.merchant, after=self.merchant.now(), until=self.until)

    # --- Usage -----------------------------------------------------------------------------------

    def _use(self, queue: deque[Happening]) -> None:
        """Report requests in one transaction, until something else happens or a card is due."""
        owing: tuple[Connection, datetime] | None = None
        with transaction.atomic():
            for _ in range(BATCH):
                if (
                    not queue
                    or not isinstance(queue[0][2], rhythm.Use)
                    or self._is_due(queue[0][0])
                ):
                    break
                at, _, use, _ = queue.popleft()
                assert isinstance(use, rhythm.Use)
                if self._report(use, at=at):
                    owing = self.people[use.customer.phone], at
                    break
        if owing is not None:
            connection, at = owing
            overage.collect(connection.pk, now=self._pass_to(at))
            self._look_ahead()

    def _report(self, use: rhythm.Use, *, at: datetime) -> bool:
        """Report one request; gives whether its customer now owes what their plan lets grow."""
        phone = use.customer.phone
        if phone in self.gone:
            return False
        connection, plan = self.people[phone], self.plans[phone]
        told = usage.Report(
            request_id=use.request_id,
            connection=connection.pk,
            meter_slug=use.meter.slug,
            meter=None,
            usage=use.usage,
            model=use.meter.model,
            metadata=use.metadata,
            timestamp=None,
            enforce=phone in self.stopped,
        )
        try:
            charged = usage.report(
                self.key,
                sandbox=True,
                told=told,
                now=at - self.merchant.clock_offset,
                # Requests are listed in the order of their keys, so these are of their own time.
                row_id=ids.new(sandbox=True, at=at),
            )
        except errors.PaymentRequired:
            return False
        except errors.Forbidden:
            self.gone.add(phone)
            return False
        if plan.when_depleted == Plan.WhenDepleted.BLOCK:
            if charged.request.total_remaining <= 0:
                self.stopped.add(phone)
            return False
        return bool(charged.request.debt_after >= plan.overage_threshold)

    # --- Scenes ----------------------------------------------------------------------------------

    def _play(self, scene: object, customer: cast.Customer | None, *, at: datetime) -> None:
        now = self._pass_to(at)
        if isinstance(scene, cast.NewPrice):
            self._publish(scene, now=now)
        elif isinstance(scene, cast.Scene) and customer is not None:
            acts = {
                "join": self._join,
                "bundle": self._buy,
                "card": self._change_card,
                "cancel": self._cancel,
                "credits": self._give,
            }
            acts[scene.act](customer, scene.what, now=now)
        self._look_ahead()

    def _publish(self, price: cast.NewPrice, *, now: datetime) -> None:
        meter = next(meter for meter in self.business.meters if meter.slug == price.meter)
        prices.publish(
            self.stage.meters[price.meter],
            terms=stage.price_of(meter, price.tiers),
            actor=cast.OWNER_EMAIL,
            now=now,
        )

    def _join(self, customer: cast.Customer, plan: str, *, now: datetime) -> None:
        found = (
            Connection.objects.of(self.merchant)
            .visible()
            .filter(customer__phone=customer.phone)
            .first()
        )
        if found is None:
            done = self._check_out(
                customer, card=cast.GOOD, now=now, mode="subscription", plan=plan
            )
            found = done.connection
        self.people[customer.phone] = found
        self.plans[customer.phone] = self.stage.plans[plan]

    def _buy(self, customer: cast.Customer, name: str, *, now: datetime) -> None:
        connection = self.people[customer.phone]
        paid = Payment.objects.filter(
            connection=connection, purpose=Payment.Purpose.BUNDLE, status=Payment.Status.SUCCEEDED
        )
        if not paid.filter(bundle=self.stage.bundles[name]).exists():
            self._check_out(customer, card=cast.GOOD, now=now, mode="credit_bundle", bundle=name)

    def _change_card(self, customer: cast.Customer, number: str, *, now: datetime) -> None:
        connection = self.people[customer.phone]
        card = connection.card
        if card is None or card.last4 != number[-4:]:
            self._check_out(customer, card=number, now=now, mode="onboarding")

    def _cancel(self, customer: cast.Customer, _: str, *, now: datetime) -> None:
        current = self.people[customer.phone].subscription
        if current is not None:
            subscriptions.cancel(current, now=now)

    def _give(self, customer: cast.Customer, what: str, *, now: datetime) -> None:
        amount, _, reason = what.partition("|")
        with transaction.atomic():
            connection = ledger.lock(self.people[customer.phone].pk)
            if not CreditGrant.objects.filter(connection=connection, reason=reason).exists():
                credits.give(
                    connection,
                    amount=Decimal(amount),
                    reason=reason,
                    actor=cast.OWNER_EMAIL,
                    now=now,
                )

    def _check_out(
        self,
        customer: cast.Customer,
        *,
        card: str,
        now: datetime,
        mode: str,
        plan: str | None = None,
        bundle: str | None = None,
    ) -> CheckoutSession:
        """A whole checkout, as an integrator's test completes one."""
        session = sessions.create(
            self.merchant,
            mode=mode,
            origin_url=self.business.origin,
            return_url=f"{self.business.origin}/billing",
            connection=self.people.get(customer.phone),
            plan=self.stage.plans[plan] if plan else None,
            bundle=self.stage.bundles[bundle] if bundle else None,
            now=now,
        )
        return sessions.complete_with_test_card(
            session,
            phone=customer.phone,
            card=card,
            name=customer.name,
            email=customer.email,
            now=now,
        )


def _hour(customer: cast.Customer) -> float:
    """When in the day a customer joins: some hour between 9 and 17, by their number."""
    return 9 + int(customer.phone[-2:]) % 32 / 4 + 0.07
