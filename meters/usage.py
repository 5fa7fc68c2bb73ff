"""Usage: report a request; it is identified, priced, drawn and stored in one trip.

`report` is called by the API. The trip is `meters_charge` in `meters/sql/charge.sql`, which finds
the key's merchant, locks the connection, prices under the lock and calls billing's draw; so there
is nothing to cache and nothing to go stale: a revoked key and an edited price count from the next
request on.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson
from django.db import IntegrityError, connection
from django.utils import timezone

from billing import errors, ids, keys, tasks
from meters import costs, pricing
from meters.gateway import readers
from meters.models import ModelPrice, RequestCost, UsageRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One request as a client reports it; see `POST /v1/requests` in api.md."""

    request_id: str
    connection: UUID
    meter_slug: str
    meter: UUID | None
    usage: pricing.Usage
    model: str
    metadata: dict[str, str]
    timestamp: datetime | None
    # The work has not run yet: refuse it when credits do not cover it.
    enforce: bool

    def fingerprint(self) -> bytes:
        """SHA-256 of what the report means; the same id with another one is refused."""
        usage = self.usage
        meaning = [
            str(self.connection),
            self.meter_slug,
            usage.input_tokens,
            usage.output_tokens,
            usage.input_characters,
            usage.output_characters,
            f"{usage.input_seconds:f}",
            f"{usage.output_seconds:f}",
            None if usage.provider_cost is None else f"{usage.provider_cost:f}",
            self.model,
            self.metadata,
            self.timestamp.isoformat() if self.timestamp else None,
        ]
        return hashlib.sha256(orjson.dumps(meaning, option=orjson.OPT_SORT_KEYS)).digest()


@dataclass(frozen=True, slots=True)
class PriceTerms:
    """What of a price version the answer repeats."""

    rate_type: str
    unit: str
    token_basis: str
    base_cost_payer: str
    tier_starts: list[Decimal]
    tier_rates: list[Decimal]


@dataclass(frozen=True, slots=True)
class Charged:
    """A stored request with the terms it met; `replayed`: it was charged before, not now."""

    request: UsageRequest
    price: PriceTerms
    currency: str
    replayed: bool


_COLUMNS = [field.attname for field in UsageRequest._meta.concrete_fields]
_PRICE = ("rate_type", "unit", "token_basis", "base_cost_payer", "tier_starts", "tier_rates")
_CHARGE = (
    "SELECT c.outcome, c.detail, c.collect, c.currency, "  # noqa: S608
    + ", ".join(f"(c.price).{name}" for name in _PRICE)
    + ", "
    + ", ".join(f'(c.request)."{name}"' for name in _COLUMNS)
    + " FROM meters_charge("
    "%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) c"
)
_HEAD = 4 + len(_PRICE)


def report(key: str, *, sandbox: bool, told: Report) -> Charged:
    """Charge one request, exactly once for its id, for ever.

    `key` is the caller's secret key; its checksum has been checked.

    Raises:
        billing.errors.LavaError: as `_REFUSALS` says; nothing was written.
    """
    usage = told.usage
    params = (
        ids.new(sandbox=sandbox),
        ids.secret_hash(key),
        timezone.now(),
        told.connection,
        told.meter_slug,
        told.meter,
        told.request_id,
        told.fingerprint(),
        told.timestamp,
        told.model,
        usage.input_tokens,
        usage.output_tokens,
        usage.input_characters,
        usage.output_characters,
        usage.input_seconds,
        usage.output_seconds,
        usage.provider_cost,
        json.dumps(told.metadata),
        told.enforce,
    )
    try:
        row = _run(params)
    except IntegrityError:
        # The same id was charged to another connection in this very instant: look again.
        row = _run(params)
    cost: costs.Cost | None = None
    if row[0] == "cost_unknown" and told.model:
        # A share of the provider's cost, and the cost not said: by the model's price, if known.
        cost = _cost(key, told)
        if cost is not None:
            row = _run((*params[:16], cost.amount, *params[17:]))
    outcome, detail, collect, currency = row[:4]
    if outcome not in ("charged", "replayed"):
        raise _refusal(outcome, detail or "", told)
    request = UsageRequest(**dict(zip(_COLUMNS, row[_HEAD:], strict=True)))
    request.slices = json.loads(request.slices)
    request.draws = json.loads(request.draws)
    request.metadata = json.loads(request.metadata)
    if cost is not None and outcome == "charged":
        RequestCost.objects.bulk_create(
            [
                RequestCost(
                    id=request.pk,
                    merchant_id=request.merchant_id,
                    model=cost.model,
                    source=cost.source,
                    amount=cost.amount,
                    rates=cost.rates,
                )
            ],
            ignore_conflicts=True,
        )
    if collect:
        tasks.hint_overage(request.connection_id)
    return Charged(
        request=request,
        price=PriceTerms(*row[4:_HEAD]),
        currency=currency,
        replayed=outcome == "replayed",
    )


def _cost(key: str, told: Report) -> costs.Cost | None:
    """What the told model and counts cost the merchant: by their own price, or by the library's."""
    merchant = keys.find(key).merchant
    used = told.usage
    return costs.find(
        "",
        (told.model,),
        readers.Usage(
            input=used.input_tokens,
            output=used.output_tokens,
            input_seconds=used.input_seconds + used.output_seconds,
        ),
        prices=costs.ANY,
        overrides=[costs.override(row) for row in ModelPrice.objects.of(merchant).values()],
        currency=merchant.currency,
        now=merchant.now(),
        characters=used.input_characters + used.output_characters,
    )


def _run(params: tuple[Any, ...]) -> tuple[Any, ...]:
    with connection.cursor() as cursor:
        cursor.execute(_CHARGE, params)
        row: tuple[Any, ...] = cursor.fetchone()
    return row


def _refusal(outcome: str, detail: str, told: Report) -> errors.LavaError:
    """The error for an outcome of `meters_charge`; nothing was written."""
    if outcome == "unauthenticated":
        return errors.Unauthenticated("The key is not valid.", code="invalid_key")
    if outcome == "connection_not_found":
        return errors.NotFound("No such connection.", code=outcome, param="connection_id")
    if outcome == "meter_not_found":
        return errors.NotFound(
            f"There is no meter {told.meter_slug!r}.", code=outcome, param="meter_slug"
        )
    if outcome == "request_id_reused":
        return errors.Conflict(
            "This request_id was used with another body. Send a new id.",
            code=outcome,
            param="request_id",
        )
    if outcome == "connection_disabled":
        return errors.Forbidden("This connection is disabled.", code=outcome)
    if outcome == "meter_not_on_plan":
        return errors.Forbidden(
            f"The meter {detail!r} is not active for this connection: attach it to the "
            "connection's plan, or subscribe the customer to a plan that has it.",
            code=outcome,
            param="meter_slug",
        )
    if outcome == "insufficient_credits":
        return errors.PaymentRequired(
            f"The credits left ({Decimal(detail):f}) do not cover this request.",
            available=detail,
        )
    return errors.Refused(_SENTENCES[outcome][0], code=outcome, param=_SENTENCES[outcome][1])


_SENTENCES = {
    "timestamp_in_future": ("The timestamp is over 5 minutes in the future.", "timestamp"),
    "timestamp_too_old": ("The timestamp is older than 30 days.", "timestamp"),
    "cost_unknown": (
        "This meter takes a share of the provider's cost: send `provider_cost`, or a `model` whose "
        "price is known.",
        "provider_cost",
    ),
    "amount_too_large": ("The fee would pass 12 digits; check the counts.", None),
}
