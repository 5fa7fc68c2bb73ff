"""Usage: report a request, so that it is identified, priced, drawn and stored in one trip; void it.

`report` and `void` are called by the API, `void` by the console too. The trip is `meters_charge` in
`meters/sql/charge.sql`, which finds the key's merchant, locks the connection, prices under the lock
and calls billing's draw; so there is nothing to cache and nothing to go stale: a revoked key and an
edited price count from the next request on.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from django.db import IntegrityError, transaction
from django.db.models import F
from django.utils import timezone

from billing import credits, errors, ids, keys, ledger, prepared, tasks
from meters import costs, pricing, turns, volume
from meters.gateway import readers
from meters.models import (
    MeterPosition,
    MeterPrice,
    ModelPrice,
    RequestCost,
    UsageRequest,
    Void,
)


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
    # What was set aside for it, and ends with its charge.
    hold: UUID | None = None

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
        if usage.cache_read_tokens or usage.cache_write_tokens:
            meaning += [usage.cache_read_tokens, usage.cache_write_tokens]
        if self.hold is not None:
            meaning.append(str(self.hold))
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
    tier_kinds: list[str]


class Stored(NamedTuple):
    """What of a stored request the answer says; the names are `UsageRequest`'s."""

    pk: UUID
    merchant_id: UUID
    connection_id: UUID
    meter_id: UUID
    request_id: str
    status: str
    model: str
    input_tokens: int
    output_tokens: int
    input_characters: int
    output_characters: int
    input_seconds: Decimal
    output_seconds: Decimal
    cache_read_tokens: int | None
    cache_write_tokens: int | None
    fee: Decimal
    slices: list[Any]
    draws: list[Any]
    provider_cost: Decimal | None
    charged: Decimal
    cycle_remaining: Decimal
    bundle_remaining: Decimal
    debt_after: Decimal
    late: bool
    metadata: dict[str, str]
    timestamp: datetime
    created_at: datetime

    @property
    def total_remaining(self) -> Decimal:
        return self.cycle_remaining + self.bundle_remaining - self.debt_after


@dataclass(frozen=True, slots=True)
class Charged:
    """A stored request with the terms it met; `replayed`: it was charged before, not now."""

    request: Stored
    price: PriceTerms
    currency: str
    replayed: bool


_PRICE = tuple(field.name for field in dataclasses.fields(PriceTerms))
_CAST = dict.fromkeys(("slices", "draws", "metadata"), "::text")
_JSON = [len(_PRICE) + Stored._fields.index(name) for name in _CAST]
_HEAD = 5
_ARGUMENTS = 21
# Where among them the provider's cost stands.
_COST = 16
# What of a charge `c` is read back; `charged` reads it.
SELECTED = ", ".join(
    [
        *(f"(c.price).{name}" for name in _PRICE),
        "(c.request).id",
        *(f'(c.request)."{name}"{_CAST.get(name, "")}' for name in Stored._fields[1:]),
    ]
)


def statement(*arguments: str) -> str:
    """The charge as SQL, over SQL expressions for the arguments of `meters_charge`.

    The bench runs it with expressions of its own; everything else is this module's.
    """
    assert len(arguments) >= _ARGUMENTS
    return (
        f"SELECT c.outcome, c.detail, c.collect, c.fell, c.currency, {SELECTED} "  # noqa: S608
        f"FROM meters_charge({', '.join(arguments)}) c"
    )


_PLACES = [f"${number}" for number in range(1, _ARGUMENTS + 2)]
_CHARGE = prepared.Statement("lava_charge", statement(*_PLACES[:-1]))
_TURNS = turns.Turns(_CHARGE)
_SETTLE = prepared.Statement("lava_settle", statement(*_PLACES[:-1], f"p_hold => {_PLACES[-1]}"))


def report(
    key: str,
    *,
    sandbox: bool,
    told: Report,
    now: datetime | None = None,
    row_id: UUID | None = None,
) -> Charged:
    """Charge one request, exactly once for its id, for ever.

    `key` is the caller's secret key; its checksum has been checked. `now` is the real instant the
    merchant's clock adds its offset to, `row_id` the key of a new row. Both are for whoever tells
    of the past, who also collects the overage at its time: no worker is woken.

    Raises:
        billing.errors.LavaError: as `_REFUSALS` says; nothing was written.
    """
    usage = told.usage
    words = prepared.params(
        row_id or ids.new(sandbox=sandbox),
        ids.secret_hash(key),
        now or timezone.now(),
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
        orjson.dumps(told.metadata).decode(),
        told.enforce,
        usage.cache_read_tokens,
        usage.cache_write_tokens,
    )
    if told.hold is not None:
        words.append(prepared.text(told.hold))
    try:
        row = _row(told, words)
    except IntegrityError:
        # The same id was charged to another connection in this very instant: look again.
        row = _row(told, words)
    cost: costs.Cost | None = None
    if row[0] == "cost_unknown" and told.model:
        # A share of the provider's cost, and the cost not said: by the model's price, if known.
        cost = _cost(key, told)
        if cost is not None:
            words[_COST] = prepared.text(cost.amount)
            row = _row(told, words)
    outcome, detail, collect, fell, currency = row[:5]
    if outcome not in ("charged", "replayed"):
        if fell and now is None:
            tasks.hint_fall(told.connection, refused=True)
        raise refusal(outcome, detail or "", told)
    found = charged(row[_HEAD:], currency=currency, replayed=outcome == "replayed")
    if cost is not None and not found.replayed:
        _note(found.request, cost)
    if collect and now is None:
        tasks.hint_overage(found.request.connection_id)
    if fell and now is None:
        tasks.hint_fall(found.request.connection_id)
    return found


def _row(told: Report, words: list[bytes | None]) -> tuple[Any, ...]:
    if told.hold is not None:
        return _SETTLE.row(words)
    return _TURNS.row(told.connection, told.request_id, words)


def charged(row: Sequence[Any], *, currency: str, replayed: bool) -> Charged:
    """A charge out of the columns of `SELECTED`."""
    found = list(row)
    for place in _JSON:
        found[place] = orjson.loads(found[place])
    return Charged(
        request=Stored(*found[len(_PRICE) :]),
        price=PriceTerms(*found[: len(_PRICE)]),
        currency=currency,
        replayed=replayed,
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
            cache_read=used.cache_read_tokens,
            cache_write=used.cache_write_tokens,
            input_seconds=used.input_seconds + used.output_seconds,
        ),
        prices=costs.ANY,
        overrides=[costs.override(row) for row in ModelPrice.objects.of(merchant).values()],
        currency=merchant.currency,
        now=merchant.now(),
        characters=used.input_characters + used.output_characters,
    )


def _note(request: Stored, cost: costs.Cost) -> None:
    """Keep where a request's cost came from."""
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


@transaction.atomic
def void(request: UsageRequest | Stored, *, reason: str, actor: str, now: datetime) -> Void:
    """Take a request back: its credits return to the grants they came from, and it counts no more.

    Safe to call twice: the second gives what the first did. The meter's count steps back by what
    the request counted, so that the next request begins there; requests in between keep the price
    they were charged, and are not priced anew.

    Raises:
        billing.errors.Invalid: no reason, or no name of who takes it back.
        billing.errors.Conflict: it was not charged (`request_not_charged`): running, or failed; or
            part of what its meter charged was given back by the volume of its cycle
            (`cycle_settled`).
    """
    reason, actor = reason.strip(), actor.strip()
    for text, name in ((reason, "reason"), (actor, "actor")):
        if not 1 <= len(text) <= 255:
            raise errors.Invalid("Write 1 to 255 characters.", param=name)
    customer = ledger.lock(request.connection_id)
    made: Void | None = Void.objects.filter(request_id=request.pk).first()
    if made is not None:
        return made
    row = UsageRequest.objects.select_related("price").get(pk=request.pk)
    if row.status != UsageRequest.Status.COMPLETED:
        raise errors.Conflict("This request was not charged.", code="request_not_charged")
    if volume.is_settled(
        subscription_id=row.subscription_id, cycle_index=row.cycle_index, meter_id=row.meter_id
    ):
        raise errors.Conflict(
            "Its cycle was settled by volume, and part of it given back: give credits by hand.",
            code="cycle_settled",
        )
    current = customer.subscription
    credits.unspend(
        customer,
        request_id=row.pk,
        in_cycle=current is not None
        and (current.pk, current.cycle_index) == (row.subscription_id, row.cycle_index),
        reason=reason,
        actor=actor,
        now=now,
    )
    left = credits.balance(customer, now=now)
    made = Void(
        merchant=customer.merchant,
        request=row,
        reason=reason,
        actor=actor,
        position_before=_step_back(row),
        cycle_remaining=left.cycle,
        bundle_remaining=left.bundle,
        debt_after=left.debt,
        created_at=now,
    )
    made.save()
    UsageRequest.objects.filter(pk=row.pk).update(status=UsageRequest.Status.VOIDED)
    return made


def _step_back(row: UsageRequest) -> Decimal:
    """Take what a request counted out of the meter's count; gives where that stood before."""
    window = row.price.tier_window == MeterPrice.TierWindow.CYCLE
    place = MeterPosition.objects.filter(
        connection_id=row.connection_id,
        meter_id=row.meter_id,
        scope=row.subscription_id if window else row.connection_id,
        window=row.cycle_index if window else -1,
    )
    before: Decimal = place.get().quantity
    place.update(quantity=F("quantity") - row.quantity)
    return before


def refusal(outcome: str, detail: str, told: Report) -> errors.LavaError:
    """The error for an outcome of `meters_charge`; nothing was written."""
    if outcome == "unauthenticated":
        return errors.invalid_key()
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
    if outcome == "hold_not_found":
        return errors.NotFound("There is no such hold of this connection.", code=outcome)
    if outcome in ("hold_settled", "hold_released"):
        return errors.Conflict(f"This hold was {outcome.removeprefix('hold_')}.", code=outcome)
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
