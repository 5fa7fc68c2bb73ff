"""What happens to one API call, in order: key, journal, idempotency, faults, work, answer.

The HTTP server hands a `Request` in and sends the `Answer` out. Work, its events and its
idempotency record are one transaction; a fault that loses the answer comes after that transaction,
as a broken line would.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lava.demo.card_network import (
    calls,
    errors,
    faults,
    forms,
    idempotency,
    journal,
    routes,
    store,
    views,
)
from lava.demo.card_network.calls import Call
from lava.demo.card_network.errors import ApiError
from lava.demo.card_network.faults import Fault
from lava.demo.card_network.idempotency import KeysInUse, Outcome
from lava.demo.card_network.params import Params
from lava.demo.card_network.resources import payment_intents, setup_intents
from lava.demo.card_network.routes import Route
from lava.demo.card_network.store import Store

log = logging.getLogger(__name__)

_KEY = re.compile(r"^(sk|pk|rk)_(test|live)_[A-Za-z0-9_]+$")
_ACCOUNT = re.compile(r"^acct_[A-Za-z0-9]+$")
_VERSION = re.compile(r"^\d{4}-\d{2}-\d{2}(?:\.[a-z]+)?$")
_THREE_D_SECURE = re.compile(r"^/_3ds/((?:pi|seti)_[A-Za-z0-9]+)$")
_PAGE_KEY_ADVICE = (
    "This API call cannot be made with a publishable API key. Please use a secret API key. You "
    "can find a list of your API keys at https://dashboard.stripe.com/account/apikeys."
)


@dataclass(frozen=True)
class Request:
    """A call as it came over the line; header names in lower case."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: str


@dataclass(frozen=True)
class Answer:
    """What goes back."""

    status: int
    body: str
    headers: dict[str, str] = field(default_factory=dict)


class Pipeline:
    """Answers API calls on one store. `committed` is called after work that may have queued
    events."""

    def __init__(self, store: Store, *, committed: Callable[[], None]) -> None:
        self._store = store
        self._committed = committed
        self._keys = KeysInUse()

    def answer(self, request: Request) -> Answer:
        """Do what a call asks. Raises faults.NoAnswerError when the line is to be closed
        instead."""
        request_id = store.new_id("req")[:18]
        key = request.headers.get("idempotency-key") if request.method == "POST" else None
        entry: int | None = None
        replayed = False
        try:
            params = forms.parse(request.body if request.method == "POST" else request.query)
            mode, publishable, account, problem = _caller(request, params)
            entry = journal.arrived(
                self._store,
                at=self._store.now(),
                mode=mode,
                method=request.method,
                path=request.path,
                idempotency_key=key,
                params=params,
                request_id=request_id,
                account=account,
            )
            if problem is not None or mode is None:
                raise problem or ApiError(401, "No API key provided.")
            call = Call(
                self._store,
                mode,
                publishable,
                Params(params),
                request_id,
                key,
                self._store.now(),
                request.headers.get("stripe-version", calls.API_VERSION),
                account,
            )
            outcome, replayed = self._perform(call, request, entry)
        except ApiError as error:
            outcome = Outcome(error.status, json.dumps(error.body), request_id)
        if entry is not None:
            journal.answered(self._store, entry, status=outcome.status, replayed=replayed)
        return Answer(
            outcome.status,
            outcome.body,
            _headers(request, request_id, key, outcome=outcome, replayed=replayed),
        )

    def _perform(self, call: Call, request: Request, entry: int) -> tuple[Outcome, bool]:
        """Route and run a call; answers the outcome and whether it is a replay."""
        if not _VERSION.match(call.api_version):
            raise ApiError(400, f"Invalid Stripe API version: {call.api_version}")
        if call.idempotency_key is not None and not (
            1 <= len(call.idempotency_key) <= idempotency.LONGEST_KEY
        ):
            raise ApiError(
                400, f"Idempotency-Key must be 1 to {idempotency.LONGEST_KEY} characters long."
            )
        work = self._work(call, request)
        fault = faults.strike(self._store, method=request.method, path=request.path, mode=call.mode)
        if fault is not None:
            journal.struck(self._store, entry, fault.action)
            if fault.action == "drop_before":
                raise faults.NoAnswerError
            if fault.action == "in_use":
                raise errors.key_in_use(call.idempotency_key or "")
        with self._keys.hold(call.mode, _scoped(call)):
            if fault is not None and fault.action == "delay":
                time.sleep(fault.delay_ms / 1000)
                call.now = self._store.now()
            outcome, replayed = self._once(call, request, work, fault)
        self._committed()
        if fault is not None:
            _lose(fault)
        return outcome, replayed

    def _once(
        self, call: Call, request: Request, work: Callable[[], Any], fault: Fault | None
    ) -> tuple[Outcome, bool]:
        """Replay what the key remembers, or do the work and remember it, in one transaction."""
        key = _scoped(call)
        scope: dict[str, Any] = {
            "mode": call.mode,
            "key": key,
            "method": request.method,
            "path": request.path,
            "params": idempotency.fingerprint(call.params.values),
            "now": call.now,
        }
        with self._store.transaction():
            if key is not None:
                known = idempotency.recall(self._store, **scope)
                if known is not None:
                    return known, True
            if fault is not None and fault.action == "error":
                error = errors.forced(fault.status or 500)
                if not fault.stored:
                    raise error
                outcome = Outcome(error.status, json.dumps(error.body), call.request_id)
            else:
                outcome = _run(call, work)
            if key is not None:
                idempotency.remember(self._store, outcome, **scope)
        return outcome, False

    def _work(self, call: Call, request: Request) -> Callable[[], Any]:
        """What the call asks for. Raises ApiError 404 for an unknown URL, 401 for a page's key."""
        dialog = _THREE_D_SECURE.match(request.path)
        if dialog is not None and request.method == "POST":
            intent_id = dialog[1]
            return lambda: _answered_by_cardholder(call, intent_id)
        found = routes.find(request.method, request.path)
        if found is None:
            raise ApiError(
                404,
                f"Unrecognized request URL ({request.method}: {request.path}). Please see "
                "https://stripe.com/docs or we can help at https://support.stripe.com/.",
            )
        route: Route
        route, id = found
        if call.publishable and not route.page:
            raise ApiError(401, _PAGE_KEY_ADVICE, code="secret_key_required")
        return lambda: route.handler(call, id)


def _scoped(call: Call) -> str | None:
    """An idempotency key is of its account."""
    key = call.idempotency_key
    return key if key is None or call.account == calls.HOME else f"{call.account}/{key}"


def _run(call: Call, work: Callable[[], Any]) -> Outcome:
    """The outcome of the work. A refusal that came before the work began is raised on."""
    try:
        body = views.shown(call, work())
        return Outcome(200, json.dumps(body), call.request_id)
    except ApiError as error:
        if not error.executed:
            raise
        body = error.body
        if call.publishable:
            body = {"error": views.shown(call, error.error)}
        return Outcome(error.status, json.dumps(body), call.request_id)


def _answered_by_cardholder(call: Call, intent_id: str) -> Any:
    """The page's 3-D Secure dialog reports what was pressed."""
    call.params.only("client_secret", "source", "outcome")
    kind = "payment_intent" if intent_id.startswith("pi_") else "setup_intent"
    intent = payment_intents.visible(call, kind, intent_id)
    approve = call.params.choice("outcome", ["approve", "refuse"]) == "approve"
    asked = intent.body["next_action"]
    if asked is not None and asked["use_stripe_sdk"]["source"] != call.params.text("source"):
        raise ApiError(400, "This 3-D Secure question is no longer open.", param="source")
    resource = payment_intents if kind == "payment_intent" else setup_intents
    return resource.authenticate(call, intent, approve=approve)


def _lose(fault: Fault) -> None:
    """What befalls an answer after the work was done."""
    if fault.action == "drop":
        raise faults.NoAnswerError
    if fault.action == "delay_after":
        time.sleep(fault.delay_ms / 1000)
    if fault.action == "error_after":
        raise errors.forced(fault.status or 502)


def _caller(
    request: Request, params: dict[str, Any]
) -> tuple[str | None, bool, str, ApiError | None]:
    """Mode, whether a page calls, the account, and what is wrong with the key (Bearer, Basic, or
    `key=` of a page). `Stripe-Account` names an account that is connected to the key's."""
    given = _authorization(request.headers.get("authorization", ""))
    if not given and isinstance(params.get("key"), str):
        given = params["key"]
    params.pop("key", None)
    params.pop("_stripe_version", None)
    acted_for = params.pop("_stripe_account", None) or request.headers.get("stripe-account", "")
    if not given:
        message = (
            "You did not provide an API key. You need to provide your API key in the Authorization "
            "header, using Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY'). See "
            "https://stripe.com/docs/api#authentication for details, or we can help at "
            "https://support.stripe.com/."
        )
        return None, False, "", ApiError(401, message)
    match = _KEY.match(given)
    if match is None:
        masked = (
            given[:8] + "*" * max(len(given) - 12, 0) + given[-4:] if len(given) > 12 else "****"
        )
        return None, False, "", ApiError(401, f"Invalid API Key provided: {masked}")
    if acted_for and not _ACCOUNT.match(str(acted_for)):
        message = f"The provided key does not have access to account '{acted_for}'."
        return None, False, "", ApiError(403, message, code="account_invalid")
    return match[2], match[1] == "pk", str(acted_for) or calls.account_of(given), None


def _authorization(header: str) -> str:
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[0]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return ""


def _headers(
    request: Request, request_id: str, key: str | None, *, outcome: Outcome, replayed: bool
) -> dict[str, str]:
    """Stripe's own headers of an answer."""
    headers = {
        "Request-Id": request_id,
        "Stripe-Version": request.headers.get("stripe-version", calls.API_VERSION),
    }
    if key is not None:
        headers["Idempotency-Key"] = key
        headers["Original-Request"] = outcome.request_id
        if replayed:
            headers["Idempotent-Replayed"] = "true"
    if outcome.status == 409:
        headers["Stripe-Should-Retry"] = "true"
    elif 400 <= outcome.status < 500 and outcome.status != 429:
        headers["Stripe-Should-Retry"] = "false"
    return headers
