"""What refunds and credits by hand share: the lines an act would write, and asking for it.

Called by `adjustments`, `refunds` and `approvals`; calls `billing.approvals`.
"""

from __future__ import annotations

import secrets
from datetime import datetime

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect
from django.utils import timezone

from billing import approvals
from lava.console import access, dry_runs, trail, typed


def lines(wish: approvals.Wish, *, actor: str, now: datetime, zone: str) -> list[dry_runs.Line]:
    """The lines an act would write; of a refund its intent, before the network is asked.

    Raises:
        billing.errors.LavaError: what the act itself refuses.
    """
    key = f"preview:{secrets.token_hex(8)}"
    return dry_runs.lines(
        wish.connection,
        lambda locked: approvals.act(locked, wish, actor=actor, key=key, now=now),
        zone=zone,
    )


def ask(request: access.ConsoleRequest, wish: approvals.Wish, form: typed.Form) -> HttpResponse:
    """Ask for a second person, in the transaction that found that one is needed.

    Raises:
        billing.errors.LavaError: what the act itself refuses: nobody is asked for what cannot be.
    """
    merchant, at = request.merchant, timezone.now()
    lines(wish, actor=str(request.user), now=merchant.now(), zone=merchant.time_zone)
    key = form.text("key") or secrets.token_urlsafe(12)
    row = approvals.ask(wish, by=request.user, key=f"console:{key}", at=at)
    if row.asked_at == at:
        trail.record(
            request,
            "approval.asked",
            row,
            after={"amount": typed.plain(row.amount, places=2), "reason": row.reason},
        )
    messages.info(request, "Asked. Nothing moves until another person approves it.")
    return redirect(f"/console/approvals/{row.public_id}")
