"""`/v1/subscription_configs` and `/v1/plans`, one thing in two vocabularies; `/v1/credit_bundles`.

Which meters a plan has is meters' to write: `meters.api_plans` derives the two views that take
`meter_ids`, and the table of paths in `lava/urls.py` names those.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Prefetch
from rest_framework.request import Request
from rest_framework.response import Response

from billing import errors, ids, plans
from billing.api import fields, lists, present
from billing.api.views import View
from billing.api.vocabulary import Words
from billing.models import CreditBundle, Plan

# The verbs' names for what the wire calls otherwise.
_WIRE = {"price": "period_amount", "credit": "credit_amount"}


@contextmanager
def _wire_names(place: str = "") -> Iterator[None]:
    """Errors of the verbs name the wire's fields, at their place in the body."""
    try:
        yield
    except errors.LavaError as error:
        if error.param:
            error.param = place + _WIRE.get(error.param, error.param)
        raise


def rows(view: View) -> Any:
    """The merchant's plans, with what their answers show."""
    bundles = CreditBundle.objects.order_by("position", "pk")
    return (
        Plan.objects.of(view.merchant)
        .select_related("merchant", "default_auto_top_up_bundle")
        .prefetch_related("meters", Prefetch("bundles", bundles))
    )


class _Writing(View):
    """What making and changing a plan share."""

    words = Words.OLDER

    def put_bundles(self, plan: Plan, body: dict[str, Any]) -> list[CreditBundle]:
        """Upsert by id; `is_deleted` removes. Gives those that were written, in order."""
        made = []
        for place, item in enumerate(
            fields.items(body, "credit_bundles", most=plans.MOST_BUNDLES * 2) or []
        ):
            with _wire_names(f"credit_bundles[{place}]."):
                text = fields.text(item, "credit_bundle_id")
                key: UUID | None = None if text is None else ids.parse("cb", text)
                if fields.flag(item, "is_deleted"):
                    plans.remove_bundle(_bundle_of(plan, key), now=self.now)
                    continue
                made.append(
                    plans.put_bundle(
                        plan,
                        name=fields.required_text(item, "name"),
                        cost=_required_amount(item, "cost"),
                        credit=_required_amount(item, "credit_amount"),
                        position=place,
                        bundle_id=key,
                        now=self.now,
                    )
                )
        return made

    def link_meters(self, plan: Plan, body: dict[str, Any]) -> None:
        """Meters are not billing's: see `meters.api_plans`."""


class PlansView(_Writing):
    """`GET, POST /v1/subscription_configs`"""

    def get(self, request: Request) -> Response:
        return lists.page(
            request,
            rows(self).filter(archived_at=None),
            cursor_key=lambda text: ids.parse("sc", text),
            present=present.plan,
        )

    @transaction.atomic
    def post(self, request: Request) -> Response:
        body = self.body
        terms = _terms(body, None)
        with _wire_names():
            plan = plans.create(self.merchant, terms=terms, now=self.now)
        made = self.put_bundles(plan, body)
        index = body.get("default_auto_top_up_bundle_index")
        if index is not None:
            if type(index) is not int or not 0 <= index < len(made):
                raise errors.Invalid(
                    "Write the place of a bundle in `credit_bundles`, from 0.",
                    param="default_auto_top_up_bundle_index",
                )
            plans.set_default_top_up(plan, made[index])
        self.link_meters(plan, body)
        return Response(present.plan(rows(self).get(pk=plan.pk)), status=201)


class PlanView(_Writing):
    """`GET, PATCH, DELETE /v1/subscription_configs/{id}`"""

    def get(self, request: Request, plan_id: str) -> Response:
        return Response(present.plan(rows(self).by_public_id(plan_id)))

    @transaction.atomic
    def patch(self, request: Request, plan_id: str) -> Response:
        body = self.body
        plan = rows(self).by_public_id(plan_id)
        terms = _terms(body, plan)
        with _wire_names():
            plan = plans.update(plan, terms=terms)
        self.put_bundles(plan, body)
        if "default_auto_top_up_bundle_id" in body:
            text = fields.text(body, "default_auto_top_up_bundle_id")
            bundle = None if text is None else _bundle_of(plan, ids.parse("cb", text))
            plans.set_default_top_up(plan, bundle)
        self.link_meters(plan, body)
        return Response(present.plan(rows(self).get(pk=plan.pk)))

    put = patch

    def delete(self, request: Request, plan_id: str) -> Response:
        plan = plans.archive(rows(self).by_public_id(plan_id), now=self.now)
        return Response({"id": plan.public_id, "deleted": True})


class BundlesView(View):
    """`GET /v1/credit_bundles`"""

    def get(self, request: Request) -> Response:
        found = CreditBundle.objects.of(self.merchant).filter(deleted_at=None)
        plan = self.query.get("subscription_config_id")
        if plan:
            found = found.filter(plan_id=ids.parse("sc", plan))
        return lists.page(
            request,
            found.select_related("plan"),
            cursor_key=lambda text: ids.parse("cb", text),
            present=present.bundle,
        )


class BundleView(View):
    """`GET /v1/credit_bundles/{id}`"""

    def get(self, request: Request, bundle_id: str) -> Response:
        found = CreditBundle.objects.of(self.merchant).select_related("plan")
        return Response(present.bundle(found.by_public_id(bundle_id)))


def _bundle_of(plan: Plan, key: UUID | None) -> CreditBundle:
    found: CreditBundle | None = None if key is None else plan.live_bundles.filter(pk=key).first()
    if found is None:
        raise errors.NotFound("This plan has no such bundle.", param="credit_bundle_id")
    return found


def _required_amount(body: dict[str, Any], name: str) -> Decimal:
    value = fields.amount(body, name)
    if value is None:
        raise errors.Invalid(f"`{name}` is missing.", param=name)
    return value


def _terms(body: dict[str, Any], plan: Plan | None) -> plans.Terms:
    """The terms of a body; of a plan that is there, what the body leaves out stays."""
    now = plans.of(plan) if plan is not None else None
    names = ("rollover_type", "bundle_rollover_type", "when_depleted")
    options = {
        "rollover_type": Plan.Rollover.values,
        "bundle_rollover_type": Plan.Rollover.values,
        "when_depleted": Plan.WhenDepleted.values,
        "billing_interval": Plan.Interval.values,
    }
    found: dict[str, Any] = {} if now is None else plans.as_fields(now)
    for name in (*names, "billing_interval"):
        if body.get(name) is not None:
            found[name] = fields.choice(body, name, options[name])
    if body.get("name") is not None or now is None:
        found["name"] = fields.required_text(body, "name")
    if body.get("period_amount") is not None or now is None:
        found["price"] = _required_amount(body, "period_amount")
    for name in ("included_credit", "overage_threshold"):
        if body.get(name) is not None:
            found[name] = fields.amount(body, name)
    for name in ("overage_cap", "rollover_cap"):
        if name in body:
            found[name] = fields.amount(body, name)
    if now is None:
        if "billing_interval" not in found:
            fields.choice(body, "billing_interval", options["billing_interval"])
        found.setdefault("included_credit", Decimal(0))
    return plans.Terms(**found)
