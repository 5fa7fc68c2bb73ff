"""`GET /v1/connections/{id}/balance/explain?at=` and under `/v1/customers`: a balance, proven.

Joins the ledger's statement (`billing.statements`) with the proofs of its requests
(`meters.proofs`): each line, and under a usage line its request, the price version it met, the
slices of its fee and the grants it drew from. The same as `manage.py explain`, as JSON.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from django.db.models import Sum
from rest_framework.request import Request
from rest_framework.response import Response

from billing import errors, ids, money, statements
from billing.api import fields, lists, present
from billing.api.views import View
from billing.models import Connection, CreditGrant, LedgerEntry
from meters import proofs
from meters.api_meters import number


class ExplainView(View):
    """Newest line first; the cursor is a line's `seq`. `at` is now, or any instant before it.

    `balance_after` of a line is the sum of the lines up to it that had happened by `at`: the end of
    a grant is entered when it is noticed and counts from when it was.
    """

    def get(self, request: Request, connection_id: str) -> Response:
        row: Connection = Connection.objects.of(self.merchant).visible().by_public_id(connection_id)
        at = self._at(request.query_params.get("at"))
        cursor = _cursor(request.query_params.get("cursor"))
        found = statements.explain(row, at=at, most=lists.limit_of(request), below=cursor)
        proven = proofs.of(row, found.requests)
        running = found.balance.total + found.ended if cursor is None else _sum(row, at, cursor)
        data = []
        for line in reversed(found.lines):
            data.append(_line(line, running, proven))
            running -= line.amount
        answer: dict[str, Any] = {
            "connection_id": row.public_id,
            "currency": row.currency,
            "at": fields.instant(at),
            "balance": present.balance(found.balance) | {"ended": money.wire(found.ended)},
            "grants": [_lot(lot) for lot in found.lots],
            "data": data,
            "has_more": found.has_more,
        }
        if found.has_more:
            answer["next_cursor"] = str(found.lines[0].seq)
        return Response(answer)

    def _at(self, text: str | None) -> datetime:
        if text is None:
            return self.now
        # A `+` of an offset that a client did not encode arrives as a space.
        at = fields.moment(text.replace(" ", "+"), "at")
        if at > self.now:
            raise errors.Invalid("`at` must not be in the future.", param="at")
        return at


def _cursor(text: str | None) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise errors.Invalid("The cursor is not the seq of a line.", param="cursor")
    return int(text)


def _sum(row: Connection, at: datetime, below: int) -> Decimal:
    """The balance before a line: the sum of the earlier ones that had happened by then."""
    lines = LedgerEntry.objects.filter(connection=row, occurred_at__lte=at, seq__lt=below)
    total: Decimal | None = lines.aggregate(total=Sum("amount"))["total"]
    return total or Decimal(0)


def _line(line: LedgerEntry, after: Decimal, proven: dict[Any, proofs.Proof]) -> dict[str, Any]:
    proof = proven.get(line.request_id) if line.request_id else None
    return present.entry(line) | {
        "balance_after": money.wire(after),
        "actor": line.actor,
        "request": None if proof is None else _proof(proof),
    }


def _lot(lot: statements.Lot) -> dict[str, Any]:
    return _grant(lot.grant) | {"remaining": money.wire(lot.remaining), "ended": lot.ended}


def _grant(grant: CreditGrant) -> dict[str, Any]:
    return {
        "grant_id": grant.public_id,
        "source": grant.source,
        "amount": money.wire(grant.amount),
        "effective_at": fields.instant(grant.effective_at),
        "expires_at": fields.instant(grant.expires_at),
    }


def _proof(proof: proofs.Proof) -> dict[str, Any]:
    row, price = proof.request, proof.price
    return {
        "request_id": row.request_id,
        "status": row.status,
        "meter_id": ids.public("prd", row.meter_id),
        "meter_slug": row.meter.slug,
        "model": row.model,
        "timestamp": fields.instant(row.timestamp),
        "late": row.late,
        "quantity": number(row.quantity),
        "position_before": number(row.position_before),
        "price_version": price.version,
        "rate_type": price.rate_type,
        "unit": price.unit,
        "fee": money.wire(row.fee),
        "provider_cost": money.wire(proof.provider_cost),
        "charged": money.wire(row.charged),
        "slices": [
            {
                "tier": part.tier,
                "quantity": number(part.quantity),
                "rate": money.wire(part.rate),
                "amount": money.wire(part.amount),
            }
            for part in proof.slices
        ],
        "draws": [
            {
                "grant_id": None if draw.grant is None else draw.grant.public_id,
                "amount": money.wire(draw.amount),
            }
            for draw in proof.draws
        ],
    }
