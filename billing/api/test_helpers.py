"""Test helpers, for test keys alone: the sandbox's clock, and what would have been sent."""

from __future__ import annotations

from datetime import timedelta

from django.urls import re_path
from rest_framework.request import Request
from rest_framework.response import Response

from billing import clock, errors, ids
from billing.api import fields, lists
from billing.api.views import SandboxView
from billing.models import OutboxMessage


class ClockView(SandboxView):
    """`GET /v1/test_helpers/clock`, and `POST .../clock/advance`."""

    def get(self, request: Request) -> Response:
        return Response({"now": fields.instant(self.now)})


class AdvanceView(SandboxView):
    """`POST /v1/test_helpers/clock/advance {"to" | "seconds" | "to_next_renewal": true, "run"?}`

    Runs what falls due, in order, before it answers. With `"run": false` only the clock moves and
    the workers find what is due.
    """

    one_transaction = False

    def post(self, request: Request) -> Response:
        body = self.body
        asked = [name for name in ("to", "seconds", "to_next_renewal") if body.get(name)]
        if len(asked) != 1:
            raise errors.Invalid("Send one of `to`, `seconds` or `to_next_renewal`.", param="to")
        before = self.now
        if asked == ["to"]:
            target = fields.moment(body["to"], "to")
        elif asked == ["seconds"]:
            try:
                target = before + timedelta(seconds=fields.count(body, "seconds"))
            except OverflowError as error:
                raise errors.Invalid("There is no such year.", param="seconds") from error
        else:
            fields.flag(body, "to_next_renewal")
            target = clock.next_renewal(self.merchant)
        run = fields.flag({"run": True} | body, "run")
        reached = clock.advance(self.merchant, to=target, run=run)
        return Response({"was": fields.instant(before), "now": fields.instant(reached)})


class OutboxView(SandboxView):
    """`GET /v1/test_helpers/outbox`: codes and mails that would have been sent, newest first."""

    def get(self, request: Request) -> Response:
        rows = OutboxMessage.objects.of(self.merchant)
        to = request.query_params.get("to")
        if to:
            rows = rows.filter(to=_plus(to))
        return lists.page(
            request,
            rows,
            cursor_key=lambda text: ids.parse("msg", text),
            present=lambda row: {
                "message_id": row.public_id,
                "kind": row.kind,
                "to": row.to,
                "subject": row.subject,
                "body": row.body,
                "created_at": fields.instant(row.created_at),
            },
        )


def _plus(text: str) -> str:
    """The `+` of a phone number that a client did not encode arrives as a space."""
    return "+" + text[1:] if text.startswith(" ") else text


urlpatterns = [
    re_path(r"^test_helpers/clock/?$", ClockView.as_view(), name="test-clock"),
    re_path(r"^test_helpers/clock/advance/?$", AdvanceView.as_view(), name="test-clock-advance"),
    re_path(r"^test_helpers/outbox/?$", OutboxView.as_view(), name="test-outbox"),
]
