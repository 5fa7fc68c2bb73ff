"""Billing's tables, one file a noun. Anybody may read them through their querysets.

Who may write which table is said at each model; balances and the ledger have one writer only, the
functions of `billing/sql/ledger.sql` behind `billing.ledger`.
"""

from billing.models.accounts import CardAccount
from billing.models.approvals import Approval
from billing.models.base import Tenant, TenantQuerySet
from billing.models.calls import IdempotentCall
from billing.models.connections import Connection, Customer, Cycle, Subscription
from billing.models.credits import CreditGrant, LedgerEntry
from billing.models.events import Event, OutboxMessage, StripeEvent
from billing.models.holds import Hold
from billing.models.imports import CustomerImport
from billing.models.merchants import (
    AuditEntry,
    Invitation,
    Membership,
    Merchant,
    Organization,
    SecretKey,
    User,
)
from billing.models.moves import PlanMove
from billing.models.offers import KeyOffer
from billing.models.payments import Payment, PaymentMethod
from billing.models.plans import CreditBundle, Plan
from billing.models.reconciliations import Reconciliation
from billing.models.refunds import Dispute, PaymentAttempt, Refund
from billing.models.security import RecoveryCode, SecondFactor, SignIn
from billing.models.webhooks import BalanceTold, Delivery, DeliveryAttempt, WebhookEndpoint

__all__ = [
    "Approval",
    "AuditEntry",
    "BalanceTold",
    "CardAccount",
    "Connection",
    "CreditBundle",
    "CreditGrant",
    "Customer",
    "CustomerImport",
    "Cycle",
    "Delivery",
    "DeliveryAttempt",
    "Dispute",
    "Event",
    "Hold",
    "IdempotentCall",
    "Invitation",
    "KeyOffer",
    "LedgerEntry",
    "Membership",
    "Merchant",
    "Organization",
    "OutboxMessage",
    "Payment",
    "PaymentAttempt",
    "PaymentMethod",
    "Plan",
    "PlanMove",
    "Reconciliation",
    "RecoveryCode",
    "Refund",
    "SecondFactor",
    "SecretKey",
    "SignIn",
    "StripeEvent",
    "Subscription",
    "Tenant",
    "TenantQuerySet",
    "User",
    "WebhookEndpoint",
]
