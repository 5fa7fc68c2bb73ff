"""Where the product is played beside the model: a sandbox whose clock stands still.

`open_network` freezes real time, puts the in-process card network behind `billing.stripe` and keeps
hints from the broker. A `World` is a merchant's sandbox; its customers are `lava.demo.sim.twin`'s.
Nothing is left behind: it runs inside a transaction that is rolled back, or, for long lives, in a
database of its own (`apart`), where old versions of the rows can be cleared away on the way.
"""

from __future__ import annotations

import os
import secrets
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from operator import itemgetter
from typing import Any
from unittest import mock

from django.db import connection as database
from django.db import transaction
from django.utils import timezone

from billing import (
    clock,
    keys,
    merchants,
    plans,
    sweep,
)  # fmt: skip
from billing.models import (
    CreditBundle,
    Merchant,
    Plan,
    User,
)
from lava.demo.sim.network import Network, install
from lava.demo.sim.terms import UNIT, Terms
from meters import prices, pricing
from meters.models import Meter


class Disagreement(AssertionError):
    """The product and the model say different things."""


class World:
    """A merchant's sandbox at an instant, and the card network behind it."""

    def __init__(
        self,
        network: Network,
        *,
        currency: str = "USD",
        zone: str = "UTC",
        look: timedelta = timedelta(0),
    ) -> None:
        self.network = network
        # How often workers look for what is due; 0: at the instant at which it is.
        self.look = look
        owner = User.objects.create_user(
            f"sim-{secrets.token_hex(8)}@merchant.example", secrets.token_hex(16)
        )
        self.merchant: Merchant = merchants.create(
            name="Simulated", owner=owner, currency=currency, time_zone=zone
        ).sandbox
        self.key = keys.make(self.merchant, name="simulator")[1]
        self.offers: dict[Terms, tuple[Plan, CreditBundle, Meter]] = {}
        # Up to where everything due was done, and the looks that came after instants at which
        # something fell due: from where, and when.
        self._done = self.now
        self._looks: list[tuple[datetime, datetime]] = []

    @property
    def now(self) -> datetime:
        return self.merchant.now()

    def tick(self, by: timedelta = timedelta(seconds=1)) -> datetime:
        """Move the clock a little and run nothing: no two things happen at one instant."""
        self.merchant.clock_offset += by
        Merchant.objects.filter(pk=self.merchant.pk).update(clock_offset=self.merchant.clock_offset)
        return self.now

    def move(self, to: datetime) -> None:
        """Let time pass in the product; what falls due runs. (The twins move on their own.)"""
        self._looked(self.now)
        if not self.look:
            clock.advance(self.merchant, to=to)
            self._done = to
            return
        sweep.run(self.merchant, now=self.now)
        while (
            due := sweep.next_instant(self.merchant, after=self._done, until=to)
        ) is not None and due + self.look <= to:
            clock.advance(self.merchant, to=due + self.look, run=False)
            self._looked(self.now)
            sweep.run(self.merchant, now=self.now)
        if to > self.now:
            clock.advance(self.merchant, to=to, run=False)

    def _looked(self, at: datetime) -> None:
        self._looks.append((self._done, at))
        self._done = at

    def seen(self, instant: datetime) -> datetime | None:
        """When the product did what fell due at an instant: then, or at the next look, when nobody
        was looking; None: nobody has looked since."""
        if instant > self._done:
            return None
        place = bisect_left(self._looks, instant, key=itemgetter(0)) - 1
        return max(instant, self._looks[place][1]) if place >= 0 else instant

    def offer(self, terms: Terms) -> tuple[Plan, CreditBundle, Meter]:
        """The plan, bundle and meter of some terms, made once."""
        if terms not in self.offers:
            self.offers[terms] = self._make(terms, len(self.offers) + 1)
        return self.offers[terms]

    def _make(self, terms: Terms, number: int) -> tuple[Plan, CreditBundle, Meter]:
        major = Decimal(terms.minor) / UNIT
        plan = plans.create(
            self.merchant,
            terms=plans.Terms(
                name=f"Plan {number}",
                price=terms.price * major,
                included_credit=money(terms.included),
                billing_interval=terms.interval,
                rollover_type="full" if terms.keeps else "none",
                bundle_rollover_type="full" if terms.keeps_bundles else "none",
                rollover_cap=None if terms.cap is None else money(terms.cap),
                when_depleted="overage" if terms.overage else "block",
                overage_threshold=money(terms.threshold),
                overage_cap=None if terms.overage_cap is None else money(terms.overage_cap),
            ),
            now=self.now,
        )
        bundle = plans.put_bundle(
            plan,
            name="Pack",
            cost=terms.cost * major,
            credit=money(terms.bundle),
            now=self.now,
        )
        meter = prices.create_meter(
            self.merchant,
            slug=f"meter-{number}",
            name=f"Meter {number}",
            terms=prices.Terms(
                tiers=[
                    pricing.Tier(start=Decimal(start), rate=money(rate))
                    for start, rate in terms.tiers
                ],
                tier_window="cycle" if terms.by_cycle else "lifetime",
                tier_mode="volume" if terms.by_volume else "graduated",
            ),
            actor="simulator",
            now=self.now,
        )
        prices.attach(meter, plan)
        return plan, bundle, meter


def money(amount: int) -> Decimal:
    """The model's whole ten-billionths as the product's decimal."""
    return Decimal(amount).scaleb(-10)


def ticks(amount: Decimal | str) -> int:
    """The product's decimal as whole ten-billionths; more digits than that are a fault."""
    scaled = Decimal(amount).scaleb(10)
    if scaled != scaled.to_integral_value():
        raise Disagreement(f"{amount} has more than ten decimals")
    return int(scaled)


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


@contextmanager
def apart() -> Iterator[None]:
    """A new database in place of the configured one, dropped when the block ends.

    The role must be allowed to make databases, as for the tests.
    """
    name = database.settings_dict["NAME"]
    database.settings_dict["TEST"]["NAME"] = f"{name}_{os.getpid()}"
    database.creation.create_test_db(verbosity=0, autoclobber=True, serialize=False)
    try:
        with database.cursor() as cursor:
            # It need not outlive a crash of the machine.
            cursor.execute("SET synchronous_commit = off")
        yield
    finally:
        database.creation.destroy_test_db(name, verbosity=0)


@contextmanager
def open_network(*, real: datetime | None = None, kept: bool = False) -> Iterator[Network]:
    """A card network for worlds, in a transaction that is rolled back when the block ends; `kept`:
    in none, for `apart`. `real` is what the frozen clock shows; not behind the true one, or the
    audit takes renewals for forgotten."""
    real = real or timezone.now().replace(microsecond=0)
    network = Network()
    with (
        mock.patch("django.utils.timezone.now", lambda: real),
        # Keys are made at the true time; here everything is made at the frozen one.
        mock.patch("billing.ids.made_at", lambda key: real),
        mock.patch("billing.hints.wake"),
        install(network),
        nullcontext() if kept else transaction.atomic(),
    ):
        try:
            yield network
        finally:
            if not kept:
                transaction.set_rollback(True)


@contextmanager
def open_world(*, real: datetime | None = None, **terms: Any) -> Iterator[World]:
    """A world alone, of which nothing is left."""
    with open_network(real=real) as network:
        yield World(network, **terms)
