"""Credits given or taken by hand: typed, then shown as now, after and ledger lines, then done.

Above the limit of the business a second person is asked instead. Sent twice it is done or asked
once: the page says how many such acts it has seen, and its key. Calls `billing.approvals`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from django.contrib import messages
from django.db import transaction
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import URLPattern, path

from billing import approvals, credits, errors, ledger, money
from billing.models import Connection, CreditGrant, LedgerEntry
from lava.console import access, connections, dry_runs, second_person, trail, typed
from lava.console.rates import symbol

ZERO = Decimal(0)


def _given(connection: Connection) -> int:
    """How many times credits were given to a connection by hand."""
    rows = CreditGrant.objects.filter(connection=connection, source=CreditGrant.Source.MANUAL)
    return int(rows.count())


def _taken(connection: Connection) -> int:
    """How many lines of credits taken by hand a connection has."""
    rows = LedgerEntry.objects.filter(connection=connection, kind=LedgerEntry.Kind.ADJUST)
    return int(rows.exclude(actor="").count())


@dataclass(frozen=True, slots=True)
class Act:
    """Giving or taking, in its words."""

    word: str
    done: str
    action: str
    seen: Callable[[Connection], int]
    changed: str
    reason: str


GIVE = Act(
    word="give",
    done="given",
    action="credits.given",
    seen=_given,
    changed="Credits were given since this page was shown. Look at the balance and confirm again "
    "if these are to be added.",
    reason="Say why the credits are given.",
)
TAKE = Act(
    word="take",
    done="taken",
    action="credits.taken",
    seen=_taken,
    changed="Credits were taken since this page was shown. Look at the balance and confirm again "
    "if these are to go too.",
    reason="Say why the credits are taken.",
)


@access.requires("billing.change_connection")
def give(request: access.ConsoleRequest, key: str) -> HttpResponse:
    """Give credits by hand."""
    return _page(request, key, GIVE)


@access.requires("billing.change_connection")
def take(request: access.ConsoleRequest, key: str) -> HttpResponse:
    """Take credits by hand; only what is there."""
    return _page(request, key, TAKE)


def _page(request: access.ConsoleRequest, key: str, act: Act) -> HttpResponse:
    merchant = request.merchant
    connection = connections.find(merchant, key)
    now, zone = merchant.now(), merchant.time_zone
    form = typed.Form.read(request.POST.dict())
    amount, ready, second = ZERO, False, False
    lines: list[dry_runs.Line] = []
    seen = act.seen(connection)
    if request.method == "POST":
        amount = _amount(form, act)
        if not form.problems and form.text("step") == act.word:
            answer = _do(request, connection, act, form, amount, now=now)
            if answer is not None:
                return answer
        if not form.problems or "form" in form.problems:
            try:
                wish = _wish(connection, act, form, amount)
                lines = second_person.lines(wish, actor=str(request.user), now=now, zone=zone)
                second = approvals.needed(request.organization, wish, now=now)
                ready = True
            except errors.LavaError as error:
                form.refuse(error)
    balance = credits.balance(connection, now=now)
    return render(
        request,
        "console/connections/adjust.html",
        {
            "connection": connection,
            "act": act,
            "form": form,
            "ready": ready,
            "amount": amount,
            "lines": lines,
            "balance": balance,
            "after": after(balance, connection, amount, word=act.word, now=now),
            "second": second,
            "key": form.text("key") or secrets.token_urlsafe(12),
            "seen": seen,
            "currency": connection.currency,
            "symbol": symbol(connection.currency),
        },
        status=422 if form.problems else 200,
    )


def _amount(form: typed.Form, act: Act) -> Decimal:
    amount = form.amount("amount")
    if "amount" not in form.problems and not amount > 0:
        form.problems["amount"] = f"{act.word.capitalize()} an amount above 0."
    if not form.text("reason"):
        form.problems["reason"] = act.reason
    elif len(form.text("reason")) > 255:
        form.problems["reason"] = "Use at most 255 characters."
    if len(form.text("key")) > 64:
        form.problems["form"] = "Load the page anew."
    return amount


def after(
    balance: credits.Balance, connection: Connection, amount: Decimal, *, word: str, now: datetime
) -> dict[str, Decimal]:
    """What a connection has once credits are given or taken."""
    if word == TAKE.word:
        cycle, rest = ZERO, amount
        for lot in credits.in_order(connection, now=now):
            part = min(rest, lot.remaining)
            rest -= part
            cycle += part if lot.pool == CreditGrant.Pool.CYCLE else ZERO
        return {
            "total": balance.total - amount,
            "cycle": balance.cycle - cycle,
            "bundle": balance.bundle - (amount - cycle),
            "debt": balance.debt,
        }
    paid = min(connection.debt - connection.collecting, amount)
    return {
        "total": balance.total + amount,
        "cycle": balance.cycle,
        "bundle": balance.bundle + amount - paid,
        "debt": balance.debt - paid,
    }


def _wish(connection: Connection, act: Act, form: typed.Form, amount: Decimal) -> approvals.Wish:
    return approvals.Wish(
        act=act.word,
        connection=connection,
        amount=money.round_fee(amount),
        reason=form.text("reason"),
    )


def _do(
    request: access.ConsoleRequest,
    connection: Connection,
    act: Act,
    form: typed.Form,
    amount: Decimal,
    *,
    now: datetime,
) -> HttpResponse | None:
    """Do what was shown, or ask a second person, if no such act came in between."""
    try:
        with transaction.atomic():
            locked = ledger.lock(connection.pk, merchant_id=connection.merchant_id)
            if str(act.seen(locked)) != form.text("given"):
                form.problems["form"] = act.changed
                return None
            wish = _wish(locked, act, form, amount)
            if approvals.needed(request.organization, wish, now=now):
                return second_person.ask(request, wish, form)
            approvals.act(locked, wish, actor=str(request.user), key="", now=now)
            trail.record(
                request,
                act.action,
                connection,
                after={"amount": typed.plain(amount, places=2), "reason": form.text("reason")},
            )
    except errors.LavaError as error:
        form.refuse(error)
        return None
    messages.success(request, f"{money.display(amount, connection.currency)} {act.done}.")
    return redirect(f"/console/connections/{connection.public_id}")


urls: list[URLPattern] = [
    path("connections/<str:key>/give-credits", give, name="connection-give"),
    path("connections/<str:key>/take-credits", take, name="connection-take"),
]
