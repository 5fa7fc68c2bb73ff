"""The short way of what backends ask most: `POST /v1/requests` and the balance of a connection,
without the steps that these have no use for.

A WSGI application before Django's (`lava.wsgi`). It reads the call, asks the same verb as the view
(`meters.api.charge`, `billing.api.connections.balance`) and answers with the same headers; the
address's own middleware, signals and routing are spared, which cost as much as the verb. Everything
else goes the long way, unchanged: other paths and methods, bodies that are not a JSON object of a
known length, plain http where https is asked for, whatever comes while the clock is wrong. So does
every refusal: the view finds it in the environment and answers as every view does; the database is
not asked twice.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import orjson
from django.conf import settings
from django.core.handlers.wsgi import WSGIRequest
from django.db import close_old_connections
from django.http import HttpResponse
from django.middleware.security import SecurityMiddleware

from billing import errors, ids
from billing.api import connections, limits, vocabulary
from billing.api.views import REFUSAL
from billing.api.vocabulary import Words
from lava import clocks, middleware
from lava.api import parsers
from meters import api

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
# What is asked of an Authorization header; gives the answer's body.
Question = Callable[[str], bytes]

_CHARGE = ("/v1/requests", "/v1/requests/")
_BALANCE = re.compile(r"/v1/(connections|customers)/(\w+)/balance/?", re.ASCII)
_WORDS = {"connections": Words.OLDER, "customers": Words.NEWER}


class Door:
    """Answers what it knows; hands everything else to `django`."""

    def __init__(self, django: Application) -> None:
        self.django = django
        self.headers = _headers()
        # ("HTTP_X_FORWARDED_PROTO", "https"), where only https is served.
        self.secure = settings.SECURE_PROXY_SSL_HEADER if settings.SECURE_SSL_REDIRECT else None

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        read, extra = _READERS.get(environ["REQUEST_METHOD"], (_nothing, ()))
        ask = read(environ)
        if (
            ask is None
            or (self.secure and environ.get(self.secure[0]) != self.secure[1])
            or not clocks.is_right()
        ):
            return self.django(environ, start_response)
        header = environ.get("HTTP_AUTHORIZATION", "")
        standing: limits.Standing | None = None
        close_old_connections()
        try:
            standing = limits.take(header[-64:]) if header else None
            answer = ask(header)
        except Exception as error:
            environ[REFUSAL] = error, standing
            return self.django(environ, start_response)
        finally:
            close_old_connections()
        request_id = ids.public("rid", ids.new(sandbox=False))
        start_response(
            "200 OK",
            [
                *self.headers,
                *extra,
                *(standing.headers().items() if standing is not None else ()),
                ("Content-Length", str(len(answer))),
                ("x-lava-request-id", request_id),
            ],
        )
        return [answer]


def _nothing(environ: dict[str, Any]) -> None:
    """Of other methods the door knows none."""


def _charge(environ: dict[str, Any]) -> Question | None:
    """The charge that a call asks for; None where it is no plain one."""
    length = environ.get("CONTENT_LENGTH") or ""
    if (
        environ["PATH_INFO"] not in _CHARGE
        or environ.get("CONTENT_TYPE") != "application/json"
        or not (length.isascii() and length.isdigit())
        or int(length) > parsers.LARGEST_BODY
        # Beside its request_id it brings a key of its own, which the view knows.
        or "HTTP_IDEMPOTENCY_KEY" in environ
    ):
        return None
    raw = environ["wsgi.input"].read(int(length))
    environ["wsgi.input"] = io.BytesIO(raw)
    body = _object(raw)
    return None if body is None else partial(api.charge, body=body)


def _balance(environ: dict[str, Any]) -> Question | None:
    """The balance that a call asks for; None where it is no plain one."""
    path = _BALANCE.fullmatch(environ["PATH_INFO"])
    if path is None or environ.get("QUERY_STRING") or environ.get("CONTENT_LENGTH") not in _EMPTY:
        return None
    kind, connection_id = path.groups()
    return lambda header: orjson.dumps(
        vocabulary.speak(connections.balance(header, connection_id), _WORDS[kind])
    )


_EMPTY = (None, "", "0")
# By method, with what its view adds to each answer.
_READERS: dict[str, tuple[Callable[[dict[str, Any]], Question | None], tuple[Any, ...]]] = {
    "POST": (_charge, ()),
    "GET": (_balance, (("Allow", "GET, HEAD, OPTIONS"),)),
}


def _object(raw: bytes) -> dict[str, Any] | None:
    """The object in a body; None where the long way must say what is wrong with it."""
    try:
        value = parsers.parse(raw)
    except errors.LavaError:
        return None
    return value if isinstance(value, dict) else None


def _headers() -> list[tuple[str, str]]:
    """What the middleware adds to an answer of the API, asked of the middleware once."""
    request = WSGIRequest({
        "REQUEST_METHOD": "POST",
        "PATH_INFO": _CHARGE[0],
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "443",
        "wsgi.input": io.BytesIO(),
        "wsgi.url_scheme": "https",
        **dict([settings.SECURE_PROXY_SSL_HEADER] if settings.SECURE_PROXY_SSL_HEADER else []),
    })  # fmt: skip

    def answer(request: Any) -> HttpResponse:
        return HttpResponse(content_type="application/json")

    policed = middleware.ContentSecurityPolicy(answer)
    response: Any = SecurityMiddleware(policed)(request)
    return list(response.items())
