"""Where a merchant's cards are charged: its own Stripe keys, or its account under Stripe Connect.

Each of an organization's two merchants (live, sandbox) may have one `CardAccount`; without one the
installation's keys of that mode charge its cards. Keys are sealed at rest, shown to nobody, and
never logged. They cannot change while a payment or refund is open: its answer would be asked for
in the wrong account. Another account knows neither our customers nor their cards, so both are asked
for again. Called by the console's settings.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from billing import errors, events, ids, payments, secrets, stripe
from billing.models import CardAccount, Customer, Merchant, Payment, PaymentMethod, Refund

_SECRET = re.compile(r"(?:sk|rk)_(live|test)_[A-Za-z0-9_]{1,240}")
_PUBLISHABLE = re.compile(r"pk_(live|test)_[A-Za-z0-9_]{1,240}")
_WEBHOOK = re.compile(r"whsec_[A-Za-z0-9_+/=-]{1,240}")
_ACCOUNT = re.compile(r"acct_[A-Za-z0-9]{1,58}")
# A checkout lives a day: a payment begun there and never finished is withdrawn after it.
_ABANDONED = timedelta(days=1)


def set_keys(
    merchant: Merchant, *, secret_key: str, publishable_key: str, webhook_secret: str, actor: str
) -> CardAccount:
    """Charge a merchant's cards with its own keys from now on. The network is asked first whether
    it accepts them.

    Raises:
        billing.errors.Invalid: a key that cannot be one, or of the other mode; `param` says which.
        billing.errors.Refused: the network does not accept them (`keys_not_accepted`).
        billing.errors.Conflict: a payment or refund is open (`payments_open`).
        billing.errors.CardUnknown: the network does not answer; nothing was changed.
    """
    mode = "test" if merchant.is_sandbox else "live"
    for param, pattern, text in (
        ("secret_key", _SECRET, secret_key),
        ("publishable_key", _PUBLISHABLE, publishable_key),
    ):
        found = pattern.fullmatch(text)
        if found is None:
            raise errors.Invalid(f"That is no {param.replace('_', ' ')} of Stripe.", param=param)
        if found[1] != mode:
            raise errors.Invalid(
                f"That is a {found[1]} key; these books need a {mode} key.", param=param
            )
    if not _WEBHOOK.fullmatch(webhook_secret):
        raise errors.Invalid(
            "That is no signing secret of a Stripe webhook (whsec_...).", param="webhook_secret"
        )
    try:
        account = stripe.account_id(stripe.Credentials(secret_key, publishable_key))
    except (errors.Unavailable, errors.Refused) as error:
        raise errors.Refused(
            "Stripe does not accept this secret key.", code="keys_not_accepted", param="secret_key"
        ) from error
    return _replace(
        merchant,
        actor=actor,
        secret_key=secrets.seal(secret_key),
        publishable_key=publishable_key,
        webhook_secret=secrets.seal(webhook_secret),
        account_id=account,
        is_connected=False,
        hint=secrets.last4(secret_key),
    )


def connect(merchant: Merchant, *, account_id: str, actor: str) -> CardAccount:
    """Charge a merchant's cards in its account under Stripe Connect, with the installation's keys.

    Raises:
        billing.errors.Invalid: no account id.
        billing.errors.Refused: our keys may not act for it (`keys_not_accepted`).
        billing.errors.Conflict, CardUnknown: as `set_keys`.
    """
    if not _ACCOUNT.fullmatch(account_id):
        raise errors.Invalid("That is no account of Stripe (acct_...).", param="account_id")
    ours = stripe.installation_credentials(merchant)
    try:
        acted = stripe.Credentials(ours.secret_key, ours.publishable_key, account_id)
        found = stripe.account_id(acted)
    except (errors.Unavailable, errors.Refused) as error:
        raise errors.Refused(
            "Stripe does not let this installation act for that account.",
            code="keys_not_accepted",
            param="account_id",
        ) from error
    return _replace(
        merchant,
        actor=actor,
        secret_key=b"",
        publishable_key="",
        webhook_secret=b"",
        account_id=found,
        is_connected=True,
        hint="",
    )


def remove(merchant: Merchant, *, actor: str) -> None:
    """Go back to the installation's keys. Raises Conflict, CardUnknown as `set_keys`."""
    if CardAccount.objects.of(merchant).exists():
        _replace(merchant, actor=actor)


def _replace(merchant: Merchant, *, actor: str, **fields: Any) -> CardAccount:
    """Put another account (or none) in the place of the present one."""
    if not actor.strip():
        raise errors.Invalid("Say who changes the keys.", param="actor")
    before = _account_now(merchant)
    after = fields.get("account_id") or _installation_account(merchant)
    _withdraw_abandoned(merchant)
    with transaction.atomic():
        # Whoever intends a payment meanwhile reads its customer and card after us.
        Merchant.objects.select_for_update().get(pk=merchant.pk)
        _refuse_while_open(merchant)
        if before != after:
            Customer.objects.of(merchant).update(card_customer_id="")
            PaymentMethod.objects.of(merchant).filter(detached_at=None).update(
                detached_at=merchant.now(), is_default=False
            )
        row = CardAccount.objects.of(merchant).first() or CardAccount(merchant=merchant)
        if not fields:
            row.delete()
        else:
            for name, value in fields.items():
                setattr(row, name, value)
            row.changed_by, row.changed_at = actor.strip()[:255], timezone.now()
            row.save()
        events.record(
            merchant,
            "merchant.card_account_changed",
            now=merchant.now(),
            actor=actor.strip()[:255],
            account_before=before,
            account=after,
            cards_asked_again=before != after,
        )
    return row


def _refuse_while_open(merchant: Merchant) -> None:
    count = Payment.objects.of(merchant).filter(status__in=Payment.OPEN).count()
    count += Refund.objects.of(merchant).filter(status__in=Refund.OPEN).count()
    if count:
        raise errors.Conflict(
            f"{count} payments or refunds are open: their answers would be lost. Try again when "
            "they are settled.",
            code="payments_open",
        )


def _withdraw_abandoned(merchant: Merchant) -> None:
    """Payments begun at a checkout that is over, and never finished."""
    rows = Payment.objects.of(merchant).filter(status__in=Payment.OPEN, off_session=False)
    for payment in rows.select_related("merchant__organization"):
        if timezone.now() - ids.made_at(payment.pk) > _ABANDONED:
            payments.withdraw(payment, now=merchant.now())


def _account_now(merchant: Merchant) -> str:
    row = CardAccount.objects.of(merchant).first()
    return row.account_id if row is not None else _installation_account(merchant)


def _installation_account(merchant: Merchant) -> str:
    """The account of the installation's keys; empty where there are none."""
    try:
        return stripe.account_id(stripe.installation_credentials(merchant))
    except (errors.Unavailable, errors.Refused):
        return ""
