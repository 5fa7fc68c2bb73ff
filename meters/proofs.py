"""Proofs: what stands behind the usage lines of a ledger: request, price version, slices, draws.

Reads only. Joined with `billing.statements` by `manage.py explain` and the API's `balance/explain`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

from billing.models import Connection, CreditGrant
from meters.models import MeterPrice, UsageRequest

# Ids in one question to the database; a long ledger asks several times.
_CHUNK = 5000


@dataclass(frozen=True, slots=True)
class Slice:
    """The part of a request in one tier (`tier` from 1), at the rate of its price version."""

    tier: int
    quantity: Decimal
    rate: Decimal
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Draw:
    """What one grant paid of a request; `grant` None: what no credit covered, and was owed."""

    grant: CreditGrant | None
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Proof:
    """A charged request; its slices add up to the fee, its draws to what was charged."""

    request: UsageRequest
    price: MeterPrice
    slices: tuple[Slice, ...]
    draws: tuple[Draw, ...]

    @property
    def provider_cost(self) -> Decimal:
        """The provider's cost where the customer bears it, charged beside the fee; else 0."""
        cost: Decimal = self.request.charged - self.request.fee
        return cost


def of(connection: Connection, requests: Collection[UUID]) -> dict[UUID, Proof]:
    """The proofs of a connection's requests, by their keys; one that is not its own is left out."""
    keys = list(requests)
    rows: list[UsageRequest] = []
    for start in range(0, len(keys), _CHUNK):
        rows += UsageRequest.objects.filter(
            merchant_id=connection.merchant_id,
            connection_id=connection.pk,
            pk__in=keys[start : start + _CHUNK],
        ).select_related("meter", "price")
    drawn = {UUID(grant) for row in rows for grant, _ in row.draws if grant is not None}
    grants = (
        CreditGrant.objects.filter(connection_id=connection.pk)
        .select_related("bundle")
        .in_bulk(drawn)
    )
    return {row.pk: _proof(row, grants) for row in rows}


def _proof(row: UsageRequest, grants: dict[UUID, CreditGrant]) -> Proof:
    return Proof(
        request=row,
        price=row.price,
        slices=tuple(
            Slice(
                tier=int(place) + 1,
                quantity=Decimal(quantity),
                rate=row.price.tier_rates[int(place)],
                amount=Decimal(amount),
            )
            for place, quantity, amount in row.slices
        ),
        draws=tuple(
            Draw(grant=None if grant is None else grants[UUID(grant)], amount=Decimal(amount))
            for grant, amount in row.draws
        ),
    )
