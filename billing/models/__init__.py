"""Billing's tables, one file a noun. Anybody may read them through their querysets.

Who may write which table is said at each model; balances and the ledger have one writer only, the
functions of `billing/sql/ledger.sql` behind `billing.ledger`.
"""

from billing.models.base import Tenant, TenantQuerySet
from billing.models.connections import Connection, Customer, Cycle, Subscription
from billing.models.credits import CreditGrant, LedgerEntry
from billing.models.events import Event, OutboxMessage, StripeEvent
from billing.models.merchants import (
    AuditEntry,
    Invitation,
    Membership,
    Merchant,
    Organization,
    SecretKey,
    User,
)
from billing.models.payments import Payment, PaymentMethod
from billing.models.plans import CreditBundle, Plan

__all__ = [
    "AuditEntry",
    "Connection",
    "CreditBundle",
    "CreditGrant",
    "Customer",
    "Cycle",
    "Event",
    "Invitation",
    "LedgerEntry",
    "Membership",
    "Merchant",
    "Organization",
    "OutboxMessage",
    "Payment",
    "PaymentMethod",
    "Plan",
    "SecretKey",
    "StripeEvent",
    "Subscription",
    "Tenant",
    "TenantQuerySet",
    "User",
]
