"""Codes by text message: send one, check one, and the limits on both. The sender is a setting.

A code is six digits from `secrets`, kept as an HMAC bound to whoever asked for it (a checkout
session or a visit to the portal) and to the phone, good for ten minutes, once; five wrong tries
burn it. `send` and `check` run inside the transaction of `checkout.sessions` or
`checkout.portal.visits`, which holds the asker's lock. The limits count both askers together. The
answer never depends on whether a number is known (trust.md, Codes).

Senders carry the live texts of billing's outbox; `PHONE_SENDER` names one by its dotted path.
"""

from __future__ import annotations

import base64
import hmac
import secrets
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db import connection as database
from django.db import transaction
from django.utils.crypto import salted_hmac
from django.utils.translation import gettext, ngettext

from billing import errors, hints, outbox, tasks
from billing.models import OutboxMessage
from checkout.models import CheckoutSession, PhoneVerification, PortalVisit

# Who sends a code: its row is locked by the caller.
Asker = CheckoutSession | PortalVisit

VALID_FOR = timedelta(minutes=10)
MOST_TRIES = 5
RESEND_AFTER = timedelta(seconds=30)
SENDER_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `most` codes in `window`."""

    most: int
    window: timedelta


PER_PHONE = Limit(5, timedelta(minutes=10))
PER_ADDRESS = Limit(10, timedelta(hours=1))
# Beyond this a merchant's page is being abused: each text costs money.
PER_MERCHANT = Limit(2000, timedelta(days=1))


def send(asker: Asker, *, phone: str, address: str | None, now: datetime) -> str:
    """Text a new code to `phone`; older codes of the asker stop working. Gives the code.

    `address` is the network address that asks; None (the sandbox's test helper) is not limited.

    Raises:
        billing.errors.Throttled: too soon or too many; nothing was sent.
    """
    if address is not None:
        _hold_limits(asker, phone=phone, address=address, now=now)
    asker.verifications.filter(consumed_at=None, expires_at__gt=now).update(expires_at=now)
    code = f"{secrets.randbelow(10**6):06d}"
    PhoneVerification(
        merchant=asker.merchant,
        **_asked_by(asker),
        phone=phone,
        code_hash=_code_hash(asker, phone, code),
        address=address,
        sent_at=now,
        expires_at=now + VALID_FOR,
    ).save()
    message = outbox.text(
        asker.merchant,
        to=phone,
        body=gettext("{code} is your code for {merchant}. It is valid for 10 minutes.").format(
            code=code, merchant=asker.merchant.name
        ),
        now=now,
    )
    if not asker.merchant.is_sandbox:
        transaction.on_commit(lambda: _wake(message))
    return code


def check(asker: Asker, *, code: str, now: datetime) -> bool:
    """Try a code. A right one is used up; a wrong one counts, also when many are tried at once.

    Gives False for a wrong code: the caller commits, so that the try is counted.

    Raises:
        billing.errors.Refused: there is no code to try: none sent, too old, used or burnt.
    """
    found: PhoneVerification | None = (
        asker.verifications.select_for_update(of=("self",))
        .filter(phone=asker.phone)
        .order_by("-sent_at", "-id")
        .first()
    )
    if found is None or found.consumed_at is not None or found.expires_at <= now:
        raise errors.Refused(
            gettext("That code is no longer valid. Send a new one."),
            code="code_expired",
            param="code",
        )
    if found.attempts >= MOST_TRIES:
        raise errors.Refused(
            gettext("Too many wrong codes. Send a new one."), code="code_burnt", param="code"
        )
    if not hmac.compare_digest(bytes(found.code_hash), _code_hash(asker, asker.phone, code)):
        found.attempts += 1
        found.save(update_fields=["attempts"])
        return False
    found.consumed_at = now
    found.save(update_fields=["consumed_at"])
    return True


def tries_left(asker: Asker) -> int:
    """How many wrong codes the last code sent still takes."""
    last = asker.verifications.order_by("-sent_at", "-id").first()
    return MOST_TRIES - last.attempts if last is not None else 0


def wrong(asker: Asker) -> errors.Refused:
    """The refusal of a wrong code, which says how many tries are left."""
    left = tries_left(asker)
    said = gettext("That is not the code we sent. Send a new one.")
    if left:
        said = ngettext(
            "That is not the code we sent. {count} try is left.",
            "That is not the code we sent. {count} tries are left.",
            left,
        ).format(count=left)
    return errors.Refused(said, code="wrong_code", param="code")


def resend_wait(asker: Asker, *, now: datetime) -> int:
    """Seconds until this asker may send another code; 0: now."""
    last = asker.verifications.order_by("-sent_at", "-id").first()
    if last is None:
        return 0
    left = (last.sent_at + RESEND_AFTER - now).total_seconds()
    return max(0, int(-(-left // 1)))


def _hold_limits(asker: Asker, *, phone: str, address: str, now: datetime) -> None:
    wait = resend_wait(asker, now=now)
    if wait:
        said = ngettext(
            "A code was just sent. You can ask for another in {count} second.",
            "A code was just sent. You can ask for another in {count} seconds.",
            wait,
        )
        raise errors.Throttled(said.format(count=wait), retry_after_s=wait)
    # Two askers of one phone or address take turns, in one order, so that none slips through.
    with database.cursor() as cursor:
        for key in sorted((f"{asker.merchant_id}:{phone}", f"{asker.merchant_id}:{address}")):
            cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [key])
    sent = PhoneVerification.objects.of(asker.merchant).filter(address__isnull=False)
    for rows, limit in (
        (sent.filter(phone=phone), PER_PHONE),
        (sent.filter(address=address), PER_ADDRESS),
        (sent, PER_MERCHANT),
    ):
        recent = rows.filter(sent_at__gt=now - limit.window).order_by("-sent_at")
        full = recent.values_list("sent_at", flat=True)[limit.most - 1 : limit.most]
        for moment in full:
            wait = int((moment + limit.window - now).total_seconds()) + 1
            raise errors.Throttled(_too_many(wait), retry_after_s=wait)


def _asked_by(asker: Asker) -> dict[str, Asker]:
    return {"session" if isinstance(asker, CheckoutSession) else "visit": asker}


def _too_many(wait_s: int) -> str:
    minutes = max(-(-wait_s // 60), 1)
    return ngettext(
        "Too many codes were sent. Try again in a minute.",
        "Too many codes were sent. Try again in {count} minutes.",
        minutes,
    ).format(count=minutes)


def _code_hash(asker: Asker, phone: str, code: str) -> bytes:
    return salted_hmac(
        "checkout.code", f"{asker.pk.hex}:{phone}:{code}", algorithm="sha256"
    ).digest()


def _wake(message: OutboxMessage) -> None:
    """Have a worker send it now; with the broker away the sweep finds it."""
    hints.wake(tasks.deliver_message, message.pk)


class OutboxSender:
    """Leaves texts in the outbox, where the console shows them. The default: nothing is set up."""

    # The row is where its reader finds the code: it stays there.
    is_read_here = True

    def send(self, *, to: str, body: str) -> None:
        """The row is the message; there is nobody to hand it to."""


class TwilioSender:
    """Sends texts through Twilio's Messages API, by plain HTTPS.

    Settings: TWILIO_ACCOUNT_SID, TWILIO_AUTH_TOKEN, and TWILIO_FROM, a number in E.164 or a
    messaging service (MG...). https://www.twilio.com/docs/messaging/api/message-resource
    """

    def __init__(self) -> None:
        self.base = getattr(settings, "TWILIO_API_BASE", "https://api.twilio.com")
        self.account = getattr(settings, "TWILIO_ACCOUNT_SID", "")
        self.token = getattr(settings, "TWILIO_AUTH_TOKEN", "")
        self.sender = getattr(settings, "TWILIO_FROM", "")

    def send(self, *, to: str, body: str) -> None:
        """Hand one text to Twilio.

        Raises:
            billing.errors.Unavailable: Twilio did not take it; the outbox keeps it and tries again.
        """
        who = "MessagingServiceSid" if self.sender.startswith("MG") else "From"
        login = base64.b64encode(f"{self.account}:{self.token}".encode()).decode()
        request = urllib.request.Request(  # noqa: S310 - the address is a setting
            f"{self.base}/2010-04-01/Accounts/{self.account}/Messages.json",
            data=urllib.parse.urlencode({"To": to, "Body": body, who: self.sender}).encode(),
            headers={"Authorization": f"Basic {login}"},
            method="POST",
        )
        try:
            with urllib.request.urlopen(request, timeout=SENDER_TIMEOUT_S) as answer:  # noqa: S310
                answer.read()
        except (urllib.error.URLError, TimeoutError, OSError) as error:
            raise errors.Unavailable("The text could not be handed over.") from error
