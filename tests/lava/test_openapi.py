"""The API's description: valid, complete, true. Every example is run."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client
from django.urls import get_resolver
from jsonschema import Draft202012Validator

from lava.api.openapi import views
from lava.api.openapi.operations import OPERATIONS
from tests import wire

pytestmark = pytest.mark.django_db

# What 3.1 asks of a document, in so far as it is not JSON Schema.
REQUIRED = {"openapi", "info", "paths", "components"}


def validator(schema: dict[str, Any]) -> Draft202012Validator:
    """A validator that knows the document's shapes."""
    root = {"$defs": {}, "components": wire.description()["components"]} | schema
    return Draft202012Validator(root)


def test_the_document_is_valid_and_names_no_shape_it_has_not() -> None:
    document = wire.description()
    assert document.keys() >= REQUIRED and document["openapi"].startswith("3.1")
    shapes = document["components"]["schemas"]
    for name, shape in shapes.items():
        Draft202012Validator.check_schema(shape)
        assert name.isalnum()
    text = views.document().decode()
    for part in text.split('"$ref":"#/components/schemas/')[1:]:
        assert part.partition('"')[0] in shapes
    names = [operation["operationId"] for _, _, operation in wire.operations()]
    assert len(names) == len(set(names))
    for _, path, operation in wire.operations():
        told = {row["name"] for row in operation.get("parameters", ()) if row["in"] == "path"}
        assert told == {part[1:-1] for part in path.split("/") if part.startswith("{")}, path
        assert "401" in operation["responses"] and "429" in operation["responses"]


def test_every_view_and_method_of_the_code_is_described_and_nothing_else_is() -> None:
    described = {(method, path) for method, path, _ in wire.operations()}
    assert len(described) > 60
    methods = {method for method, _ in described}
    assert methods == {"GET", "POST", "PATCH", "PUT", "DELETE"}
    known = {(method, f"/v1/{place}") for method, place in OPERATIONS}
    assert known <= described
    patterns = [p for p in get_resolver().url_patterns if str(p.pattern) == "v1/"]
    views_of_api = [p for p in patterns[0].url_patterns if hasattr(p.callback, "cls")]
    assert len(views_of_api) == len({path for _, path in described})


@pytest.mark.parametrize(
    ("method", "path"),
    [
        (method, path)
        for method, path, operation in wire.operations()
        if "example"
        in operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    ],
)
def test_each_example_works_and_is_answered_as_described(method: str, path: str) -> None:
    world = wire.World()
    operation = wire.description()["paths"][path][method.lower()]
    body = operation["requestBody"]["content"]["application/json"]
    told = json.loads(world.real(json.dumps(body["example"])))
    if "{request_id}" in path:
        world.report()
    if path == "/v1/subscriptions":
        told["connection_id"] = world.alone.public_id
    validator(body["schema"]).validate(body["example"])
    answer = Client().generic(
        method,
        path.format(**world.ids()),
        json.dumps(told),
        content_type="application/json",
        headers={"Authorization": f"Bearer {world.key}"},
    )
    (status,) = [code for code in operation["responses"] if code.startswith("2")]
    assert answer.status_code == int(status), answer.content
    schema = operation["responses"][status]["content"]["application/json"]["schema"]
    validator(schema).validate(answer.json())


@pytest.mark.parametrize(
    ("method", "path"),
    [(method, path) for method, path, _ in wire.operations() if method in ("GET", "DELETE")],
)
def test_what_is_read_and_deleted_is_answered_as_described(method: str, path: str) -> None:
    world = wire.World()
    headers = {"Authorization": f"Bearer {world.key}"}
    world.report()
    operation = wire.description()["paths"][path][method.lower()]
    query = {"start": "2026-01-01T00:00:00+05:30"} if path == "/v1/usage" else {}
    if query:
        query["end"] = "2026-02-01T00:00:00+05:30"
    call = Client().get if method == "GET" else Client().delete
    answer = call(path.format(**world.ids()), query if method == "GET" else None, headers=headers)
    (status,) = [code for code in operation["responses"] if code.startswith("2")]
    if method == "DELETE" and path == "/v1/meters/{meter_id}":
        assert answer.json()["error"]["code"] == "meter_in_use"
        return
    assert answer.status_code == int(status), answer.content
    schema = operation["responses"][status]["content"]["application/json"]["schema"]
    validator(schema).validate(answer.json())


def test_the_page_loads_nothing_from_elsewhere() -> None:
    page = Client().get("/docs")
    assert page.status_code == 200
    policy = page["Content-Security-Policy"]
    assert "unsafe-eval" not in policy and "script-src 'self';" in policy
    assert b"//cdn" not in page.content and b"https://" not in page.content
    for address in page.content.decode().split('src="')[1:]:
        asset = address.partition('"')[0]
        assert asset.startswith("/static/")
        assert Client().get(asset).status_code == 200
    answer = Client().get("/v1/openapi.json")
    assert answer["Content-Type"] == "application/json" and answer.json()["openapi"]
