"""Hostile bodies for every field of every endpoint: never a 5xx, never HTML, never a row.

The fields are those of the API's description, so a field that is added is attacked from then on.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.db import transaction
from django.test import Client

from tests import wire

pytestmark = pytest.mark.django_db

# As JSON text, since some of it is no JSON that a library would write.
NEVER_RIGHT = [
    '"\\u0000"',
    '"a\\u0000b"',
    '"\\ud800"',
    '"\\udfff\\ud800"',
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    "1e5",
    "9" * 65,
    "-" + "9" * 64,
    "0.1234567890123456789012345678901234567890123456789012345678901234567890",
    "[" * 40 + "]" * 40,
    '{"a":' * 40 + "1" + "}" * 40,
    '{"a": 1, "a": 2}',
    "tru",
    "'text'",
    "",
]
# Well-formed JSON that hardly any field takes; a field that does may answer with success.
ODD = [
    "null",
    "true",
    "0",
    "-1",
    "1.5",
    "9007199254740993",
    "999999999999",
    "[]",
    "{}",
    "[null]",
    "[[[]]]",
    '[{"id": 1}]',
    '{"": ""}',
    '{"$gt": ""}',
    '""',
    '" "',
    '"\\n"',
    '"' + "x" * 10_000 + '"',
    '"\uff11\uff12"',
    '"1_0"',
    '"+1"',
    '"1e3"',
    '"NaN"',
    '"-0.00"',
    '"00000000000000000001"',
    '"999999999999.9999999999"',
    '"0.00000000001"',
    '"\' OR 1=1 --"',
    '"%s%n{}{0}"',
    '"../../etc/passwd"',
    '"<svg onload=alert(1)>"',
    '"\u202e\u200b\ufeff"',
    '"\U0001f4a9"',
    '"con_01JDAFW9ZVFM6A4SHQ6GPC0T4E"',
    '"2026-13-45T99:99:99Z"',
    '"9999-12-31T23:59:59+14:00"',
    '"0001-01-01T00:00:00Z"',
    '"https://127.0.0.1/"',
    '"//evil"',
]
BROKEN = [
    b"",
    b" ",
    b"{",
    b"[]",
    b"null",
    b'"text"',
    b"1",
    b"{}{}",
    b"{'a': 1}",
    b"\xff\xfe{\x00}\x00",
    b"\xef\xbb\xbf{}",
    b'{"a": "\xff"}',
    b'{"a": "\xc0\x80"}',
    b'{"a": "\xed\xa0\x80"}',
    b"\x00" * 20,
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"__proto__": {"status": 1}, "constructor": 2}',
]
QUERIES = [
    "limit=%00",
    "limit=1e3",
    "limit=" + "9" * 5000,
    "cursor=%00",
    "cursor=x",
    "connection_id='",
    "connection_id=a&customer_id=b",
    "meter_id=%ff",
    "metadata_filters={",
    'metadata_filters=[["a","\\u0000"]]',
    'metadata_filters=[["a","\\ud800"]]',
    "metadata_filters=" + "[" * 999,
    "start=x",
    "start=2026-01-01T00:00:00Z&end=%00",
    "start=9000-01-01T00:00:00Z",
    "start=2026-01-01T00:00:00%2B23:59",
    "status=%00",
    "phone=%00",
    "to=%00",
    "provider=%00",
]


# One for all: each new one would load the middleware anew, which costs what a refusal costs.
CLIENT = Client(raise_request_exception=False)


def fields_of(schema: dict[str, Any], shapes: dict[str, Any]) -> list[str]:
    if "$ref" in schema:
        schema = shapes[schema["$ref"].rpartition("/")[2]]
    return sorted(schema.get("properties", {}))


def writing() -> list[tuple[str, str, list[str]]]:
    shapes = wire.description()["components"]["schemas"]
    return [
        (
            method,
            path,
            fields_of(operation["requestBody"]["content"]["application/json"]["schema"], shapes),
        )
        for method, path, operation in wire.operations()
        # PUT, /customers and /plans are the same views.
        if "requestBody" in operation
        and method != "PUT"
        and not path.startswith(("/v1/customers", "/v1/plans"))
    ]


def example(method: str, path: str, world: wire.World) -> dict[str, Any]:
    content = wire.description()["paths"][path][method.lower()]["requestBody"]["content"]
    found: dict[str, Any] = json.loads(
        world.real(json.dumps(content["application/json"].get("example", {})))
    )
    return found


def real(path: str, world: wire.World) -> str:
    """A described path with the ids of things that are there; any other path as it is."""
    return path.format(**world.ids()) if path in wire.description()["paths"] else path


def send(method: str, path: str, raw: bytes, world: wire.World, **headers: str) -> Any:
    answer = CLIENT.generic(
        method,
        real(path, world),
        raw,
        content_type="application/json",
        headers={"Authorization": f"Bearer {world.key}"} | headers,
    )
    assert answer.status_code < 500, (method, path, raw[:200], answer.content)
    assert answer["Content-Type"] == "application/json"
    if answer.status_code >= 400:
        error = answer.json()["error"]
        assert error["message"] and error["code"] and error["status"] == answer.status_code
        assert b"Traceback" not in answer.content and b"<html" not in answer.content.lower()
    return answer


@pytest.mark.parametrize(("method", "path", "fields"), writing())
def test_no_field_takes_what_is_never_right(method: str, path: str, fields: list[str]) -> None:
    world = wire.World()
    told = example(method, path, world)
    before = wire.rows()
    for name in fields:
        rest = json.dumps({key: value for key, value in told.items() if key != name})[1:]
        for value in NEVER_RIGHT:
            comma = ", " if rest != "}" else ""
            raw = f'{{"{name}": {value}{comma}{rest}'.encode()
            answer = send(method, path, raw, world)
            assert answer.status_code == 400, (name, value[:80], answer.content)
    assert wire.rows() == before


@pytest.mark.parametrize(("method", "path", "fields"), writing())
def test_odd_values_are_refused_by_name_or_taken_whole(
    method: str, path: str, fields: list[str]
) -> None:
    world = wire.World()
    told = example(method, path, world)
    before = wire.rows()
    for name in fields:
        for value in ODD:
            raw = json.dumps(told | {name: "@"}).replace('"@"', value).encode()
            place = transaction.savepoint()
            if send(method, path, raw, world).status_code < 400:
                # Taken: a fresh start for the next value.
                transaction.savepoint_rollback(place)
    # What was refused wrote nothing.
    assert wire.rows() == before


@pytest.mark.parametrize(("method", "path", "fields"), writing())
def test_a_broken_body_is_refused_and_writes_nothing(
    method: str, path: str, fields: list[str]
) -> None:
    world = wire.World()
    before = wire.rows()
    required = bool(wire.description()["paths"][path][method.lower()]["requestBody"]["required"])
    for raw in BROKEN:
        answer = send(method, path, raw, world)
        if answer.status_code < 400:
            # An empty object, or one of unknown fields: a call that needs no field.
            assert raw.strip() in (b"", BROKEN[-1]), raw
    large = b'{"a": "' + b"x" * (9 * 1024 * 1024) + b'"}'
    assert send(method, path, large, world).status_code == 413
    for kind in ("text/html", "application/x-www-form-urlencoded", "multipart/form-data"):
        refused = Client().generic(
            method,
            path.format(**world.ids()),
            b"a=b",
            content_type=kind,
            headers={"Authorization": f"Bearer {world.key}"},
        )
        assert refused.status_code == 415
    if required:
        assert wire.rows() == before


@pytest.mark.parametrize("path", sorted(wire.description()["paths"]))
def test_verbs_slashes_and_hostile_ids_are_answered_in_the_envelope(path: str) -> None:
    world = wire.World()
    methods = {method.upper() for method in wire.description()["paths"][path]}
    before = wire.rows()
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "head"):
        if method.upper() in methods:
            continue
        for slash in ("", "/"):
            answer = CLIENT.generic(
                method.upper(),
                path.format(**world.ids()) + slash,
                headers={"Authorization": f"Bearer {world.key}"},
            )
            # HEAD asks what GET does: without its query a list may be malformed.
            allowed = (405, 200, 400, 404) if method == "head" else (405,)
            assert answer.status_code in allowed, (method, path)
            assert answer["Content-Type"] == "application/json"
    if "{" in path and "GET" in methods:
        for text in ("%00", "a%00b", "..", "%2e%2e", "con_1", "'", "%ff", "x" * 3000, "%0a", "{}"):
            hostile = path.format(**dict.fromkeys(world.ids(), text))
            answer = send("GET", hostile.replace("{", "%7B").replace("}", "%7D"), b"", world)
            assert answer.status_code in (404, 400), (path, text)
    if "GET" in methods:
        here = real(path, world)
        for query in QUERIES:
            send("GET", f"{here}?{query}", b"", world)
    assert wire.rows() == before
