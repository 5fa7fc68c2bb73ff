"""The short way of a charge and of a balance answers what the long way answers, to the header."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.signals import request_finished, request_started
from django.db import close_old_connections
from django.test import override_settings
from django.utils import timezone

from billing.api import views
from billing.models import Connection, SecretKey
from lava import wsgi
from lava.api import door
from lava.api.door import Door
from meters.models import UsageRequest
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def kept_connections(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A test's transaction stays open: requests close no connection, as in Django's test client."""
    monkeypatch.setattr(door, "close_old_connections", lambda: None)
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


class Shop:
    def __init__(self, **plan: Any) -> None:
        self.merchant = factories.make_merchant()
        self.plan = factories.make_plan(self.merchant, **plan)
        factories.make_meter(self.merchant, self.plan)
        self.connection = factories.make_subscription(self.plan, now=timezone.now()).connection
        self.key = factories.make_key(self.merchant)

    def body(self, **fields: Any) -> bytes:
        whole = {
            "request_id": "r1",
            "connection_id": self.connection.public_id,
            "meter_slug": "chat",
            "input_tokens": 1000,
        }
        return json.dumps(whole | fields).encode()


class Answer:
    def __init__(self, application: Any, raw: bytes, environ: dict[str, Any]) -> None:
        said: list[Any] = []
        chunks = application(environ, lambda status, headers: said.extend([status, headers]))
        self.body = b"".join(chunks)
        if hasattr(chunks, "close"):
            chunks.close()
        self.status = int(said[0][:3])
        self.headers = {name.lower(): value for name, value in said[1]}
        self.json = json.loads(self.body)


def environ(key: str, raw: bytes, **changes: Any) -> dict[str, Any]:
    return {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/v1/requests",
        "SCRIPT_NAME": "",
        "QUERY_STRING": "",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "127.0.0.1:8000",
        "HTTP_AUTHORIZATION": f"Bearer {key}",
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(raw)),
        "wsgi.input": io.BytesIO(raw),
        "wsgi.url_scheme": "http",
        "wsgi.errors": io.StringIO(),
        "REMOTE_ADDR": "127.0.0.1",
    } | changes


def reading(key: str, path: str, **changes: Any) -> dict[str, Any]:
    body = {"REQUEST_METHOD": "GET", "CONTENT_TYPE": "", "CONTENT_LENGTH": ""}
    return environ(key, b"") | body | {"PATH_INFO": path} | changes


def both_read(key: str, path: str, **changes: Any) -> tuple[Answer, Answer]:
    """A read the short way, and the long way."""
    return (
        Answer(wsgi.application, b"", reading(key, path, **changes)),
        Answer(wsgi.django, b"", reading(key, path, **changes)),
    )


def both(key: str, raw: bytes, **changes: Any) -> tuple[Answer, Answer]:
    """The short way's answer, and the long way's."""
    return (
        Answer(wsgi.application, raw, environ(key, raw, **changes)),
        Answer(wsgi.django, raw, environ(key, raw, **changes)),
    )


def never(environ: Any, start_response: Any) -> Any:
    raise AssertionError("it went the long way")


def test_a_charge_goes_the_short_way_and_answers_as_the_long_one() -> None:
    shop = Shop()
    raw = shop.body()
    short = Answer(Door(never), raw, environ(shop.key, raw))
    again, long = both(shop.key, raw)
    assert short.status == long.status == 200
    assert short.body == again.body == long.body
    assert UsageRequest.objects.count() == 1
    _same_headers(short, long)


def _same_headers(short: Answer, long: Answer) -> None:
    length = {"content-length": str(len(long.body))}
    ours, theirs = short.headers, long.headers | length
    assert ours.keys() == theirs.keys()
    # Each call has an id of its own, and is one of the key's calls of this minute.
    for own in ("x-lava-request-id", "x-ratelimit-remaining"):
        assert ours.pop(own) != theirs.pop(own)
    assert ours.keys() == theirs.keys()
    ours.pop("x-ratelimit-reset"), theirs.pop("x-ratelimit-reset")
    assert ours == theirs


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"null",
        b'{"a": NaN}',
        b'{"request_id": "a", "request_id": "b"}',
        b'{"request_id": "\\u0000"}',
        b'{"request_id": "\xff"}',
        b"[" * 40 + b"]" * 40,
    ],
)
def test_a_broken_body_is_refused_alike(raw: bytes) -> None:
    short, long = both(Shop().key, raw)
    assert short.status == long.status == 400
    _same_refusal(short, long)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"input_tokens": -1}, 400),
        ({"timestamp": "2020-01-01T00:00:00Z"}, 422),
        ({"connection_id": "con_1"}, 404),
        ({"meter_slug": "none"}, 404),
        ({"input_tokens": 9_000_000, "enforce": True}, 402),
    ],
)
def test_a_refusal_is_answered_alike_and_writes_nothing(fields: Any, status: int) -> None:
    shop = Shop(when_depleted="block")
    short, long = both(shop.key, shop.body(**fields))
    assert short.status == long.status == status
    _same_refusal(short, long)
    assert not UsageRequest.objects.exists()


def test_the_same_id_with_another_body_is_a_conflict_both_ways() -> None:
    shop = Shop()
    both(shop.key, shop.body())
    short, long = both(shop.key, shop.body(input_tokens=2))
    assert short.status == long.status == 409
    _same_refusal(short, long)


@pytest.mark.parametrize("header", ["", "Bearer", "Basic abc", "Bearer aks_test_short"])
def test_without_a_valid_key_both_ways_say_401(header: str) -> None:
    short, long = both("", Shop().body(), HTTP_AUTHORIZATION=header)
    assert short.status == long.status == 401
    assert short.headers["www-authenticate"] == long.headers["www-authenticate"]
    _same_refusal(short, long)


def test_a_refusal_asks_the_database_once(django_assert_num_queries: Any) -> None:
    shop = Shop()
    raw = shop.body(meter_slug="none")
    with django_assert_num_queries(1):
        assert Answer(wsgi.application, raw, environ(shop.key, raw)).status == 404


@pytest.mark.parametrize(
    "changes",
    [
        {"CONTENT_TYPE": "application/x-www-form-urlencoded"},
        {"CONTENT_TYPE": "application/json; charset=utf-8"},
        {"CONTENT_LENGTH": ""},
        {"CONTENT_LENGTH": str(2**21)},
        {"PATH_INFO": "/v1/usage"},
        {"REQUEST_METHOD": "GET"},
    ],
)
def test_what_is_no_plain_charge_goes_the_long_way(changes: dict[str, str]) -> None:
    shop = Shop()
    raw = shop.body()
    with pytest.raises(AssertionError, match="the long way"):
        Door(never)(environ(shop.key, raw, **changes), lambda status, headers: None)
    assert not UsageRequest.objects.exists()


def test_plain_http_goes_the_long_way_where_https_is_asked_for() -> None:
    shop = Shop()
    raw = shop.body()
    with override_settings(
        SECURE_SSL_REDIRECT=True, SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https")
    ):
        secured = Door(never)
        with pytest.raises(AssertionError, match="the long way"):
            secured(environ(shop.key, raw), lambda status, headers: None)
        secure = Answer(secured, raw, environ(shop.key, raw, HTTP_X_FORWARDED_PROTO="https"))
    assert secure.status == 200


@pytest.mark.parametrize(
    ("kind", "name"), [("connections", "connection_id"), ("customers", "customer_id")]
)
def test_a_balance_goes_the_short_way_and_answers_as_the_long_one(kind: str, name: str) -> None:
    shop = Shop()
    path = f"/v1/{kind}/{shop.connection.public_id}/balance"
    short = Answer(Door(never), b"", reading(shop.key, path))
    again, long = both_read(shop.key, f"{path}/")
    assert short.status == long.status == 200
    assert short.body == again.body == long.body
    assert short.json[name] == shop.connection.public_id
    assert short.json["total_remaining"] == "25.0000000000"
    _same_headers(short, long)


def test_a_balance_asks_the_database_once(
    django_assert_num_queries: Any,
) -> None:
    shop = Shop()
    path = f"/v1/connections/{shop.connection.public_id}/balance"
    with django_assert_num_queries(1):
        assert Answer(wsgi.application, b"", reading(shop.key, path)).status == 200
    other = f"/v1/connections/{factories.make_connection(factories.make_merchant()).public_id}"
    with django_assert_num_queries(1):
        assert Answer(wsgi.application, b"", reading(shop.key, f"{other}/balance")).status == 404


@pytest.mark.parametrize(
    "state", ["deleted", "pending", "of another", "no id", "con_1", "con_test_1"]
)
def test_a_balance_that_is_not_there_is_said_alike(state: str) -> None:
    shop = Shop()
    name = shop.connection.public_id
    if state == "of another":
        name = factories.make_connection(factories.make_merchant()).public_id
    elif state in ("deleted", "pending"):
        Connection.objects.filter(pk=shop.connection.pk).update(status=state)
    else:
        name = state
    short, long = both_read(shop.key, f"/v1/connections/{name}/balance")
    assert short.status == long.status == 404
    _same_refusal(short, long)


@pytest.mark.parametrize("header", ["", "Bearer", "Basic abc", "Bearer aks_test_short", "revoked"])
@pytest.mark.parametrize("name", ["", "con_1"])
def test_a_balance_without_a_valid_key_is_401_whatever_was_asked(header: str, name: str) -> None:
    shop = Shop()
    if header == "revoked":
        header = f"Bearer {shop.key}"
        SecretKey.objects.update(revoked_at=timezone.now())
    path = f"/v1/connections/{name or shop.connection.public_id}/balance"
    short, long = both_read("", path, HTTP_AUTHORIZATION=header)
    assert short.status == long.status == 401
    assert short.headers["www-authenticate"] == long.headers["www-authenticate"]
    _same_refusal(short, long)


@pytest.mark.parametrize(
    "changes",
    [
        {"QUERY_STRING": "a=%00"},
        {"CONTENT_LENGTH": "2"},
        {"REQUEST_METHOD": "HEAD"},
        {"REQUEST_METHOD": "POST"},
        {"PATH_INFO": "/v1/connections/con_1/balance/x"},
        {"PATH_INFO": "/v1/connections/con_1\n/balance"},
        {"PATH_INFO": "/v1/connections/con_1/balance\n"},
        {"PATH_INFO": "/v1/connections/con_\u0661/balance"},
        {"PATH_INFO": "/v1/connections/con_1"},
    ],
)
def test_what_is_no_plain_read_goes_the_long_way(changes: dict[str, str]) -> None:
    asked = reading(Shop().key, "/v1/connections/con_1/balance", **changes)
    with pytest.raises(AssertionError, match="the long way"):
        Door(never)(asked, lambda status, headers: None)


def test_no_header_reaches_the_place_of_a_refusal() -> None:
    """Headers stand in the environment as HTTP_..., so nobody can send one."""
    assert not views.REFUSAL.startswith("HTTP_")
    assert not views.REFUSAL.isupper()


def _same_refusal(short: Answer, long: Answer) -> None:
    ours, theirs = short.json["error"], long.json["error"]
    assert ours.pop("request_id") == short.headers["x-lava-request-id"]
    assert theirs.pop("request_id") == long.headers["x-lava-request-id"]
    assert ours == theirs
