"""The gateway's door: a raw ASGI callable for `/v1/forward...` and the paths without a provider.

`Gateway` is composed into `lava/asgi.py` before Django. A call is authenticated, its target
resolved, its body read once, its price set aside; then `calls.Call` forwards and settles it.
Whatever is refused is refused before the provider sees anything, in the caller's dialect, with a
request id.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import unquote
from uuid import UUID

import orjson
import structlog
from django.utils import timezone

from billing import errors, ids
from billing.api import fields
from meters import costs
from meters.gateway import (
    callers,
    catalog,
    charging,
    estimates,
    refusals,
    targets,
    tokens,
    upstream,
)
from meters.gateway import providers as table
from meters.gateway.callers import Caller
from meters.gateway.calls import Call, Receive, Send
from meters.gateway.notes import Notes
from meters.gateway.running import Running
from meters.gateway.store import Admission, Stale, Store
from meters.gateway.targets import Target
from meters.gateway.tokens import Token

log = structlog.get_logger(__name__)

Scope = MutableMapping[str, Any]
Raw = list[tuple[bytes, bytes]]

LARGEST_BODY = 32 << 20
# How often what a caller may use can change under one call: once, unless somebody imports prices.
TURNS = 5
# OpenAI- and Anthropic-shaped paths that name no provider: it is found by the model.
_BY_MODEL = ("/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/completions",
             "/v1/messages", "/v1/messages/count_tokens")  # fmt: skip

# Refusals that are written down, within the bounds of `notes`. Not those that a loop could repeat
# at no cost of its own: unknown keys, bodies that are none, calls over a rate.
_NOTED = (402, 403, 404, 422)


def takes(path: str) -> bool:
    """Whether a path is the gateway's."""
    return (
        path == "/v1/forward"
        or path.startswith("/v1/forward/")
        or path.removesuffix("/") in _BY_MODEL
        or _lists_models(path)
    )


def _lists_models(path: str) -> bool:
    return path.removesuffix("/") == "/v1/models"


class Gateway:
    """The gateway of one process."""

    def __init__(self) -> None:
        self.store = Store()
        self.kept = callers.Kept()
        self.sessions = upstream.Sessions()
        self.running = Running(self.store)
        self.notes = Notes()

    def start(self) -> None:
        """Load what the first call would wait for, beside the serving."""
        self._warming = asyncio.get_running_loop().run_in_executor(None, costs.warm)

    async def stop(self) -> None:
        """Let what runs end, then close the lines."""
        await self.running.stop()
        await self.sessions.close()
        await self.store.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, whatever happens."""
        started = time.monotonic()
        headers = {name.lower(): value for name, value in scope["headers"]}
        dialect = refusals.dialect_of_headers(headers)
        request = _Request(scope, headers, receive, dialect, started)
        try:
            answer = await self._admit(request)
        except errors.LavaError as error:
            await self._note(error, request)
            await _refuse(send, error, request)
            return
        except Exception as error:
            # The words of an unforeseen error may hold what must not be logged: its kind is enough.
            log.error("gateway_failed", error=type(error).__name__, request=request.id_text)
            await _refuse(send, _Failed("Something went wrong on our side."), request)
            raise
        if isinstance(answer, Call):
            await answer.run(receive, send)
        else:
            await _say(send, 200, [(b"content-type", b"application/json")], answer, request)

    async def _admit(self, request: _Request) -> Call | bytes:
        """Everything before the provider sees a byte: the call, or an answer of the gateway's own.

        Raises:
            billing.errors.LavaError: it is not let through; nothing is held.
        """
        told, _ = tokens.find(request.headers, request.query)
        request.id = ids.new(sandbox=told.is_sandbox)
        request.own_key = bool(told.provider_key)
        # A caller that is kept saves a trip, and counts only if the hold finds it true: whatever
        # is refused by it alone is asked again by what is true now.
        kept = None if _lists_models(request.path) else self.kept.find(told)
        for _ in range(TURNS):
            request.caller = kept or await self._ask(told)
            try:
                return await self._admit_as(request.caller, told, request)
            except Stale:
                pass
            except errors.LavaError:
                if kept is None or request.is_judged:
                    raise
            kept = None
        raise errors.Unavailable("What this call may use is being changed.", retry_after_s=1)

    async def _ask(self, told: Token) -> Caller:
        caller = await self.store.caller(told)
        self.kept.keep(told, caller)
        return caller

    async def _admit_as(self, caller: Caller, told: Token, request: _Request) -> Call | bytes:
        target: Target | None = None
        if request.path.startswith("/v1/forward"):
            target = request.target = caller.target(request.path, request.query)
            request.dialect = _dialect(target)
        elif _lists_models(request.path):
            found = catalog.listing(
                (*caller.own, *table.TABLE),
                keyed=caller.keys,
                overrides=caller.overrides,
                now=timezone.now() + caller.clock_offset,
                allowed_providers=caller.allowed_providers,
                allowed_models=caller.allowed_models,
                provider=request.query_value("provider"),
            )
            return orjson.dumps({"object": "list", "data": found})
        body = await request.body()
        if body and request.headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise errors.Invalid(
                "Send the body as it is: one that is packed cannot be measured.",
                code="body_packed",
                param="content-encoding",
            )
        if target is None:
            target, body = by_model(caller, request.path.removesuffix("/"), request.query, body)
            request.target = target
            request.dialect = _dialect(target)
        asked = request.asked = estimates.read(
            request.method,
            target.path,
            target.query,
            request.headers.get(b"content-type", b"").decode("latin-1"),
            body,
        )
        _check_scope(caller, target, asked)
        key = provider_key(caller, target, told)
        call = Call(
            id=request.id,
            caller=caller,
            target=target,
            asked=asked,
            method=request.method,
            headers=upstream.outgoing(
                request.raw_headers, row=target.provider, path=target.path, key=key
            ),
            body=body,
            plain_body=body,
            key=key,
            injected=False,
            started=request.started,
            store=self.store,
            running=self.running,
            sessions=self.sessions,
        )
        if asked.wants_usage_injected and target.provider.asks_usage:
            call.body, call.injected = estimates.with_usage_asked(asked.body), True
        await self._hold(call, told, request)
        return call

    async def _note(self, error: errors.LavaError, request: _Request) -> None:
        """Write down what was refused to a known caller, so that the merchant can see why."""
        status = refusals.status_of(error)
        if request.caller is None or status not in _NOTED:
            return
        left_out = self.notes.take(request.caller.merchant, request.caller.token)
        if left_out is None:
            return
        if left_out:
            log.warning("gateway_refusals_left_out", request=request.id_text, count=left_out)
        target, asked = request.target, request.asked
        try:
            await self.store.blocked(
                request.id,
                request.caller,
                provider=target.provider.slug if target else "",
                own_key=request.own_key,
                method=request.method,
                endpoint=target.path if target else request.path,
                model=asked.model if asked else "",
                stream=asked.stream if asked else False,
                http_status=status,
                error=error.code,
                taken_ms=round((time.monotonic() - request.started) * 1000),
            )
        except errors.Unavailable:
            log.warning("gateway_refusal_not_noted", request=request.id_text)

    async def _hold(self, call: Call, token: Token, request: _Request) -> None:
        caller, target, asked = call.caller, call.target, call.asked
        cost, floor = None, None
        # A hold of a customer is a fee; the cost is asked for where the fee is a share of it, and
        # where it is all that the spend limit of a token can count.
        alone = caller.token is not None and caller.connection is None
        if asked.billed and (caller.needs_cost or alone):
            cost, floor = charging.estimated_costs(
                caller, target, asked, now=timezone.now() + caller.clock_offset
            )
        told = Admission(
            provider=target.provider.slug,
            own_key=request.own_key,
            method=request.method,
            endpoint=target.path,
            model=asked.model,
            stream=asked.stream,
            disabled=token.disable_billing,
            billed=asked.billed,
            input_tokens=asked.estimate.input,
            output_tokens=asked.estimate.output,
            characters=asked.characters,
            seconds=asked.estimate.input_seconds,
            cost=cost,
            floor_cost=floor,
            limited=asked.limited,
            metadata=request.metadata(),
        )
        request.is_judged = True
        await self.store.hold(call.id, caller, told)
        call.hold_again = functools.partial(self.store.hold, call.id, caller, told, again=True)


class _Failed(refusals.Upstream):
    """A fault of our own."""

    default_code = "server_error"

    def __init__(self, message: str) -> None:
        super().__init__(message, status=500)


class _Request:
    """One request as it came."""

    def __init__(
        self,
        scope: Scope,
        headers: dict[bytes, bytes],
        receive: Receive,
        dialect: str,
        started: float,
    ) -> None:
        self.method: str = scope["method"].upper()
        self.path: str = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
        self.path = self.path.partition("?")[0]
        self.query: str = scope.get("query_string", b"").decode("latin-1")
        self.raw_headers: Raw = list(scope["headers"])
        self.headers = headers
        self.receive = receive
        self.dialect = dialect
        self.started = started
        # What is known of it so far, for the note on a refusal.
        self.caller: Caller | None = None
        self.target: Target | None = None
        self.asked: estimates.Asked | None = None
        self.own_key = False
        # Whether the database was asked to let it through: what it then says is final.
        self.is_judged = False
        self._id: UUID | None = None
        self._body: bytes | errors.LavaError | None = None

    @property
    def id(self) -> UUID:
        """Its key: of no sandbox until its token has told of one."""
        if self._id is None:
            self._id = ids.new(sandbox=False)
        return self._id

    @id.setter
    def id(self, key: UUID) -> None:
        self._id = key

    @property
    def id_text(self) -> str:
        """The id as it is answered."""
        return ids.public("req", self.id)

    async def body(self) -> bytes:
        """The body, whole; read at the first time.

        Raises:
            billing.errors.TooLarge: over 32 MiB.
            billing.errors.Invalid: it broke off.
        """
        if self._body is None:
            try:
                self._body = await self._read_body()
            except errors.LavaError as error:
                self._body = error
        if isinstance(self._body, errors.LavaError):
            raise self._body
        return self._body

    async def _read_body(self) -> bytes:
        length = self.headers.get(b"content-length", b"0")
        too_large = errors.TooLarge("A request of at most 32 MiB goes through the gateway.")
        if length.isdigit() and int(length) > LARGEST_BODY:
            raise too_large
        found: list[bytes] = []
        size = 0
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise errors.Invalid("The request broke off.", code="request_incomplete")
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > LARGEST_BODY:
                raise too_large
            found.append(chunk)
            if not message.get("more_body", False):
                return b"".join(found)

    def query_value(self, name: str) -> str:
        """The last value of a parameter of the query; empty without one."""
        found = ""
        for part in self.query.split("&"):
            told, _, value = part.partition("=")
            if told == name:
                found = unquote(value.replace("+", " "))
        return found

    def metadata(self) -> dict[str, str]:
        """`x-lava-metadata` (JSON), `x-lava-metadata-<key>`, `?metadata=` (JSON).

        Raises:
            billing.errors.Invalid: as of the API's `metadata`.
        """
        found: dict[str, Any] = {}
        texts = [self.headers.get(b"x-lava-metadata", b"").decode("utf-8", "replace")]
        texts.append(self.query_value("metadata"))
        for text in filter(None, texts):
            try:
                told = orjson.loads(text)
            except ValueError:
                told = None
            if not isinstance(told, dict):
                raise errors.Invalid("Write the metadata as a JSON object.", param="metadata")
            found |= told
        for name_, value_ in self.headers.items():
            if name_.startswith(b"x-lava-metadata-"):
                key = name_[16:].decode("latin-1").replace("-", "_")
                found[key] = value_.decode("utf-8", "replace")
        return fields.metadata({"metadata": found})


def by_model(caller: Caller, path: str, query: str, body: bytes) -> tuple[Target, bytes]:
    """The target of a path without a provider, by the request's model; and the body, with the
    provider's name taken off the model (`groq/llama-3.3-70b`).

    Raises:
        billing.errors.Invalid: no model, one that nobody is known to serve, or a body that is
            nested too deeply.
    """
    told = estimates.parsed(body)
    model = told.get("model") if isinstance(told, dict) else None
    if not isinstance(model, str) or not model:
        raise errors.Invalid("you must provide a model parameter", param="model")
    own = {row.slug.lower(): row for row in caller.own}
    named, slash, rest = model.partition("/")
    row = (own.get(named.lower()) or table.BY_SLUG.get(named.lower())) if slash else None
    if row is not None:
        body = estimates.written(told | {"model": rest})
    elif path.startswith("/v1/messages"):
        row = table.BY_SLUG["anthropic"]
    else:
        slug = next((slug for head, slug in table.FAMILIES if model.lower().startswith(head)), None)
        if slug is None and slash and "openrouter" in caller.keys:
            slug = "openrouter"
        row = own.get(slug.lower()) or table.BY_SLUG[slug.lower()] if slug else None
    if row is None:
        raise errors.Invalid(
            f"No provider is known for the model {model[:80]!r}: write it as `provider/model`, "
            "e.g. `groq/llama-3.3-70b-versatile`.",
            code="model_not_found",
            param="model",
        )
    rest_of_path = path.removeprefix("/v1") if row.dialect != "anthropic" else path
    return targets.by_path(row, rest_of_path, query), body


def provider_key(caller: Caller, target: Target, told: Token) -> str:
    """The key that the provider is sent: the caller's own, or the merchant's for this origin.

    Raises:
        billing.errors.Forbidden: there is none.
    """
    if told.provider_key:
        return told.provider_key
    row = target.provider
    origin, sealed = caller.keys.get(row.slug, ("", ""))
    if not sealed and row.own is False:
        # Two rows of one origin (Gemini's two dialects) share its key.
        origin, sealed = next(
            (pair for slug, pair in caller.keys.items() if pair[0] == row.origin), ("", "")
        )
    if not sealed or origin != row.origin:
        raise errors.Forbidden(
            f"There is no key for {row.name}: add it under Gateway, Provider keys, or send your "
            "own as `provider_key` of the forward token.",
            code="provider_key_missing",
        )
    return caller.open(sealed)


def _check_scope(caller: Caller, target: Target, asked: estimates.Asked) -> None:
    """Refuse what the token, or the provider's row, does not allow."""
    row = target.provider
    allowed = caller.allowed_providers
    if allowed is not None and row.slug.lower() not in {slug.lower() for slug in allowed}:
        raise errors.Forbidden(f"This token may not call {row.name}.", code="provider_not_allowed")
    models = caller.allowed_models
    if models is not None and asked.billed and asked.model not in models:
        raise errors.Forbidden(
            f"This token may not use the model {asked.model[:80]!r}.",
            code="model_not_allowed",
            param="model",
        )
    if asked.long_running and not row.long_running:
        raise errors.Forbidden(
            "Work that runs on after the answer, and requests that change what is stored, are not "
            "forwarded: nothing could measure them. A provider of your own may allow them.",
            code="not_forwarded",
        )


def _dialect(target: Target) -> str:
    """Whose words a refusal uses."""
    if target.path.endswith(("/chat/completions", "/embeddings", "/responses")):
        return "openai"
    return target.provider.dialect


async def _refuse(send: Send, error: errors.LavaError, request: _Request) -> None:
    status, headers, body = refusals.answer(
        error, dialect=request.dialect, request_id=request.id_text
    )
    await _say(send, status, headers, body, request)


async def _say(send: Send, status: int, headers: Raw, body: bytes, request: _Request) -> None:
    taken_ms = (time.monotonic() - request.started) * 1000
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                *headers,
                (b"content-length", str(len(body)).encode()),
                (b"x-lava-request-id", request.id_text.encode()),
                (b"x-lava-overhead-ms", f"{taken_ms:.2f}".encode()),
            ],
        }
    )
    await send({"type": "http.response.body", "body": body, "more_body": False})
