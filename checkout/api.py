"""`/v1/checkout_sessions`: a backend makes a session and looks at it; a test completes it.

Shapes are those of the official clients (RestCheckoutSession) in both vocabularies.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from django.conf import settings
from django.urls import re_path
from rest_framework.request import Request
from rest_framework.response import Response

from billing import errors
from billing.api import fields
from billing.api.views import SandboxView, View
from billing.models import Connection, CreditBundle, Plan
from checkout import dialing, sessions
from checkout.models import CheckoutSession


def present(session: CheckoutSession) -> dict[str, Any]:
    """A session on the wire."""
    body: dict[str, Any] = {
        "checkout_session_id": session.public_id,
        "checkout_session_token": token(session),
        "checkout_mode": session.mode,
        "origin_url": session.origin_url,
        "status": _status(session),
        "url": session.url,
        "created_at": fields.instant(session.created_at),
        "expires_at": fields.instant(session.expires_at),
    }
    shown = session.connection_is_given or session.state == CheckoutSession.State.COMPLETED
    if session.connection is not None and shown:
        body["connection_id"] = session.connection.public_id
    if session.plan is not None:
        body["subscription_config_id"] = session.plan.public_id
    if session.bundle is not None:
        body["credit_bundle_id"] = session.bundle.public_id
    if session.return_url:
        body["return_url"] = session.return_url
    if session.completed_at is not None:
        body["completed_at"] = fields.instant(session.completed_at)
    return body


def token(session: CheckoutSession) -> str:
    """What the browser package opens: the secret and where its page is, in standard base64."""
    content = {"secret": session.secret, "base": f"{settings.LAVA_BASE_URL}/"}
    return base64.b64encode(json.dumps(content).encode()).decode()


def _status(session: CheckoutSession) -> str:
    if session.state == CheckoutSession.State.COMPLETED:
        return "completed"
    over = session.state == CheckoutSession.State.EXPIRED
    return "expired" if over or session.expires_at <= session.merchant.now() else "open"


class CheckoutSessionsView(View):
    """`POST /v1/checkout_sessions`"""

    def post(self, request: Request) -> Response:
        body = self.body
        mode = fields.choice(body, "checkout_mode", tuple(CheckoutSession.Mode.values))
        session = sessions.create(
            self.merchant,
            mode=mode,
            origin_url=fields.required_text(body, "origin_url"),
            return_url=fields.text(body, "return_url", most=2000),
            connection=self._connection(body),
            plan=self._one(body, "subscription_config_id", Plan.objects.of(self.merchant)),
            bundle=self._one(
                body,
                "credit_bundle_id",
                CreditBundle.objects.of(self.merchant).select_related("plan"),
            ),
            now=self.now,
        )
        return Response(present(session), status=201)

    def _connection(self, body: dict[str, Any]) -> Connection | None:
        rows = Connection.objects.of(self.merchant).visible()
        found: Connection | None = self._one(body, "connection_id", rows.select_related("customer"))
        return found

    def _one(self, body: dict[str, Any], name: str, rows: Any) -> Any:
        """The row a field names; one of another merchant, or none, is a wrong field."""
        text = fields.text(body, name)
        if text is None:
            return None
        try:
            return rows.by_public_id(text)
        except errors.NotFound as error:
            raise errors.NotFound(error.message, param=name) from error


class CheckoutSessionView(View):
    """`GET /v1/checkout_sessions/{id}`"""

    def get(self, request: Request, session_id: str) -> Response:
        return Response(present(_find(self, session_id)))


class CompleteView(SandboxView):
    """`POST /v1/test_helpers/checkout_sessions/{id}/complete {"phone", "card"}`"""

    one_transaction = False

    def post(self, request: Request, session_id: str) -> Response:
        body = self.body
        session = _find(self, session_id)
        phone = fields.text(body, "phone", most=32)
        if phone is None:
            known = session.connection if session.connection_is_given else None
            if known is None or not known.customer.phone:
                raise errors.Invalid("`phone` is missing.", param="phone")
            phone = known.customer.phone
        try:
            number = dialing.e164(phone, region=dialing.DEFAULT_REGION, strict=False)
        except errors.Invalid as error:
            raise errors.Invalid(
                "`phone` must be a phone number such as +14155550142.", param="phone"
            ) from error
        card = fields.text(body, "card", most=24) or "4242424242424242"
        session = sessions.complete_with_test_card(
            session, phone=number, card=card.replace(" ", ""), now=self.now
        )
        return Response(present(session))


def _find(view: View, session_id: str) -> CheckoutSession:
    rows = CheckoutSession.objects.of(view.merchant)
    found: CheckoutSession = rows.select_related(*CheckoutSession.NEIGHBOURS).by_public_id(
        session_id
    )
    return found


urlpatterns = [
    re_path(r"^checkout_sessions/?$", CheckoutSessionsView.as_view(), name="checkout-sessions"),
    re_path(
        r"^checkout_sessions/(?P<session_id>[^/]+)/?$",
        CheckoutSessionView.as_view(),
        name="checkout-session",
    ),
    re_path(
        r"^test_helpers/checkout_sessions/(?P<session_id>[^/]+)/complete/?$",
        CompleteView.as_view(),
        name="test-checkout-complete",
    ),
]
