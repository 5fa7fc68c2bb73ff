"""A reported request on the wire: read strictly, in either vocabulary, and said again when stored.

Shared by the endpoints of requests (`meters.api`) and of holds (`meters.api_holds`).
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import UUID

from billing import authentication, errors, ids, keys, money
from billing.api import fields, vocabulary
from meters import pricing, usage
from meters.api_meters import number
from meters.models import UsageRequest, Void

ZERO = Decimal(0)
NOTHING = money.wire(ZERO)


def key_of(authorization: str) -> str:
    """The secret key that was sent, its checksum checked."""
    key = authentication.bearer(authorization)
    if not ids.check_secret_key(key):
        keys.find(key)
    return key


def report(body: dict[str, Any]) -> usage.Report:
    """Read and check the body of a reported request, in either vocabulary."""
    if "customer_id" in body:
        body = vocabulary.read(body)
    connection = fields.required_text(body, "connection_id", most=64)
    slug = fields.required_text(body, "meter_slug", most=64)
    stamp = body.get("timestamp")
    used = _usage(body)
    # Cached tokens are part of the input; more of them is refused here, by name.
    pricing.kinds(used)
    return usage.Report(
        request_id=fields.required_text(body, "request_id"),
        connection=connection_key(connection),
        meter_slug=slug,
        meter=ids.parse("prd", slug) if slug.startswith("prd_") else None,
        usage=used,
        model=fields.text(body, "model", most=120) or "",
        metadata=fields.metadata(body),
        timestamp=None if stamp is None else fields.moment(stamp, "timestamp"),
        enforce=fields.flag(body, "enforce"),
    )


def _usage(body: dict[str, Any]) -> pricing.Usage:
    return pricing.Usage(
        input_tokens=fields.count(body, "input_tokens"),
        output_tokens=fields.count(body, "output_tokens"),
        input_characters=fields.count(body, "input_characters"),
        output_characters=fields.count(body, "output_characters"),
        input_seconds=fields.seconds(body, "input_seconds"),
        output_seconds=fields.seconds(body, "output_seconds"),
        provider_cost=fields.amount(body, "provider_cost"),
        cache_read_tokens=fields.count(body, "cache_read_tokens"),
        cache_write_tokens=fields.count(body, "cache_write_tokens"),
    )


def connection_key(text: str) -> UUID:
    try:
        return ids.parse("con", text)
    except errors.NotFound as error:
        raise errors.NotFound(
            "No such connection.", code="connection_not_found", param="connection_id"
        ) from error


def present_request(
    row: UsageRequest | usage.Stored, price: Any, *, connection_id: UUID
) -> dict[str, Any]:
    """A request on the wire, as the official client declares it, with its balance."""
    seconds = row.input_seconds + row.output_seconds
    cost = row.provider_cost or ZERO
    payer = price.base_cost_payer
    scope = ids.public("con", connection_id)
    breakdown = [_slice(price, *part) for part in row.slices]
    fee = money.wire(row.fee)
    wire_cost = money.wire(cost) if cost else NOTHING
    return {
        "request_id": row.request_id,
        "status": row.status,
        **vocabulary.ids("connection_id", scope),
        "meter_id": ids.public("prd", row.meter_id),
        "provider": "",
        "provider_key_type": "unmanaged",
        "model": row.model,
        "endpoint": "",
        "model_usage": {
            "input_tokens": row.input_tokens,
            "output_tokens": row.output_tokens,
            "total_tokens": row.input_tokens + row.output_tokens,
            "cache_read_tokens": row.cache_read_tokens or 0,
            "cache_write_tokens": row.cache_write_tokens or 0,
            "input_characters": row.input_characters,
            "output_characters": row.output_characters,
            "total_characters": row.input_characters + row.output_characters,
            "input_seconds": number(row.input_seconds) if seconds else 0,
            "output_seconds": number(row.output_seconds) if seconds else 0,
            "total_seconds": number(seconds) if seconds else 0,
            "input_cost": NOTHING,
            "output_cost": NOTHING,
            "total_cost": wire_cost,
            "payer": payer,
        },
        "fee": {
            "amount": fee,
            "rate_type": price.rate_type,
            "token_basis": price.token_basis,
            "breakdown": breakdown,
        },
        # The newer client's words for the provider's cost and for the fee.
        "cost": wire_cost,
        "charge": {"amount": fee, "rate_type": price.rate_type, "breakdown": breakdown},
        "service_charge": {"amount": NOTHING, "payer": "merchant"},
        "total_request_cost": money.wire(cost + row.fee) if cost else fee,
        "total_wallet_cost": money.wire(row.charged),
        "total_merchant_cost": NOTHING if payer == "wallet" else wire_cost,
        "balance": {
            "total_remaining": money.wire(row.total_remaining),
            "cycle_remaining": money.wire(row.cycle_remaining),
            "bundle_remaining": money.wire(row.bundle_remaining),
            "overage_due": money.wire(row.debt_after) if row.debt_after else NOTHING,
        },
        "late": row.late,
        "metadata": row.metadata,
        "timestamp": fields.instant(row.timestamp),
        "created_at": fields.instant(row.created_at),
    }


def present_void(row: Void) -> dict[str, Any]:
    """A request taken back: why, when, and the balance after it."""
    left = row.cycle_remaining + row.bundle_remaining - row.debt_after
    return {
        "void_id": row.public_id,
        "reason": row.reason,
        "balance": {
            "total_remaining": money.wire(left),
            "cycle_remaining": money.wire(row.cycle_remaining),
            "bundle_remaining": money.wire(row.bundle_remaining),
            "overage_due": money.wire(row.debt_after),
        },
        "created_at": fields.instant(row.created_at),
    }


def _slice(price: Any, place: int, quantity: str, amount: str) -> dict[str, Any]:
    """One slice of a fee: the tier it fell in and what of the request fell there."""
    counted = Decimal(quantity)
    unit = price.unit
    kind = {"kind": price.tier_kinds[place]} if price.tier_kinds else {}
    return {
        "tier": {
            "start": number(price.tier_starts[place]),
            "rate": money.wire(price.tier_rates[place]),
            "type": unit,
            **kind,
        },
        "tokens": int(counted) if unit == "tokens_1m" else 0,
        "characters": int(counted) if unit == "characters_1m" else 0,
        "seconds": number(counted) if unit == "minutes" else 0,
        "cost": money.wire(Decimal(amount)),
    }
