"""The plan that an address names, and the meters that a plan can have."""

from __future__ import annotations

from typing import Any

from django.http import Http404

from billing import errors
from billing.models import Plan
from meters.models import Meter


def find(merchant: Any, key: str) -> Plan:
    """A plan of the open books by its public id; another's is not found."""
    try:
        found: Plan = Plan.objects.of(merchant).select_related("merchant").by_public_id(key)
    except errors.NotFound as error:
        raise Http404 from error
    return found


def meters_of(merchant: Any) -> list[Meter]:
    """The meters that a plan can have."""
    rows = Meter.objects.of(merchant).filter(archived_at=None).select_related("price")
    return list(rows.order_by("name", "id"))
