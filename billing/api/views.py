"""The base of every /v1 view: parse, call one verb, present. Imported by all apps' endpoints."""

from __future__ import annotations

from datetime import datetime
from functools import cached_property
from typing import Any, ClassVar, cast

from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing import errors
from billing.api import vocabulary
from billing.api.vocabulary import Words
from billing.authentication import Backend
from billing.models import Merchant


class View(APIView):
    """A view of one merchant's API. Errors of `billing.errors` become the error envelope."""

    # The words of its answers; a path that only one client knows names them in the table of paths.
    words: ClassVar[Words] = Words.BOTH

    @property
    def merchant(self) -> Merchant:
        """The merchant whose key was sent."""
        backend = cast(Backend, self.request.user)
        return backend.merchant

    @property
    def actor(self) -> str:
        """Who did it, for the books: the key by its name."""
        return f"API key {cast(Backend, self.request.user).key.name}"

    @cached_property
    def now(self) -> datetime:
        """One instant for the whole request, on the merchant's clock."""
        return self.merchant.now()

    @cached_property
    def body(self) -> dict[str, Any]:
        """The JSON object that was sent, in our words; an empty body is an empty object.

        Raises:
            billing.errors.Invalid: the body is JSON but no object.
        """
        data = self.request.data
        if not isinstance(data, dict):
            raise errors.Invalid("Send a JSON object.")
        return vocabulary.read(data)

    @cached_property
    def query(self) -> dict[str, str]:
        """The query's fields, in our words; of one given twice the last counts."""
        return vocabulary.read(self.request.query_params.dict())

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        # PostgreSQL's texts hold no NUL, so nothing with one in its name exists.
        if any("\x00" in value for value in kwargs.values()):
            raise errors.NotFound("There is nothing at this address.")
        if "%00" in request.META.get("QUERY_STRING", ""):
            raise errors.Invalid("The query holds a NUL.")
        super().initial(request, *args, **kwargs)

    def handle_exception(self, exc: Exception) -> Response:
        """An error names its field in the word the client used."""
        if isinstance(exc, errors.LavaError) and exc.param in vocabulary.NEWER:
            data = getattr(self.request, "_full_data", None)
            told = data if isinstance(data, dict) else {}
            exc.param = vocabulary.param(exc.param, {**self.request.query_params, **told})
        return super().handle_exception(exc)

    def finalize_response(
        self, request: Request, response: Any, *args: Any, **kwargs: Any
    ) -> Response:
        if self.words is not Words.AS_WRITTEN and not getattr(response, "exception", False):
            response.data = vocabulary.speak(response.data, self.words)
        return super().finalize_response(request, response, *args, **kwargs)


class SandboxView(View):
    """A test helper: answers test keys alone."""

    def initial(self, *args: Any, **kwargs: Any) -> None:
        super().initial(*args, **kwargs)
        if not self.merchant.is_sandbox:
            raise errors.Forbidden(
                "Test helpers work with test keys (aks_test_...) only.", code="sandbox_only"
            )
