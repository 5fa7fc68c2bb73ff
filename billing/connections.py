"""Connections: who a verified phone is, and a connection's end.

Called by checkout (`identify`) and by the API and console (`delete`, `disable`, `enable`).
"""

from __future__ import annotations

from datetime import datetime

from django.db import transaction

from billing import errors, events, ledger, subscriptions
from billing.models import Connection, Customer, Merchant


@transaction.atomic
def identify(merchant: Merchant, *, phone: str, now: datetime) -> Connection:
    """The customer of a verified phone (E.164) and their connection, made when they are new.

    A new connection is pending until something is paid or set up. Two checkouts of one phone at
    once find the same one.
    """
    customer, _ = Customer.objects.get_or_create(
        merchant=merchant, phone=phone, defaults={"created_at": now}
    )
    # Two checkouts of one customer take turns here; the unique key stands behind.
    Customer.objects.select_for_update(no_key=True).get(pk=customer.pk)
    found: Connection | None = (
        Connection.objects.filter(merchant=merchant, customer=customer)
        .exclude(status=Connection.Status.DELETED)
        .select_related("merchant__organization", "customer")
        .first()
    )
    if found is not None:
        return found
    made = Connection(
        merchant=merchant, customer=customer, currency=merchant.currency, created_at=now
    )
    made.save()
    return made


def name_customer(customer: Customer, *, name: str, email: str) -> None:
    """Keep the name and e-mail a customer gave; the last word is the family name."""
    first, _, last = name.strip().rpartition(" ")
    customer.first_name, customer.last_name = (first or last)[:80], (last if first else "")[:80]
    customer.email = email.strip()
    customer.save(update_fields=["first_name", "last_name", "email"])


@transaction.atomic
def delete(connection: Connection, *, now: datetime) -> None:
    """End a connection: its subscription ends, nothing more is charged, history stays.

    Deleted twice, it stays deleted.
    """
    connection = ledger.lock(connection.pk)
    if connection.status == Connection.Status.DELETED:
        return
    current = connection.subscription
    if current is not None:
        subscriptions.end(current, now=now)
    connection.status = Connection.Status.DELETED
    connection.deleted_at = now
    connection.save(update_fields=["status", "deleted_at"])
    events.record(connection.merchant, "connection.deleted", now=now, connection=connection)


@transaction.atomic
def set_enabled(connection: Connection, *, enabled: bool, now: datetime) -> Connection:
    """Refuse every request of a connection from now on, or take them again.

    Raises:
        billing.errors.Conflict: the connection is deleted, or its checkout is not finished.
    """
    connection = ledger.lock(connection.pk)
    if connection.status not in (Connection.Status.ACTIVE, Connection.Status.DISABLED):
        raise errors.Conflict("Only a connection in use can be disabled or enabled.")
    connection.status = Connection.Status.ACTIVE if enabled else Connection.Status.DISABLED
    connection.save(update_fields=["status"])
    return connection
