"""The steps up to the payment: make a session, find it, confirm the phone, choose.

Each step goes through `step`: the session's row is locked, state and nonce are checked, what was
done is saved with a new nonce, in one transaction.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils.translation import gettext

from billing import connections, errors
from billing.models import Connection, CreditBundle, Merchant, Plan
from checkout import origins, phones
from checkout.models import LIFETIME, SECRET_PREFIX, CheckoutSession, new_nonce

Mode = CheckoutSession.Mode
State = CheckoutSession.State

# A confirmed phone opens the saved card; left alone for an hour it is asked for again.
CONFIRMED_FOR = timedelta(hours=1)


def create(
    merchant: Merchant,
    *,
    mode: str,
    origin_url: str,
    return_url: str | None = None,
    connection: Connection | None = None,
    plan: Plan | None = None,
    bundle: CreditBundle | None = None,
    now: datetime,
) -> CheckoutSession:
    """Make a session good for 24 hours; plan, bundle and connection are the merchant's own.

    Raises:
        billing.errors.Invalid: an origin or address that is refused, or a field the mode needs.
        billing.errors.Conflict: the plan or bundle is no longer offered.
    """
    origin = origins.exact(origin_url)
    if mode == Mode.SUBSCRIPTION:
        if plan is None:
            raise errors.Invalid(
                "`subscription_config_id` is missing.", param="subscription_config_id"
            )
        if plan.archived_at is not None:
            raise errors.Conflict("That plan is archived.", param="subscription_config_id")
    else:
        plan = None
    if mode == Mode.CREDIT_BUNDLE:
        if bundle is None:
            raise errors.Invalid("`credit_bundle_id` is missing.", param="credit_bundle_id")
        if bundle.deleted_at is not None:
            raise errors.Conflict("That bundle is no longer sold.", param="credit_bundle_id")
    else:
        bundle = None
    price = plan.price if plan is not None else bundle.cost if bundle is not None else None
    session = CheckoutSession(
        merchant=merchant,
        mode=mode,
        origin_url=origin,
        return_url=origins.within(return_url, origin) if return_url else "",
        connection=connection,
        connection_is_given=connection is not None,
        plan=plan,
        bundle=bundle,
        amount=price,
        created_at=now,
        expires_at=now + LIFETIME,
    )
    session.save()
    return session


def create_confirmed(connection: Connection, *, now: datetime, **terms: Any) -> CheckoutSession:
    """As `create`, for a customer whose phone was confirmed just now at the portal: they are not
    asked again. Whoever gets the session's address has what that code opened."""
    with transaction.atomic():
        session = create(connection.merchant, connection=connection, now=now, **terms)
        session.phone = connection.customer.phone
        session.state = State.VERIFIED
        session.verified_at = now
        session.save()
    return session


def by_secret(secret: str) -> CheckoutSession:
    """The session of a page's address, as it stands on its merchant's clock.

    Raises:
        billing.errors.NotFound: no such session.
    """
    known = secret.startswith(SECRET_PREFIX) and secret.isascii() and len(secret) <= 64
    session = CheckoutSession.objects.by_secret(secret) if known else None
    if session is None:
        raise errors.NotFound("There is no such checkout.")
    now = session.merchant.now()
    if session.is_under_way and session.expires_at <= now:
        session.state = State.EXPIRED
    elif session.state == State.VERIFIED and session.verified_at + CONFIRMED_FOR <= now:
        session = _reopen(session)
    return session


def send_code(
    session: CheckoutSession,
    *,
    nonce: str,
    now: datetime,
    address: str | None,
    phone: str | None = None,
) -> CheckoutSession:
    """Text a code to `phone` (E.164), or again to the phone of the step; a given connection's
    customer is texted at their own number, whatever was sent.

    Raises:
        billing.errors.Throttled: too soon or too many.
        billing.errors.Invalid: no phone was named.
    """
    with step(session, nonce=nonce, now=now, expect=(State.OPEN, State.PHONE_SENT)) as locked:
        send(locked, phone=phone, address=address, now=now)
    return locked


def verify_code(
    session: CheckoutSession, *, code: str, nonce: str, now: datetime
) -> CheckoutSession:
    """Confirm the phone with the code that was sent; who they are is known from here on.

    Raises:
        billing.errors.Refused: `wrong_code` (counted), or no code to try any more.
    """
    with step(session, nonce=nonce, now=now, expect=(State.PHONE_SENT,)) as locked:
        right = phones.check(locked, code=code, now=now)
        if right:
            confirm(locked, now=now)
    if not right:
        raise phones.wrong(locked)
    return locked


def restart(session: CheckoutSession, *, nonce: str, now: datetime) -> CheckoutSession:
    """Go back to the phone: another number, or another person. Not once a payment was begun."""
    expect = (State.OPEN, State.PHONE_SENT, State.VERIFIED)
    with step(session, nonce=nonce, now=now, expect=expect) as locked:
        forget_phone(locked)
    return locked


def choose_bundle(
    session: CheckoutSession, *, bundle_id: UUID | None, nonce: str, now: datetime
) -> CheckoutSession:
    """Choose a bundle of the customer's plan in a top-up; None takes the choice back.

    Raises:
        billing.errors.Invalid: not a bundle of their plan.
    """
    with step(session, nonce=nonce, now=now, expect=(State.VERIFIED,)) as locked:
        if locked.mode != Mode.TOPUP:
            raise errors.Conflict("This checkout has no packs to choose.", code="step_skipped")
        _take_bundle(locked, bundle_id)
    return locked


@contextmanager
def step(
    session: CheckoutSession, *, nonce: str, now: datetime, expect: tuple[State, ...]
) -> Iterator[CheckoutSession]:
    """Lock the session for one step and save what the step did, with a new nonce."""
    with transaction.atomic():
        locked = lock(session, nonce=nonce, now=now, expect=expect)
        before = locked.state, locked.bundle_id
        yield locked
        if (locked.state, locked.bundle_id) != before:
            locked.nonce = new_nonce()
        locked.save()


def lock(
    session: CheckoutSession, *, nonce: str, now: datetime, expect: tuple[State, ...]
) -> CheckoutSession:
    """The session's row, locked, if it stands where `expect` says and `nonce` is its form's.

    Raises:
        billing.errors.Gone: completed or expired.
        billing.errors.Conflict: `step_skipped`, or `stale_page`.
    """
    locked: CheckoutSession = CheckoutSession.objects.locked(session.pk)
    if locked.state == State.COMPLETED:
        raise errors.Gone("This checkout is completed.", code="already_completed")
    if locked.state == State.EXPIRED or locked.expires_at <= now:
        raise errors.Gone("This checkout has expired. Nothing was charged.", code="expired")
    if locked.state not in expect:
        raise errors.Conflict("That step comes at another time.", code="step_skipped")
    # After the point: what the page took the session for (`paying.form_nonce`).
    if not hmac.compare_digest(locked.nonce.encode(), nonce.partition(".")[0].encode()):
        raise errors.Conflict("That page was out of date.", code="stale_page")
    return locked


def send(locked: CheckoutSession, *, phone: str | None, address: str | None, now: datetime) -> str:
    """Within a step: text a code; gives it."""
    if locked.connection_is_given and locked.buyer.customer.phone:
        phone = locked.buyer.customer.phone
    elif not phone:
        phone = locked.phone
    if not phone:
        raise errors.Invalid(gettext("Enter your phone number."), param="phone")
    code = phones.send(locked, phone=phone, address=address, now=now)
    locked.phone = phone
    locked.state = State.PHONE_SENT
    return code


def confirm(locked: CheckoutSession, *, now: datetime) -> None:
    """Within a step: the phone is theirs; know the customer by it."""
    if not locked.connection_is_given:
        locked.connection = connections.identify(locked.merchant, phone=locked.phone, now=now)
    elif not locked.buyer.customer.phone:
        connections.take_phone(locked.buyer, phone=locked.phone)
    locked.state = State.VERIFIED
    locked.verified_at = now


def forget_phone(locked: CheckoutSession) -> None:
    """Within a step: start again, with nobody known."""
    if not locked.connection_is_given:
        locked.connection = None
    if locked.mode == Mode.TOPUP:
        locked.bundle = locked.amount = None
    locked.state = State.OPEN
    locked.phone = ""
    locked.verified_at = None


def _reopen(session: CheckoutSession) -> CheckoutSession:
    """Ask for the phone again: it was confirmed too long ago."""
    with transaction.atomic():
        locked: CheckoutSession = CheckoutSession.objects.locked(session.pk)
        if locked.state == State.VERIFIED:
            forget_phone(locked)
            locked.nonce = new_nonce()
            locked.save()
    return locked


def _take_bundle(locked: CheckoutSession, bundle_id: UUID | None) -> None:
    if bundle_id is None:
        locked.bundle = locked.amount = None
        return
    current = locked.buyer.subscription
    found = current.plan.live_bundles.filter(pk=bundle_id, cost__gt=0).first() if current else None
    if found is None:
        raise errors.Invalid(gettext("Choose one of the packs."), param="bundle")
    locked.bundle, locked.amount = found, found.cost
