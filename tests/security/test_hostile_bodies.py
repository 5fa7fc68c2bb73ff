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
from tests.security.hostile import example, real, writing
from tests.security.inputs import BROKEN, NEVER_RIGHT, ODD, QUERIES

pytestmark = pytest.mark.django_db

# One for all: each new one would load the middleware anew, which costs what a refusal costs.
CLIENT = Client(raise_request_exception=False)


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
