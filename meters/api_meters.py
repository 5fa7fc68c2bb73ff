"""`/v1/meters`: what is counted, and its prices."""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from typing import Any

from django.db import transaction
from rest_framework.request import Request
from rest_framework.response import Response

from billing import errors, ids, money
from billing.api import fields, lists
from billing.api.views import View
from meters import prices, pricing
from meters.models import Meter, MeterPrice

MOST_TIERS = 50
# The verbs' names for what the wire calls otherwise.
_WIRE = {"slug": "meter_slug", "unit": "tier_type"}


def present(row: Meter) -> dict[str, Any]:
    """A meter on the wire, with the price in force."""
    price: MeterPrice | None = row.price
    assert price is not None
    return {
        "meter_id": row.public_id,
        "meter_slug": row.slug,
        "name": row.name,
        "rate_type": price.rate_type,
        "token_basis": price.token_basis,
        "tier_mode": price.tier_mode,
        "tier_window": price.tier_window,
        "base_cost_payer": price.base_cost_payer,
        "service_charge_payer": "merchant",
        "tiers": [
            {
                "start": number(tier.start),
                "rate": money.wire(tier.rate),
                "type": price.unit,
                **({"flat_amount": money.wire(tier.flat)} if tier.flat else {}),
                **({"kind": tier.kind} if tier.kind else {}),
            }
            for tier in price.tiers
        ],
        "free_allowance": number(price.free_allowance),
        "package_size": number(price.package_size),
        "package_rounding": price.package_rounding,
        "price_version": price.version,
        "created_at": fields.instant(row.created_at),
    }


def number(value: Decimal) -> int | float:
    """A count as a JSON number: whole where it is whole. Counts only, never money."""
    return int(value) if value == value.to_integral_value() else float(value)


class MetersView(View):
    """`GET, POST /v1/meters`"""

    def get(self, request: Request) -> Response:
        rows = Meter.objects.of(self.merchant).filter(archived_at=None).select_related("price")
        return lists.page(
            request, rows, cursor_key=lambda text: ids.parse("prd", text), present=present
        )

    def post(self, request: Request) -> Response:
        body = self.body
        name = fields.required_text(body, "name", most=prices.LONGEST_NAME)
        slug = fields.text(body, "meter_slug", most=prices.LONGEST_SLUG) or slug_of(name)
        fields.choice(body, "rate_type", MeterPrice.RateType.values)
        fields.choice(body, "tier_type", MeterPrice.Unit.values)
        terms = _terms(body, None)
        try:
            meter = prices.create_meter(
                self.merchant, slug=slug, name=name, terms=terms, actor=self.actor, now=self.now
            )
        except errors.LavaError as error:
            error.param = _on_the_wire(error.param)
            raise
        return Response(present(meter), status=201)


class MeterView(View):
    """`GET, PATCH, DELETE /v1/meters/{id}`"""

    def get(self, request: Request, meter_id: str) -> Response:
        return Response(present(_find(self, meter_id)))

    @transaction.atomic
    def patch(self, request: Request, meter_id: str) -> Response:
        body = self.body
        meter = _find(self, meter_id)
        if meter.archived_at is not None:
            raise errors.Conflict("This meter is deleted.", code="meter_deleted")
        name = fields.text(body, "name", most=prices.LONGEST_NAME)
        if name is not None:
            prices.rename(meter, name=name)
        assert meter.price is not None
        try:
            prices.publish(meter, terms=_terms(body, meter.price), actor=self.actor, now=self.now)
        except errors.LavaError as error:
            error.param = _on_the_wire(error.param)
            raise
        return Response(present(_find(self, meter_id)))

    put = patch

    def delete(self, request: Request, meter_id: str) -> Response:
        meter = prices.archive(_find(self, meter_id), now=self.now)
        return Response({"id": meter.public_id, "deleted": True})


def _on_the_wire(param: str | None) -> str | None:
    """A field as clients call it: `tiers[2].flat_amount` for `tiers[2].flat`."""
    if param is None:
        return None
    return _WIRE.get(param, re.sub(r"\.flat$", ".flat_amount", param))


def slug_of(name: str) -> str:
    """A slug for a name: its letters and digits, joined by hyphens."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[: prices.LONGEST_SLUG].strip("-")
    if not slug:
        raise errors.Invalid("Send a `meter_slug`: the name has no letters for one.", param="name")
    return slug


def _find(view: View, meter_id: str) -> Meter:
    found: Meter = (
        Meter.objects.of(view.merchant).select_related("price", "merchant").by_public_id(meter_id)
    )
    return found


def _terms(body: dict[str, Any], price: MeterPrice | None) -> prices.Terms:
    """The terms of a body; of a meter that is there, what the body leaves out stays."""
    told = prices.of(price) if price is not None else prices.Terms(tiers=())

    def chosen(name: str, options: list[str], now: str) -> str:
        return fields.choice(body, name, options, default=now)

    tiers = _tiers(body)
    if tiers is None and price is None:
        raise errors.Invalid("`tiers` is missing.", param="tiers")
    mode = chosen("tier_mode", MeterPrice.TierMode.values, told.tier_mode)
    # Tiers by volume count by cycle: that need not be said.
    by_volume = mode == MeterPrice.TierMode.VOLUME
    window = MeterPrice.TierWindow.CYCLE if by_volume else told.tier_window
    return prices.Terms(
        tiers=told.tiers if tiers is None else tiers,
        rate_type=chosen("rate_type", MeterPrice.RateType.values, told.rate_type),
        unit=chosen("tier_type", MeterPrice.Unit.values, told.unit),
        token_basis=chosen("token_basis", MeterPrice.TokenBasis.values, told.token_basis),
        tier_mode=mode,
        tier_window=chosen("tier_window", MeterPrice.TierWindow.values, window),
        base_cost_payer=chosen("base_cost_payer", MeterPrice.Payer.values, told.base_cost_payer),
        free_allowance=_count(body, "free_allowance", told.free_allowance),
        package_size=_count(body, "package_size", told.package_size),
        package_rounding=chosen(
            "package_rounding", MeterPrice.PackageRounding.values, told.package_rounding
        ),
    )


def _tiers(body: dict[str, Any]) -> list[pricing.Tier] | None:
    items = fields.items(body, "tiers", most=MOST_TIERS)
    if items is None:
        return None
    found = []
    for place, item in enumerate(items):
        try:
            found.append(
                pricing.Tier(
                    start=_count(item, "start", None),
                    rate=money.parse_amount(item.get("rate"), param="rate"),
                    flat=fields.amount(item, "flat_amount") or Decimal(0),
                    kind=fields.text(item, "kind", most=20) or "",
                )
            )
        except errors.Invalid as error:
            error.param = f"tiers[{place}].{error.param}"
            raise
    return found


def _count(item: dict[str, Any], name: str, default: Decimal | None) -> Decimal:
    """A count of units: a string of digits, or the number it is answered as."""
    value = item.get(name)
    if value is None and default is not None:
        return default
    if type(value) is int or isinstance(value, Decimal):
        value = f"{value:f}" if isinstance(value, Decimal) else str(value)
    return money.parse_amount(value, param=name)
