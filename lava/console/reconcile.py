"""Reconcile: the books' sums side by side, the differences with the card network, their mends.

A run is a job (`lava.reconciling`); its page may be left and found again. It reads only; mending is
a click of its own, which looks at both sides anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.db import transaction
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.urls import URLPattern, path
from django.utils import timezone
from django.views.decorators.http import require_POST

from billing import errors, ids, money, reconciliations
from billing import reconcile as network
from billing.models import Merchant, Payment, Reconciliation, Refund
from lava import reconciling, tasks
from lava.console import access, moments, trail

PAST = 10
ZERO = Decimal(0)
State = Reconciliation.State


@dataclass(frozen=True, slots=True)
class Words:
    """A kind of gap in a merchant's words: what happened, the button, what changes, what does not.

    `{amount}` is what the network has, else what we have.
    """

    title: str
    story: str
    verb: str
    changes: tuple[tuple[str, str, str], ...]


WORDS: dict[str, Words] = {
    "not_settled": Words(
        "{amount} that Stripe took is not in the books",
        "The card was charged, and its message never reached us. The customer has paid and lacks "
        "what they paid for.",
        "Enter the missing {amount}",
        (
            ("Payment", "not settled", "paid"),
            ("Credit of the customer", "not given", "given, dated now"),
            ("Money at Stripe", "{amount}", "does not move"),
        ),
    ),
    "not_ours": Words(
        "Stripe took {amount} for a payment that is not in these books",
        "The payment carries our id, but no such row is here. Were the books restored from a "
        "backup? Restore the row, or refund the payment in Stripe’s dashboard.",
        "",
        (),
    ),
    "not_paid": Words(
        "{amount} is in the books as paid; Stripe does not have it",
        "The customer got credit for a payment that Stripe does not know as paid.",
        "Mark the payment to be looked at",
        (("Payment", "paid", "paid, marked to be looked at"), ("Credit", "given", "stays")),
    ),
    "amounts_differ": Words(
        "Stripe took {amount}, the books have another amount",
        "Both sides have the payment, with different amounts.",
        "Mark the payment to be looked at",
        (("Payment", "as entered", "marked to be looked at"), ("Credit", "given", "stays")),
    ),
    "refund_not_entered": Words(
        "{amount} that Stripe gave back is not in the books",
        "Somebody refunded it in Stripe’s dashboard, or the message about it never reached us.",
        "Enter the refund of {amount}",
        (
            ("Refund", "missing", "entered"),
            ("Credit the payment gave", "left with the customer", "taken back, dated now"),
            ("Money at Stripe", "gone back", "does not move"),
        ),
    ),
    "refund_not_made": Words(
        "{amount} is in the books as given back; Stripe does not have it",
        "The customer waits for money that Stripe did not send.",
        "Mark the refund to be looked at",
        (("Refund", "refunded", "marked to be looked at"),),
    ),
    "refund_amounts_differ": Words(
        "Stripe gave {amount} back, the books have another amount",
        "Both sides have the refund, with different amounts.",
        "Mark the refund to be looked at",
        (("Refund", "as entered", "marked to be looked at"),),
    ),
    "dispute_not_entered": Words(
        "A dispute of {amount} is not in the books as the bank has it",
        "The bank’s message about it never reached us.",
        "Enter the dispute",
        (
            ("Dispute", "missing or old", "as the bank has it"),
            ("Credit the payment gave", "left with the customer", "as the dispute stands"),
        ),
    ),
}


@access.requires("billing.view_reconciliation")
def page(request: access.ConsoleRequest) -> HttpResponse:
    """`/console/reconcile`: the last run, its gaps, its checks, the runs before; POST asks anew."""
    if request.method == "POST":
        return ask(request)
    rows = Reconciliation.objects.of(request.merchant).order_by("-id")
    asked = request.GET.get("run", "")
    past = list(rows[:PAST])
    last = next((row for row in past if row.state not in Reconciliation.OPEN), None)
    if asked:
        last = _find(request.merchant, asked)
    under_way = next((row for row in past if row.state in Reconciliation.OPEN), None)
    return render(request, "console/reconcile.html", _context(request.merchant, last) | {
        "run": last,
        "under_way": under_way,
        "past": [told(row) for row in past if row.state not in Reconciliation.OPEN],
        "window": reconciling.WINDOW.days,
        "zone": request.merchant.time_zone,
        "currency": request.merchant.currency,
    })  # fmt: skip


@access.requires("billing.change_reconciliation")
def ask(request: access.ConsoleRequest) -> HttpResponse:
    """Ask for a run of the last days, or of everything."""
    now = timezone.now()
    since = None if request.POST.get("all") else now - reconciling.WINDOW
    with transaction.atomic():
        row = reconciliations.ask(request.merchant, since=since, now=now, actor=str(request.user))
        trail.record(
            request,
            "gap.looked_for",
            after={"since": since.date().isoformat() if since else "the beginning"},
        )
    tasks.hint(row.pk)
    return redirect("/console/reconcile")


@access.requires("billing.change_reconciliation")
@require_POST
def mend(request: access.ConsoleRequest, key: str, place: int) -> HttpResponse:
    """Mend one gap, which looks at both sides anew; pressed twice it is mended once."""
    row = _find(request.merchant, key)
    now = timezone.now()
    try:
        gap = reconciliations.gap_of(row, place)
        if not WORDS[gap.kind].verb:
            raise errors.Refused("Only a person can mend this, at Stripe or in the database.")
        done = reconciling.mend(gap)
    except errors.NotFound:
        messages.info(request, "That gap is mended already.")
    except errors.LavaError as error:
        messages.error(request, f"Not mended: {error.message}")
    else:
        entered = gap.mend == "settle"
        with transaction.atomic():
            reconciliations.note_mend(
                row, place, actor=str(request.user), left=not (done and entered), now=now
            )
            trail.record(
                request,
                "gap.mended",
                name=_title(gap.kind, row.gaps[place]),
                after={"kind": gap.kind, "ours": gap.ours, "theirs": gap.theirs},
            )
        if entered and done:
            messages.success(request, "Entered. The next run will find both sides equal.")
        elif entered:
            messages.info(request, "It had been entered meanwhile: both sides agree.")
        else:
            messages.success(request, "Marked. It stands under Needs you until somebody looks.")
    return redirect(f"/console/reconcile?run={row.public_id}")


def open_gaps(merchant: Merchant) -> int:
    """How many gaps of the last run nobody has mended; for the sidebar and the front page."""
    row = (
        Reconciliation.objects.of(merchant)
        .filter(state=State.DONE)
        .order_by("-id")
        .only("gaps")
        .first()
    )
    return len(row.open_gaps) if row is not None else 0


def _find(merchant: Merchant, key: str) -> Reconciliation:
    try:
        found: Reconciliation = (
            Reconciliation.objects.of(merchant).select_related("merchant").by_public_id(key)
        )
    except errors.NotFound as error:
        raise Http404 from error
    return found


def _context(merchant: Merchant, row: Reconciliation | None) -> dict[str, Any]:
    if row is None:
        return {}
    checks = [_check(check) for check in row.checks]
    return {
        "checks": checks,
        "holding": sum(1 for check in checks if check["holds"]),
        "gaps": _gaps(merchant, row),
        "tiles": _tiles(checks),
        "took": _took(row),
    }


def _check(stored: dict[str, Any]) -> dict[str, Any]:
    first, second = Decimal(stored["first"]), Decimal(stored["second"])
    return stored | {
        "first": first,
        "second": second,
        "drift": first - second,
        "holds": first == second and not stored["off"],
    }


def _tiles(checks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The four sides: ledger, grants, usage, Stripe; each with its drift."""
    sides = (
        ("Balances", "Balances and ledger", "entries"),
        ("Credit left", "Grants and ledger", "grants"),
        ("Usage", "Usage and ledger", "requests"),
        ("Stripe", "Stripe and payments", "payments"),
    )
    by_sides = {check["sides"]: check for check in checks}
    return [
        {"name": name, "noun": noun, "check": by_sides[key]}
        for name, key, noun in sides
        if key in by_sides
    ]


def _gaps(merchant: Merchant, row: Reconciliation) -> list[dict[str, Any]]:
    """The gaps with their words, and whose they are."""
    people = {
        str(payment.pk): payment
        for payment in Payment.objects.of(merchant)
        .filter(pk__in=[gap["payment"] for gap in row.gaps if gap["payment"]])
        .select_related("connection__customer", "plan", "bundle")
    }
    found = []
    for place, gap in enumerate(row.gaps):
        words = WORDS[gap["kind"]]
        amount = _amount(gap)
        refund = ids.public(Refund.ID_PREFIX, UUID(gap["refund"])) if gap["refund"] else ""
        found.append(
            gap
            | {
                "place": place,
                "title": words.title.format(amount=amount),
                "story": words.story,
                "button": words.verb.format(amount=amount),
                "changes": [
                    tuple(part.format(amount=amount) for part in line) for line in words.changes
                ],
                "payment_row": people.get(gap["payment"]),
                "refund_id": refund,
                "mended_on": datetime.fromisoformat(gap["mended_at"])
                if gap.get("mended_at")
                else None,
            }
        )
    return found


def _amount(gap: dict[str, Any]) -> str:
    text = gap["their_amount"] or gap["our_amount"]
    return money.display(Decimal(text), gap["currency"]) if text is not None else "an amount"


def _title(kind: str, gap: dict[str, Any]) -> str:
    return WORDS[kind].title.format(amount=_amount(gap))


def told(row: Reconciliation) -> dict[str, Any]:
    """A past run in a line."""
    mended = [gap for gap in row.gaps if gap.get("mended_at")]
    drift = sum(
        (
            abs(Decimal(gap["their_amount"] or 0) - Decimal(gap["our_amount"] or 0))
            for gap in row.gaps
        ),
        ZERO,
    )
    words = "Nothing to mend"
    if row.state == State.FAILED:
        words = row.error
    elif row.gaps and len(mended) == len(row.gaps):
        words = f"By {mended[-1]['mended_by']}"
    elif row.gaps:
        words = "Not yet" if not mended else f"{len(mended)} of {len(row.gaps)}"
    return {"row": row, "took": _took(row), "drift": drift, "mended": words}


def _took(row: Reconciliation) -> str:
    if row.finished_at is None or row.started_at is None:
        return ""
    seconds = (row.finished_at - row.started_at).total_seconds()
    return f"{seconds:.0f} s" if seconds < 60 else moments.span(row.finished_at - row.started_at)


assert set(WORDS) == set(network.KINDS), "every kind of gap has its words"

urls: list[URLPattern] = [
    path("reconcile", page, name="reconcile"),
    path("reconcile/<str:key>/<int:place>/mend", mend, name="reconcile-mend"),
]
