"""The base of every /v1 view: parse, call one verb, present. Imported by all apps' endpoints."""

from __future__ import annotations

from datetime import datetime
from functools import cached_property
from typing import Any, ClassVar, cast

import orjson
from django.db import transaction
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing import errors, replays
from billing.api import limits, vocabulary
from billing.api.vocabulary import Words
from billing.authentication import Backend
from billing.models import Merchant

# Where `lava.api.door` leaves a refusal and where its key stands, for the view to answer. No header
# can: those begin with HTTP_.
REFUSAL = "lava.refusal"


class _Replayed(Exception):
    """The call had its answer before."""

    def __init__(self, answer: replays.Answer) -> None:
        super().__init__()
        self.answer = answer


class View(APIView):
    """A view of one merchant's API. Errors of `billing.errors` become the error envelope."""

    # The words of its answers; a path that only one client knows names them in the table of paths.
    words: ClassVar[Words] = Words.BOTH
    # Bytes of a body that are read.
    largest_body: ClassVar[int] = 1024 * 1024
    # Whether a POST is one transaction, so that its effect and its kept answer are one too.
    one_transaction: ClassVar[bool] = True
    _standing: limits.Standing | None = None
    _call: tuple[str, bytes] | None = None

    @property
    def merchant(self) -> Merchant:
        """The merchant whose key was sent."""
        backend = cast(Backend, self.request.user)
        return backend.merchant

    @property
    def actor(self) -> str:
        """Who did it, for the books: the key by its name and hint."""
        key = cast(Backend, self.request.user).key
        return f"API key {key.name} ({key.hint})"

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

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        """Answer, once for an `Idempotency-Key` (`billing.replays`)."""
        if request.method != "POST" or "HTTP_IDEMPOTENCY_KEY" not in request.META:
            return super().dispatch(request, *args, **kwargs)
        if not self.one_transaction:
            response = cast(Response, super().dispatch(request, *args, **kwargs))
            self._keep(response)
            return response
        with transaction.atomic():
            response = cast(Response, super().dispatch(request, *args, **kwargs))
            refused = response.status_code >= 400
            if refused:
                transaction.set_rollback(True)
            else:
                self._keep(response)
        if refused:
            self._keep(response)
        return response

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        if REFUSAL in request.META:
            error, self._standing = request.META[REFUSAL]
            raise error
        header = request.META.get("HTTP_AUTHORIZATION", "")
        if header:
            self._standing = limits.take(header[-64:])
        # PostgreSQL's texts hold no NUL, so nothing with one in its name exists.
        if any("\x00" in value for value in kwargs.values()):
            raise errors.NotFound("There is nothing at this address.")
        if "%00" in request.META.get("QUERY_STRING", ""):
            raise errors.Invalid("The query holds a NUL.")
        super().initial(request, *args, **kwargs)
        if request.method == "POST" and "HTTP_IDEMPOTENCY_KEY" in request.META:
            self._begin(request)

    def handle_exception(self, exc: Exception) -> Response:
        """An error names its field in the word the client used."""
        if isinstance(exc, _Replayed):
            return Response(
                orjson.loads(exc.answer.body),
                status=exc.answer.status,
                headers={"Idempotent-Replayed": "true"},
            )
        if isinstance(exc, errors.Throttled):
            self._standing = exc.details.get("standing")
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
        if self._standing is not None:
            for name, value in self._standing.headers().items():
                response[name] = value
        return super().finalize_response(request, response, *args, **kwargs)

    def _begin(self, request: Request) -> None:
        inner = request._request
        length = inner.META.get("CONTENT_LENGTH") or "0"
        if not length.isdigit() or int(length[:20]) > self.largest_body:
            raise errors.TooLarge(f"The body is larger than {self.largest_body} bytes.")
        key = replays.check_key(inner.META["HTTP_IDEMPOTENCY_KEY"])
        meaning = replays.fingerprint("POST", inner.get_full_path(), inner.body)
        merchant = cast(Backend, request.user).merchant
        found = replays.begin(merchant, key=key, meaning=meaning, now=timezone.now())
        if found is not None:
            raise _Replayed(found)
        self._call = key, meaning

    def _keep(self, response: Response) -> None:
        """Keep an answer that would be given again; a call that may do better later is let go."""
        if self._call is None:
            return
        key, meaning = self._call
        if response.status_code >= 500 or response.status_code in (401, 429):
            replays.abandon(self.merchant, key=key, meaning=meaning)
            return
        replays.finish(
            self.merchant,
            key=key,
            meaning=meaning,
            answer=replays.Answer(response.status_code, orjson.dumps(response.data)),
            now=timezone.now(),
        )


class SandboxView(View):
    """A test helper: answers test keys alone."""

    def initial(self, *args: Any, **kwargs: Any) -> None:
        super().initial(*args, **kwargs)
        if not self.merchant.is_sandbox:
            raise errors.Forbidden(
                "Test helpers work with test keys (aks_test_...) only.", code="sandbox_only"
            )
