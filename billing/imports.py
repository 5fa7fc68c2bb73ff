"""Imports: make many customers that a merchant has already, from lines that were read and shown.

Each line is one `connections.create`, as `POST /v1/connections` is. The job goes on in sets, each
in a transaction that also counts it, so it can stop at any instant and goes on where it was: `run`
is called by a worker, and the sweep finds jobs that are not done. Who is there already, by phone or
by the merchant's own id, is left as they are, so that a file may be imported again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction

from billing import connections, errors
from billing.models import Connection, Customer, CustomerImport, Merchant

# Lines made in one transaction, and in one job.
SET = 100
MOST_LINES = 5000
Line = dict[str, Any]


def known(merchant: Merchant, lines: Iterable[Line]) -> tuple[set[str], set[str]]:
    """Which phones and which of the merchant's own ids in the lines belong to customers already."""
    phones = {line["phone"] for line in lines if line["phone"]}
    references = {line["reference"] for line in lines if line["reference"]}
    customers = Customer.objects.of(merchant).filter(phone__in=phones)
    rows = Connection.objects.of(merchant).visible().filter(reference__in=references)
    return (
        set(customers.values_list("phone", flat=True)),
        set(rows.values_list("reference", flat=True)),
    )


def begun(merchant: Merchant, *, key: str) -> CustomerImport | None:
    """The job of a key, where its button was pressed before."""
    found: CustomerImport | None = CustomerImport.objects.of(merchant).filter(key=key).first()
    return found


@transaction.atomic
def start(
    merchant: Merchant,
    *,
    lines: Sequence[Line],
    filename: str,
    key: str,
    actor: str,
    now: datetime,
) -> CustomerImport:
    """Begin to make the customers of some lines: `phone`, `email`, `name`, `reference` and
    `metadata`, each as `connections.create` takes it. The same key is the same job.

    Raises:
        billing.errors.Invalid: no line, or more than `MOST_LINES`.
    """
    if not 0 < len(lines) <= MOST_LINES:
        raise errors.Invalid(f"Give 1 to {MOST_LINES:,} lines.", param="file")
    # Two presses of one button take turns here.
    Merchant.objects.select_for_update(no_key=True).get(pk=merchant.pk)
    made = begun(merchant, key=key)
    if made is not None:
        return made
    job = CustomerImport(
        merchant=merchant,
        key=key,
        filename=filename[:255] or "customers.csv",
        lines=list(lines),
        count=len(lines),
        actor=actor,
        created_at=now,
    )
    job.save()
    return job


def run(import_id: UUID, *, now: datetime, most: int | None = None) -> CustomerImport:
    """Go on with a job, to its end or for so many sets. Two workers at once make each line once."""
    sets = 0
    while _step(import_id, now=now) and sets + 1 != most:
        sets += 1
    found: CustomerImport = CustomerImport.objects.get(pk=import_id)
    return found


@transaction.atomic
def _step(import_id: UUID, *, now: datetime) -> bool:
    """Make the next set; False once there is none."""
    job: CustomerImport = (
        CustomerImport.objects.select_for_update(of=("self",), no_key=True)
        .select_related("merchant")
        .get(pk=import_id)
    )
    if job.state == CustomerImport.State.DONE:
        return False
    lines = job.lines[job.done : job.done + SET]
    phones, references = known(job.merchant, lines)
    for line in lines:
        if line["phone"] in phones or line["reference"] in references:
            job.left += 1
            continue
        try:
            connections.create(job.merchant, **line, now=now)
        except errors.Conflict:
            # They came by themselves a moment ago.
            job.left += 1
        else:
            job.made += 1
    if job.done == job.count:
        job.state, job.finished_at, job.lines = CustomerImport.State.DONE, now, []
    job.save(update_fields=["made", "left", "state", "finished_at", "lines"])
    return job.state == CustomerImport.State.RUNNING
