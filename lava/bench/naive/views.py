"""One charge through a ModelSerializer and the ORM: a dozen trips under the connection's lock."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.db import transaction
from django.db.models import F
from django.shortcuts import get_object_or_404
from rest_framework import generics, serializers
from rest_framework.exceptions import PermissionDenied, ValidationError

from billing import ids
from billing.models import Connection, CreditGrant, LedgerEntry, Merchant, Subscription
from meters import pricing
from meters.models import Meter, MeterPosition, MeterPrice, UsageRequest

ZERO = Decimal(0)


class RequestSerializer(serializers.ModelSerializer):
    """A request in and out, with the checks a ModelSerializer makes."""

    connection_id = serializers.CharField()
    meter_slug = serializers.CharField(write_only=True)
    balance = serializers.DecimalField(
        source="total_remaining", max_digits=22, decimal_places=10, read_only=True
    )

    class Meta:
        model = UsageRequest
        fields = [
            "request_id", "connection_id", "meter_slug", "status", "model", "input_tokens",
            "output_tokens", "input_characters", "output_characters", "input_seconds",
            "output_seconds", "provider_cost", "metadata", "fee", "slices", "draws", "charged",
            "cycle_remaining", "bundle_remaining", "debt_after", "late", "timestamp", "created_at",
            "balance",
        ]  # fmt: skip
        read_only_fields = [
            "status", "fee", "slices", "draws", "charged", "cycle_remaining", "bundle_remaining",
            "debt_after", "late", "timestamp", "created_at",
        ]  # fmt: skip


class RequestsView(generics.CreateAPIView):
    """`POST /v1/requests`"""

    serializer_class = RequestSerializer
    queryset = UsageRequest.objects.all()

    def perform_create(self, serializer: Any) -> None:
        merchant: Merchant = self.request.user.merchant  # type: ignore[union-attr]
        serializer.instance = charge(merchant, serializer.validated_data, now=merchant.now())


@transaction.atomic
def charge(merchant: Merchant, sent: dict[str, Any], *, now: datetime) -> UsageRequest:
    """Lock, look up, price, draw, store."""
    slug = sent.pop("meter_slug")
    connection = get_object_or_404(
        Connection.objects.select_for_update(),
        pk=ids.parse("con", sent.pop("connection_id")),
        merchant=merchant,
    )
    fingerprint = hashlib.sha256(json.dumps(sent, sort_keys=True, default=str).encode()).digest()
    earlier = UsageRequest.objects.told_as(merchant, sent["request_id"]).first()
    if earlier is not None:
        if bytes(earlier.fingerprint) != fingerprint:
            raise ValidationError("This request_id was used with another body.")
        return earlier  # type: ignore[no-any-return]
    meter = get_object_or_404(Meter.objects.select_related("price"), merchant=merchant, slug=slug)
    price = meter.price
    assert price is not None
    subscription = get_object_or_404(
        Subscription.objects.select_related("plan"),
        connection=connection,
        status__in=Subscription.CURRENT,
    )
    if not meter.plans.filter(pk=subscription.plan_id).exists():
        raise PermissionDenied("The meter is not active for this connection.")
    request = UsageRequest(
        id=ids.new(sandbox=merchant.is_sandbox),
        merchant=merchant,
        connection=connection,
        meter=meter,
        price=price,
        subscription_id=subscription.pk,
        cycle_index=subscription.cycle_index,
        fingerprint=fingerprint,
        timestamp=now,
        created_at=now,
        **sent,
    )
    _price(request, price, subscription)
    _draw(request, connection, now)
    request.save(force_insert=True)
    return request


def _price(request: UsageRequest, price: MeterPrice, subscription: Subscription) -> None:
    """Price it from the position in the tiers, and move the position on."""
    by_cycle = price.tier_window == MeterPrice.TierWindow.CYCLE
    place, _ = MeterPosition.objects.get_or_create(
        connection_id=request.connection_id,
        meter_id=request.meter_id,
        scope=subscription.pk if by_cycle else request.connection_id,
        window=subscription.cycle_index if by_cycle else -1,
        defaults={"quantity": ZERO, "peak": ZERO},
    )
    terms = pricing.Price(
        rate_type=price.rate_type,
        unit=price.unit,
        token_basis=price.token_basis,
        tiers=tuple(price.tiers),
    )
    used = pricing.Usage(
        input_tokens=request.input_tokens,
        output_tokens=request.output_tokens,
        input_characters=request.input_characters,
        output_characters=request.output_characters,
        input_seconds=request.input_seconds,
        output_seconds=request.output_seconds,
        provider_cost=request.provider_cost,
    )
    fee = pricing.price(terms, used, before=place.quantity)
    request.quantity, request.position_before = fee.quantity, place.quantity
    request.fee = request.charged = fee.amount
    if price.base_cost_payer == MeterPrice.Payer.WALLET:
        request.charged += request.provider_cost or ZERO
    request.slices = [
        [part.tier, f"{part.quantity.normalize():f}", f"{part.amount:f}"] for part in fee.slices
    ]
    MeterPosition.objects.filter(pk=place.pk).update(
        quantity=F("quantity") + fee.quantity, peak=F("quantity") + fee.quantity
    )


def _draw(request: UsageRequest, connection: Connection, now: datetime) -> None:
    """Draw from the grants in order; the rest is debt."""
    need = request.charged
    lots = CreditGrant.objects.select_for_update().filter(
        connection=connection, is_spent=False, effective_at__lte=now
    )
    left = {CreditGrant.Pool.CYCLE: ZERO, CreditGrant.Pool.BUNDLE: ZERO}
    for lot in lots.order_by(
        "priority", F("expires_at").asc(nulls_last=True), "pool", "origin_at", "id"
    ):
        if lot.expires_at is not None and lot.expires_at <= now:
            continue
        take = min(need, lot.remaining)
        if take > 0:
            need -= take
            lot.remaining -= take
            lot.save(update_fields=["remaining"])
            _line(request, connection, take, lot, now)
        left[CreditGrant.Pool(lot.pool)] += lot.remaining
    if need > 0:
        connection.debt += need
        connection.cycle_overage += need
        _line(request, connection, need, None, now)
    connection.save(update_fields=["entry_count", "balance", "debt", "cycle_overage"])
    request.cycle_remaining = left[CreditGrant.Pool.CYCLE]
    request.bundle_remaining = left[CreditGrant.Pool.BUNDLE]
    request.debt_after = connection.debt


def _line(
    request: UsageRequest,
    connection: Connection,
    amount: Decimal,
    lot: CreditGrant | None,
    now: datetime,
) -> None:
    connection.entry_count += 1
    connection.balance -= amount
    LedgerEntry.objects.create(
        merchant_id=request.merchant_id,
        connection=connection,
        seq=connection.entry_count,
        kind=LedgerEntry.Kind.USAGE,
        amount=-amount,
        balance_after=connection.balance,
        grant=lot,
        request_id=request.pk,
        occurred_at=now,
    )
    request.draws.append([str(lot.pk) if lot else None, f"{amount:f}"])
