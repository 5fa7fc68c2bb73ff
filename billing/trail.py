"""The audit trail: what people changed, with before and after, in the change's own transaction.

Called by the console beside the verb that made the change. The only writer of `AuditEntry`.
"""

from __future__ import annotations

from typing import Any

from django.db import connection

from billing.models import AuditEntry, Merchant, Organization, User

Facts = dict[str, Any]


def record(
    organization: Organization,
    action: str,
    *,
    by: User,
    merchant: Merchant | None = None,
    target: str = "",
    name: str = "",
    before: Facts | None = None,
    after: Facts | None = None,
) -> AuditEntry | None:
    """Write one entry with the fields that differ; nothing where both sides say the same.

    Without `before` and `after` the act itself is the entry, e.g. a key revoked.
    """
    assert connection.in_atomic_block, "the trail is written with its change or not at all"
    old, new = before or {}, after or {}
    changed = [field for field in {**old, **new} if old.get(field) != new.get(field)]
    if (before is not None or after is not None) and not changed:
        return None
    entry = AuditEntry(
        organization=organization,
        merchant=merchant,
        actor=str(by)[:255],
        actor_email=by.email,
        action=action,
        target=target,
        target_name=name[:255],
        before={field: old[field] for field in changed if field in old},
        after={field: new[field] for field in changed if field in new},
    )
    entry.save()
    return entry
