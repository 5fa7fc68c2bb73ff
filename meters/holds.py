"""Holds priced by a meter, and their settlement: the part of `POST /v1/holds` that knows usage.

Called by `meters.api_holds`. What is set aside and what is free again is `billing.holds`'; a hold
is settled by the charge of what its work really used (`meters_charge`), under one lock.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, OuterRef

from billing import errors, holds, ledger, tasks
from billing.models import Hold, Merchant, Subscription
from meters import batch, usage
from meters.gateway.models import GatewayCall
from meters.models import UsageRequest


def of(merchant: Merchant) -> Any:
    """The merchant's holds, each with `is_of_call`: a gateway call set it aside and ends it."""
    call = GatewayCall.objects.filter(pk=OuterRef("pk"))
    return Hold.objects.of(merchant).annotate(is_of_call=Exists(call))


def place(
    merchant: Merchant,
    connection_id: UUID,
    *,
    amount: Decimal | usage.Report,
    key: str,
    purpose: str,
    expires_in: timedelta,
    now: datetime,
) -> Hold:
    """Set aside an amount, or what a report would cost now, by the meter and price it names.

    Raises:
        billing.errors.LavaError: as `billing.holds.place` and, for a report, as its charge.
    """
    try:
        with transaction.atomic():
            if isinstance(amount, Decimal):
                return holds.place(
                    merchant,
                    connection_id,
                    amount=amount,
                    purpose=purpose,
                    expires_in=expires_in,
                    now=now,
                )
            # Priced as the charge would, and nothing comes between the price and the hold.
            ledger.lock(connection_id, merchant_id=merchant.pk)
            found = batch.estimate(key, sandbox=merchant.is_sandbox, told=amount)
            return holds.place(
                merchant,
                connection_id,
                amount=found.request.charged,
                priced=True,
                purpose=purpose,
                expires_in=expires_in,
                now=now,
            )
    except errors.PaymentRequired:
        if Subscription.objects.current().filter(
            connection=connection_id, auto_top_up_bundle__isnull=False
        ):
            tasks.hint_fall(connection_id, refused=True)
        raise


def settle(hold: Hold, *, told: usage.Report, key: str) -> usage.Charged:
    """Charge what the work of a hold really used; the rest of the hold is free in the same step.

    Work that has run is always recorded: what the hold does not cover is drawn as any request's,
    and a hold that had expired is settled late. The same report again is charged once.

    Raises:
        billing.errors.Conflict: it was settled by another request, or released.
        billing.errors.LavaError: as the charge; the hold is as it was.
    """
    told = dataclasses.replace(told, hold=hold.pk, enforce=False)
    charged = usage.report(key, sandbox=hold.merchant.is_sandbox, told=told)
    hold.refresh_from_db()
    return charged


def requests(rows: Sequence[Hold]) -> dict[UUID, UsageRequest]:
    """The requests that settled some holds, by the request's key, in one query."""
    found: dict[UUID, UsageRequest] = UsageRequest.objects.in_bulk(
        [row.request_id for row in rows if row.request_id is not None]
    )
    return found
