"""Who calls the API: the merchant of a secret key. Named by settings; used by every /v1 view."""

from __future__ import annotations

from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from billing import errors, keys
from billing.models import Merchant, SecretKey


class Backend:
    """The caller of an API request: a merchant's backend, known by its key."""

    is_authenticated = True

    def __init__(self, key: SecretKey) -> None:
        self.key = key
        self.merchant: Merchant = key.merchant


def bearer(header: str) -> str:
    """The key in an Authorization header.

    Raises:
        billing.errors.Unauthenticated: no header, or another scheme.
    """
    scheme, _, text = header.partition(" ")
    if scheme.lower() != "bearer" or not text.strip():
        raise errors.Unauthenticated(
            "Send your secret key as `Authorization: Bearer aks_...`.", code="key_missing"
        )
    return text.strip()


class SecretKeyAuthentication(BaseAuthentication):
    """`Authorization: Bearer aks_live_... | aks_test_...`"""

    def authenticate(self, request: Request) -> tuple[Backend, SecretKey]:
        key = keys.find(bearer(request.META.get("HTTP_AUTHORIZATION", "")))
        return Backend(key), key

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="lava"'
