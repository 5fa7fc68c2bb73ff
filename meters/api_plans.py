"""`/v1/subscription_configs` and `/v1/plans` with the meters that are active on them.

Plans are billing's; the link between a meter and a plan is meters' own, so the two views that take
`meter_ids` are completed here.
"""

from __future__ import annotations

from typing import Any

from billing import errors
from billing.api import fields, plans
from billing.models import Plan
from meters import prices
from meters.models import Meter

MOST_METERS = 200


class _LinkingMeters:
    def link_meters(self, plan: Plan, body: dict[str, Any]) -> None:
        """`meter_ids` (or `product_ids`) replace the set of active meters; absent, it stays."""
        name = "meter_ids" if body.get("meter_ids") is not None else "product_ids"
        asked = fields.texts(body, name, most=MOST_METERS)
        if asked is None:
            return
        wanted = []
        for place, text in enumerate(asked):
            rows = Meter.objects.filter(merchant_id=plan.merchant_id, archived_at=None)
            try:
                wanted.append(rows.by_public_id(text))
            except errors.NotFound as error:
                raise errors.NotFound(error.message, param=f"{name}[{place}]") from error
        for meter in Meter.objects.filter(plans=plan).exclude(pk__in=[row.pk for row in wanted]):
            prices.detach(meter, plan)
        for meter in wanted:
            prices.attach(meter, plan)


class PlansView(_LinkingMeters, plans.PlansView):
    """`GET, POST /v1/subscription_configs`"""


class PlanView(_LinkingMeters, plans.PlanView):
    """`GET, PATCH, DELETE /v1/subscription_configs/{id}`"""
