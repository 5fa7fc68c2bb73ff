"""Replay: past usage priced again by a draft, with the functions that price a charge.

Reads only; one query for any number of requests. Tiers by volume, the draft's and those that were
charged, are at the rate that their cycle's usage comes to, each request rounded for itself. Called
by the console's What if.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import connection

from billing import ids
from meters import prices
from meters.models import Meter, MeterPrice


@dataclass(frozen=True, slots=True)
class Bill:
    """What one connection was charged by a meter, and what the draft would have charged."""

    connection_id: UUID
    count: int
    # In the unit of `meters.pricing.quantity`, as the draft counts.
    quantity: Decimal
    charged: Decimal
    draft: Decimal
    # The provider's cost of the requests that have one, and what those were and would be charged.
    cost: Decimal
    charged_with_cost: Decimal
    draft_with_cost: Decimal
    # Requests the draft cannot price, because nobody said what they cost: they keep their charge.
    unpriced: int

    @property
    def change(self) -> Decimal:
        return self.draft - self.charged


_SUMS = """
SELECT connection_id, count(*), sum(quantity), sum(charged), sum(draft),
       COALESCE(sum(provider_cost), 0),
       COALESCE(sum(charged) FILTER (WHERE provider_cost IS NOT NULL), 0),
       COALESCE(sum(draft) FILTER (WHERE provider_cost IS NOT NULL), 0),
       count(*) FILTER (WHERE unpriced)
  FROM (SELECT placed.*, found.fee IS NULL AS unpriced,
               CASE WHEN found.fee IS NULL THEN charged
                    ELSE found.fee + CASE WHEN %(wallet)s THEN COALESCE(provider_cost, 0) ELSE 0 END
               END AS draft
          FROM placed
          LEFT JOIN LATERAL (
               SELECT p.fee
                 FROM meters_price(%(rate_type)s, %(unit)s,
                                   CASE WHEN %(volume)s THEN '{0}' ELSE %(starts)s::numeric[] END,
                                   CASE WHEN %(volume)s THEN ARRAY[meters_volume_rate(
                                        %(starts)s, %(rates)s, %(unit)s, cycle_total, %(free)s,
                                        %(package)s, %(rounding)s)]
                                        ELSE %(rates)s::numeric[] END,
                                   quantity, before, provider_cost,
                                   %(flats)s::numeric[], %(free)s, %(package)s, %(rounding)s,
                                   peak, counts) p
                WHERE %(rate_type)s = 'fixed' OR provider_cost IS NOT NULL) found ON true
         WHERE created_at >= %(since)s AND created_at < %(until)s) priced
 GROUP BY connection_id
"""
_COUNTED = """
meters_quantity(%(unit)s, %(basis)s, input_tokens, output_tokens, input_characters,
                output_characters, input_seconds, output_seconds)
"""
# A request without cached tokens stores none.
_KINDS = """
meters_kinds(%(kinds)s::text[], input_tokens, output_tokens, COALESCE(cache_read_tokens, 0),
             COALESCE(cache_write_tokens, 0))
"""
# The draft counts as the prices that were met: each request's own position holds.
_KEPT = f"""
WITH placed AS (
    SELECT connection_id, created_at, charged, provider_cost, {_COUNTED} AS quantity,
           {_KINDS} AS counts, position_before AS before, peak_before AS peak,
           0::numeric AS cycle_total
      FROM meters_usagerequest
     WHERE merchant_id = %(merchant)s AND meter_id = %(meter)s AND id >= %(first)s
       AND status = 'completed')
{_SUMS}
"""  # noqa: S608
# It counts otherwise: positions are made anew from the connection's first request on.
_ANEW = f"""
WITH counted AS (
    SELECT id, connection_id, subscription_id, cycle_index, created_at, charged, fee, price_id,
           provider_cost, quantity AS was_counted, {_COUNTED} AS quantity, {_KINDS} AS counts
      FROM meters_usagerequest
     WHERE merchant_id = %(merchant)s AND meter_id = %(meter)s AND status = 'completed'),
prices AS (
    SELECT id AS price_id, unit, free_allowance, package_size, package_rounding,
           tier_starts || volume_starts AS starts, tier_rates || volume_rates AS rates,
           volume_starts <> '{{}}' AS by_volume, tier_window = 'cycle' AS by_cycle
      FROM meters_meterprice WHERE meter_id = %(meter)s),
placed AS (
    SELECT connection_id, created_at, provider_cost, quantity, counts,
           charged - CASE WHEN by_volume AND fee > 0 THEN fee - round(fee * meters_volume_rate(
               starts, rates, unit, sum(was_counted) FILTER (WHERE by_cycle) OVER cycle,
               free_allowance, package_size, package_rounding) / rates[1], 10) ELSE 0
               END AS charged,
           NULL::numeric AS peak, sum(quantity) OVER cycle AS cycle_total,
           COALESCE(sum(quantity) OVER (
               PARTITION BY connection_id,
                            CASE WHEN %(window)s = 'cycle' THEN subscription_id END,
                            CASE WHEN %(window)s = 'cycle' THEN cycle_index END
               ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before
      FROM counted JOIN prices USING (price_id)
    WINDOW cycle AS (PARTITION BY connection_id, subscription_id, cycle_index))
{_SUMS}
"""  # noqa: S608


def replay(meter: Meter, *, terms: prices.Terms, since: datetime, until: datetime) -> list[Bill]:
    """What each connection would have been charged in [since, until) of the merchant's clock.

    Raises:
        billing.errors.Invalid: the draft is no price that could be published.
    """
    prices.validate(terms)
    price = terms.price
    params: dict[str, Any] = {
        "merchant": meter.merchant_id,
        "meter": meter.pk,
        "unit": price.unit,
        "basis": price.token_basis,
        "rate_type": price.rate_type,
        "starts": [tier.start for tier in price.tiers],
        "rates": [tier.rate for tier in price.tiers],
        "flats": [tier.flat for tier in price.tiers],
        "kinds": [tier.kind for tier in price.tiers if tier.kind],
        "free": price.free_allowance,
        "package": price.package_size,
        "rounding": price.package_rounding,
        "volume": terms.tier_mode == MeterPrice.TierMode.VOLUME,
        "wallet": terms.base_cost_payer == MeterPrice.Payer.WALLET,
        "window": terms.tier_window,
        "since": since,
        "until": until,
        # Keys are ordered by real time, which a sandbox's clock runs ahead of.
        "first": ids.first(since - meter.merchant.clock_offset),
    }
    with connection.cursor() as cursor:
        cursor.execute(_KEPT if _counts_alike(meter, terms) else _ANEW, params)
        return [Bill(*row) for row in cursor.fetchall()]


def _counts_alike(meter: Meter, terms: prices.Terms) -> bool:
    """Whether every version so far counts as the draft does, so that positions hold. Tiers by
    volume are counted by whole cycles."""
    if terms.tier_mode == MeterPrice.TierMode.VOLUME:
        return False
    others = MeterPrice.objects.filter(meter=meter).exclude(
        unit=terms.price.unit,
        token_basis=terms.price.token_basis,
        tier_window=terms.tier_window,
        volume_starts=[],
    )
    return not others.exists()
