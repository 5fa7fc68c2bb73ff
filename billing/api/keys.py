"""`/v1/secret_keys`: keys of the merchant's backends, shown once when they are made.

`/v1/auth/callback` is where a terminal fetches its own (`Lava.login` of the newest client).
"""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from billing import ids, keys
from billing.api import fields, lists
from billing.api.views import View
from billing.models import SecretKey


def present(row: SecretKey) -> dict[str, Any]:
    """A key on the wire: its name and its first and last characters."""
    return {
        "secret_key_id": row.public_id,
        "name": row.name,
        "secret_key_hint": row.hint,
        "created_at": fields.instant(row.created_at),
    }


class SecretKeysView(View):
    """`GET, POST /v1/secret_keys`"""

    def get(self, request: Request) -> Response:
        return lists.page(
            request,
            SecretKey.objects.of(self.merchant).filter(revoked_at=None),
            cursor_key=lambda text: ids.parse("key", text),
            present=present,
        )

    def post(self, request: Request) -> Response:
        key, text = keys.make(self.merchant, name=fields.required_text(self.body, "name", most=80))
        return Response({**present(key), "secret_key": text}, status=201)


class SecretKeyView(View):
    """`DELETE /v1/secret_keys/{id}`: revoked from the next request on, the caller's own too."""

    def delete(self, request: Request, key_id: str) -> Response:
        key = keys.revoke(SecretKey.objects.of(self.merchant).by_public_id(key_id))
        return Response({"id": key.public_id, "deleted": True})


class AuthCallbackView(View):
    """`POST /v1/auth/callback {"code"}`: the key of a person who said yes in the console.

    Nobody is signed in here: the code, which works once, is who it is.
    """

    authentication_classes = ()
    permission_classes = ()

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        """The code is its own key: it buys one answer, and no answer with a secret is kept."""
        request.META.pop("HTTP_IDEMPOTENCY_KEY", None)
        return super().dispatch(request, *args, **kwargs)

    def post(self, request: Request) -> Response:
        key, text = keys.redeem(fields.required_text(self.body, "code"), now=timezone.now())
        merchant = key.merchant
        return Response(
            {
                "wallet_id": merchant.public_id,
                "secret_key_id": key.public_id,
                "secret_key": text,
                "merchant_id": merchant.public_id,
                "account_id": ids.public("org", merchant.organization_id),
            }
        )
