"""Mails about requests for a second person: to those who may decide, and back to who asked.

Called by `billing.approvals`, in the transaction of the request or its decision. They go to the
team, so they are plain text and English, and of the sandbox kept in its outbox.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from django.conf import settings

from billing import locales, outbox
from billing.models import Approval, Membership


def asked(row: Approval, members: Iterable[Membership], *, now: datetime) -> None:
    """Tell those who may decide that somebody waits for them."""
    until = locales.day(row.expires_at, row.merchant.time_zone, year=True)
    for member in members:
        _mail(
            row,
            to=member.user.email,
            subject=f"Approve or refuse: {row}",
            lines=(
                f"{row.asked_name} asks for a second person. {row}.",
                f"Why: {row.reason}",
                f"Approve or refuse it: {_address(row)}",
                f"It waits until {until}; another person may have decided before you.",
            ),
            now=now,
        )


def decided(row: Approval, *, now: datetime) -> None:
    """Tell who asked what became of it."""
    approved = row.state == Approval.State.APPROVED
    word = "approved" if approved else "refused"
    lines = [f"{row.decided_name} {word} what you asked for. {row}."]
    lines.append("It is done." if approved else f"Why: {row.answer}")
    lines.append(f"See it: {_address(row)}")
    _mail(
        row,
        to=row.asked_by.email,
        subject=f"{word.capitalize()}: {row}",
        lines=lines,
        now=now,
    )


def _address(row: Approval) -> str:
    return f"{settings.LAVA_BASE_URL}/console/approvals/{row.public_id}"


def _mail(row: Approval, *, to: str, subject: str, lines: Iterable[str], now: datetime) -> None:
    outbox.mail(
        row.merchant,
        to=to,
        subject=subject[:200],
        body="\n\n".join(["Hello,", *lines]) + "\n",
        now=now,
    )
