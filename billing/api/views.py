"""The base of every /v1 view: parse, call one verb, present. Imported by all apps' endpoints."""

from __future__ import annotations

from datetime import datetime
from functools import cached_property
from typing import Any, cast

from rest_framework.views import APIView

from billing import errors
from billing.authentication import Backend
from billing.models import Merchant


class View(APIView):
    """A view of one merchant's API. Errors of `billing.errors` become the error envelope."""

    @property
    def merchant(self) -> Merchant:
        """The merchant whose key was sent."""
        backend = cast(Backend, self.request.user)
        return backend.merchant

    @cached_property
    def now(self) -> datetime:
        """One instant for the whole request, on the merchant's clock."""
        return self.merchant.now()

    @property
    def body(self) -> dict[str, Any]:
        """The JSON object that was sent; an empty body is an empty object.

        Raises:
            billing.errors.Invalid: the body is JSON but no object.
        """
        data = self.request.data
        if not data:
            return {}
        if not isinstance(data, dict):
            raise errors.Invalid("Send a JSON object.")
        return data


class SandboxView(View):
    """A test helper: answers test keys alone."""

    def initial(self, *args: Any, **kwargs: Any) -> None:
        super().initial(*args, **kwargs)
        if not self.merchant.is_sandbox:
            raise errors.Forbidden(
                "Test helpers work with test keys (aks_test_...) only.", code="sandbox_only"
            )
