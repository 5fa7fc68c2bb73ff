"""Connections: who a verified phone is, and a connection's end.

Called by checkout (`identify`, `take_phone`) and by the API and console (the rest).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from django.db import IntegrityError, transaction

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


@transaction.atomic
def create(
    merchant: Merchant,
    *,
    phone: str = "",
    email: str = "",
    name: str = "",
    reference: str = "",
    metadata: dict[str, str] | None = None,
    now: datetime,
) -> Connection:
    """A customer whom the merchant's backend names, with a connection that can be used at once.

    Raises:
        billing.errors.Conflict: the merchant has a customer of that phone.
    """
    customer = Customer(merchant=merchant, phone=phone, email=email, created_at=now)
    customer.first_name, customer.last_name = _names(name)
    with _one_phone():
        customer.save()
    connection = Connection(
        merchant=merchant,
        customer=customer,
        currency=merchant.currency,
        status=Connection.Status.ACTIVE,
        reference=reference,
        metadata=metadata or {},
        activated_at=now,
        created_at=now,
    )
    connection.save()
    events.record(merchant, "connection.created", now=now, connection=connection)
    return connection


@transaction.atomic
def update(
    connection: Connection,
    *,
    phone: str | None = None,
    email: str | None = None,
    name: str | None = None,
    reference: str | None = None,
    metadata: dict[str, str] | None = None,
) -> None:
    """Change what a connection says of its customer; None leaves a word as it is, "" empties it.

    Raises:
        billing.errors.Conflict: another customer has that phone.
    """
    customer = Customer.objects.select_for_update(no_key=True).get(pk=connection.customer_id)
    if name is not None:
        customer.first_name, customer.last_name = _names(name)
    if email is not None:
        customer.email = email
    if phone is not None:
        customer.phone = phone
    with _one_phone():
        customer.save(update_fields=["first_name", "last_name", "email", "phone"])
    said: dict[str, Any] = {}
    if reference is not None:
        said["reference"] = reference
    if metadata is not None:
        said["metadata"] = metadata
    if said:
        Connection.objects.filter(pk=connection.pk).update(**said)


def take_phone(connection: Connection, *, phone: str) -> None:
    """The phone a customer without one has confirmed is theirs from now on.

    Raises:
        billing.errors.Conflict: another customer has that phone.
    """
    update(connection, phone=phone)


@contextmanager
def _one_phone() -> Iterator[None]:
    try:
        with transaction.atomic():
            yield
    except IntegrityError as error:
        raise errors.Conflict(
            "There is a customer with this phone number already.",
            code="phone_taken",
            param="phone",
        ) from error


def _names(name: str) -> tuple[str, str]:
    """First and family name; the last word is the family name."""
    first, _, last = name.strip().rpartition(" ")
    return (first or last)[:80], (last if first else "")[:80]


def name_customer(customer: Customer, *, name: str, email: str) -> None:
    """Keep the name and e-mail a customer gave; the last word is the family name."""
    customer.first_name, customer.last_name = _names(name)
    customer.email = email.strip()
    customer.save(update_fields=["first_name", "last_name", "email"])


def hear(customer: Customer, *, language: str) -> None:
    """Keep the language a customer was seen in at a hosted page: mails speak it."""
    if customer.locale != language:
        customer.locale = language
        customer.save(update_fields=["locale"])


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
