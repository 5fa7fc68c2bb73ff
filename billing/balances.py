"""The balance of a connection for a backend that names itself by its key: one trip, no lock.

Called by the API, and by many backends before each piece of work, so it is as short as a charge:
the trip is `billing_balance` in `billing/sql/balance.sql`. Everything inside the product asks
`credits.balance`; a test holds both equal.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.utils import timezone

from billing import credits, errors, ids, prepared
from billing.models import Connection

_BALANCE = prepared.Statement(
    "lava_balance",
    "SELECT b.merchant, b.connection, b.currency, b.cycle, b.bundle, b.debt, b.held "
    "FROM billing_balance($1, $2, $3) b",
)


def read(key: str, connection_id: str, *, now: datetime | None = None) -> credits.Balance:
    """The live balance of a connection, e.g. of `con_test_01J...`. `now` is the real instant, to
    which the merchant's clock adds its offset.

    Raises:
        billing.errors.Unauthenticated: not a key, unknown, or revoked.
        billing.errors.NotFound: the key's merchant has no such connection for clients.
    """
    if not ids.check_secret_key(key):
        raise errors.invalid_key()
    place: UUID | None = None
    unknown = errors.NotFound(f"No such connection: {connection_id}")
    try:
        place = ids.parse(Connection.ID_PREFIX, connection_id)
    except errors.NotFound as error:
        # Said below: whoever has no key is told nothing of ids, not even that this is none.
        unknown = error
    merchant, connection, currency, cycle, bundle, debt, held = _BALANCE.row(
        prepared.params(ids.secret_hash(key), place, now or timezone.now())
    )
    if merchant is None:
        raise errors.invalid_key()
    if connection is None:
        raise unknown
    return credits.Balance(cycle=cycle, bundle=bundle, debt=debt, currency=currency, held=held)
