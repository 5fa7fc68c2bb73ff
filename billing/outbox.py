"""What we owe people in texts and mails: rows in the transaction of their cause, sent after it.

Any verb may call `text` and `mail`. The sandbox's messages are never sent: the console and
`GET /v1/test_helpers/outbox` show them. `deliver` is the worker's part.
"""

from __future__ import annotations

import re
from datetime import datetime
from email.utils import parseaddr
from uuid import UUID

import structlog
from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.db import transaction
from django.utils import timezone
from django.utils.module_loading import import_string

from billing import failpoints
from billing.models import Merchant, OutboxMessage

log = structlog.get_logger(__name__)

MOST_ATTEMPTS = 8
# A text that has reached its phone keeps no code here.
_CODE = re.compile(r"\b\d{6}\b")


def text(merchant: Merchant, *, to: str, body: str, now: datetime) -> OutboxMessage:
    """Owe a text message to the phone `to` (E.164)."""
    return _owe(merchant, OutboxMessage.Kind.TEXT, to=to, body=body, now=now)


def mail(
    merchant: Merchant, *, to: str, subject: str, body: str, now: datetime, html: str = ""
) -> OutboxMessage:
    """Owe a mail; `body` is its plain text, `html` the same for mail readers that show it."""
    return _owe(
        merchant, OutboxMessage.Kind.MAIL, to=to, subject=subject, body=body, html=html, now=now
    )


def deliver(message_id: UUID) -> bool:
    """Hand one live message to its sender, at most once at a time; gives whether it was handed.

    The row is locked while it is sent: a second worker passes by. A sender that fails leaves the
    row for the next sweep. Where a worker dies between the sending and the note of it, it is sent
    again: a mail under the same Message-ID, which mail readers show once.
    """
    with transaction.atomic():
        message: OutboxMessage | None = (
            OutboxMessage.objects.select_for_update(skip_locked=True, of=("self",))
            .select_related("merchant__organization")
            .filter(pk=message_id, sent_at=None, attempts__lt=MOST_ATTEMPTS)
            .first()
        )
        if message is None or message.merchant.is_sandbox:
            return False
        message.attempts += 1
        failpoints.at("message.taken")
        try:
            _send(message)
        except Exception as error:
            # The row stays owed; the reason goes to the log, never the text itself.
            log.warning("outbox_send_failed", message=str(message.pk), error=type(error).__name__)
        else:
            message.sent_at = timezone.now()
        failpoints.at("message.sent")
        message.save(update_fields=["attempts", "sent_at", "body"])
    failpoints.at("message.noted")
    return message.sent_at is not None


def _owe(merchant: Merchant, kind: str, *, now: datetime, **fields: str) -> OutboxMessage:
    message = OutboxMessage(merchant=merchant, kind=kind, created_at=now, **fields)
    message.save()
    return message


def _send(message: OutboxMessage) -> None:
    if message.kind == OutboxMessage.Kind.TEXT:
        sender = import_string(settings.PHONE_SENDER)()
        sender.send(to=message.to, body=message.body)
        if not getattr(sender, "is_read_here", False):
            message.body = _CODE.sub("******", message.body)
        return
    domain = parseaddr(settings.DEFAULT_FROM_EMAIL)[1].rpartition("@")[2]
    mail_message = EmailMultiAlternatives(
        subject=message.subject,
        body=message.body,
        from_email=f"{message.merchant.name} <{settings.DEFAULT_FROM_EMAIL}>",
        to=[message.to],
        headers={"Message-ID": f"<{message.pk}@{domain}>"},
    )
    if message.html:
        mail_message.attach_alternative(message.html, "text/html")
    mail_message.send()
