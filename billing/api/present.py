"""Billing's rows on the wire, shaped as the official client's type declarations.

In our words; `billing.api.vocabulary` says the newer client's beside or in their place.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from billing import credits, ids, money
from billing.api import fields
from billing.models import Connection, CreditBundle, LedgerEntry, Plan, Subscription


def connection(row: Connection, subscription: Subscription | None) -> dict[str, Any]:
    """A connection with its customer and a summary of its subscription."""
    return {
        "connection_id": row.public_id,
        "has_lava_credit_balance": row.balance > 0,
        "status": row.status,
        "customer": customer(row),
        "subscription": _summary(subscription),
        "reference_id": row.reference or None,
        "metadata": row.metadata,
        "created_at": fields.instant(row.created_at),
    }


def customer_object(row: Connection, subscription: Subscription | None) -> dict[str, Any]:
    """The same as the newer client declares it: who it is stands under `contact`."""
    found = connection(row, subscription)
    found["contact"] = found.pop("customer")
    return found


def _summary(subscription: Subscription | None) -> dict[str, Any] | None:
    if subscription is None:
        return None
    return {
        "subscription_id": subscription.public_id,
        "subscription_config_id": subscription.plan.public_id,
        "name": subscription.plan.name,
        "status": "active",
    }


def customer(row: Connection) -> dict[str, Any]:
    who = row.customer
    return {
        "phone": who.phone,
        "email": who.email,
        "first_name": who.first_name,
        "last_name": who.last_name,
    }


def balance(found: credits.Balance) -> dict[str, Any]:
    """The three balances, with what is owed."""
    return {
        "total_remaining": money.wire(found.total),
        "cycle_remaining": money.wire(found.cycle),
        "bundle_remaining": money.wire(found.bundle),
        "overage_due": money.wire(found.debt),
        "held": money.wire(found.held),
        "available": money.wire(found.available),
    }


def subscription(row: Subscription, *, now: datetime) -> dict[str, Any]:
    """A subscription: its plan nested, and the newer client's flat names beside."""
    plan = row.plan
    pending = None
    if row.pending_change is not None:
        pending = {"type": row.pending_change, "effective_at": fields.instant(row.cycle_end)}
    left = balance(credits.balance(row.connection, now=now))
    for name in ("overage_due", "held", "available"):
        left.pop(name)
    over = row.status == Subscription.Status.CANCELLED
    return {
        "subscription_id": row.public_id,
        "subscription_config_id": plan.public_id,
        "connection_id": row.connection.public_id,
        "status": "cancelled" if over else "active",
        "is_past_due": row.status == Subscription.Status.PAST_DUE,
        "started_at": fields.instant(row.started_at),
        "cancelled_at": fields.instant(row.cancelled_at),
        "cycle_start_at": fields.instant(row.cycle_start),
        "cycle_end_at": fields.instant(row.cycle_end),
        "plan": _terms(plan),
        "credits": left,
        "pending_change": pending,
        "auto_top_up_bundle_id": row.auto_top_up_bundle.public_id
        if row.auto_top_up_bundle
        else None,
        "customer": customer(row.connection),
    }


def _terms(plan: Plan) -> dict[str, Any]:
    return {
        "name": plan.name,
        "period_amount": money.wire(plan.price.amount),
        "included_credit": money.wire(plan.included_credit),
        "billing_interval": plan.billing_interval,
        "rollover_type": plan.rollover_type,
        "bundle_rollover_type": plan.bundle_rollover_type,
    }


def plan(row: Plan) -> dict[str, Any]:
    """A plan; on the wire, a subscription config."""
    return {
        "subscription_config_id": row.public_id,
        "merchant_id": row.merchant.public_id,
        **_terms(row),
        "currency": row.currency,
        "rollover_cap": None if row.rollover_cap is None else money.wire(row.rollover_cap),
        "when_depleted": row.when_depleted,
        "overage_threshold": money.wire(row.overage_threshold),
        "overage_cap": None if row.overage_cap is None else money.wire(row.overage_cap),
        "default_auto_top_up_bundle_id": None
        if row.default_auto_top_up_bundle is None
        else row.default_auto_top_up_bundle.public_id,
        "linked_meters": [
            {"meter_id": meter.public_id, "name": meter.name} for meter in row.meters.all()
        ],
        "credit_bundles": [
            {
                "credit_bundle_id": bundle.public_id,
                "name": bundle.name,
                "cost": money.wire(bundle.cost.amount),
                "credit_amount": money.wire(bundle.credit_amount),
            }
            for bundle in row.bundles.all()
            if bundle.deleted_at is None
        ],
        "created_at": fields.instant(row.created_at),
    }


def bundle(row: CreditBundle) -> dict[str, Any]:
    """A credit bundle."""
    return {
        "credit_bundle_id": row.public_id,
        "subscription_config_id": row.plan.public_id,
        "name": row.name,
        "cost": money.wire(row.cost.amount),
        "credit_amount": money.wire(row.credit_amount),
        "created_at": fields.instant(row.created_at),
    }


def entry(row: LedgerEntry) -> dict[str, Any]:
    """A line of the ledger; the account is a grant, or (null) the debt."""
    return {
        "seq": row.seq,
        "kind": row.kind,
        "amount": money.wire(row.amount),
        "balance_after": money.wire(row.balance_after),
        "grant_id": None if row.grant_id is None else ids.public("grt", row.grant_id),
        "payment_id": None if row.payment_id is None else ids.public("pay", row.payment_id),
        "reason": row.reason,
        "occurred_at": fields.instant(row.occurred_at),
    }
