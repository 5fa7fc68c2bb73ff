"""Joins the code's paths and the descriptions of operations, for drf-spectacular."""

from __future__ import annotations

import re
from typing import Any

from drf_spectacular.openapi import AutoSchema

from billing.api.vocabulary import NEWER
from lava.api.openapi.operations import OPERATIONS, Operation
from lava.api.openapi.schemas import SCHEMAS, newer, ref

# The newer client's path, the one that is described, and its shapes' names there.
_TWINS = {"customers": "connections", "plans": "subscription_configs"}
_NAMES = {
    "Connection": "Customer",
    "Balance": "CustomerBalance",
    "Explanation": "CustomerExplanation",
    "ConnectionSubscription": "CustomerSubscription",
    "SubscriptionConfig": "Plan",
}
_ERRORS = {
    400: "Malformed: the same call can never work; `param` names the field.",
    401: "No key, or one that is not valid.",
    402: "Credits do not cover it, or the card was refused.",
    403: "Known, but not yours to do.",
    404: "No such thing; another merchant's thing is not found either.",
    405: "The address does not take that method.",
    409: "It does not fit what is there already.",
    410: "It was there and has ended.",
    413: "More bytes than are taken at once.",
    415: "A body of another kind than JSON.",
    422: "Understood, and refused by a rule.",
    429: "Too often; `Retry-After` says when to come back.",
    503: "Busy; nothing was written. `Retry-After` says when to come back.",
}


class Described(AutoSchema):
    """An operation as `operations` describes it, at the path and method the code has."""

    def get_operation(
        self, path: str, path_regex: str, path_prefix: str, method: str, registry: Any
    ) -> dict[str, Any]:
        place = path.removeprefix("/v1/")
        head, _, tail = place.partition("/")
        twin = _TWINS.get(head)
        found = operation(method, f"{twin or head}{'/' + tail if tail else ''}")
        described = _describe(found, place, method)
        return _in_newer_words(described) if twin else described


def operation(method: str, place: str) -> Operation:
    """The description of a method of a path below /v1/; PUT changes as PATCH does.

    Raises:
        LookupError: nobody described it.
    """
    key = ("PATCH" if method == "PUT" else method, place)
    if key not in OPERATIONS:
        raise LookupError(f"{method} /v1/{place} is not described in lava/api/openapi/operations")
    return OPERATIONS[key]


def without_slashes(endpoints: list[tuple[str, str, str, Any]]) -> list[tuple[str, str, str, Any]]:
    """Paths as they are written in api.md, without the slash they also take at the end."""
    return [
        (path.rstrip("/"), regex, method, view)
        for path, regex, method, view in endpoints
        if path.startswith("/v1/")
    ]


def _describe(found: Operation, place: str, method: str) -> dict[str, Any]:
    names = re.findall(r"{(\w+)}", place)
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in names
    ]
    parameters += [
        {
            "name": name,
            "in": "query",
            "required": place == "usage" and name == "start",
            "schema": schema,
        }
        for name, schema in found.query.items()
    ]
    parameters += [
        {"name": name, "in": "header", "required": False, "schema": schema}
        for name, schema in found.headers.items()
    ]
    if method == "POST" and not found.anonymous:
        parameters.append(
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": False,
                "description": "Sent again with the same key, the call has one effect and one "
                "answer.",
                "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
            }
        )
    words = re.sub(r"[{}]", "", place).replace("/", "_")
    described: dict[str, Any] = {
        "operationId": f"{method.lower()}_{words}",
        "summary": found.summary,
        "tags": [found.tag],
        "security": [] if found.anonymous else [{"secretKey": []}],
        "responses": {
            str(found.status): {
                "description": "Done.",
                "headers": {
                    name: {"schema": {"type": "string"}}
                    for name in ("x-lava-request-id", "X-RateLimit-Remaining")
                },
                "content": {"application/json": {"schema": found.answer}},
            },
            **{
                str(status): {
                    "description": words,
                    "content": {"application/json": {"schema": ref("Error")}},
                }
                for status, words in _ERRORS.items()
            },
        },
    }
    if found.description:
        described["description"] = found.description
    if parameters:
        described["parameters"] = parameters
    if found.body is not None:
        content: dict[str, Any] = {"schema": found.body}
        if found.example is not None:
            content["example"] = found.example
        described["requestBody"] = {
            "required": bool(found.body.get("required", True)),
            "content": {"application/json": content},
        }
    return described


def _in_newer_words(value: Any) -> Any:
    """An operation of a path that the newer client knows, in its words."""
    return _rename(newer(value))


def _rename(value: Any) -> Any:
    if isinstance(value, list):
        return [_rename(item) for item in value]
    if not isinstance(value, dict):
        return value
    said = {NEWER.get(key, key): _rename(item) for key, item in value.items()}
    if "$ref" in said:
        name = said["$ref"].rpartition("/")[2]
        return ref(_NAMES.get(name, name))
    return said


def with_schemas(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """The shapes and the way to sign in, beside the paths."""
    result["components"] = {
        "schemas": SCHEMAS,
        "securitySchemes": {
            "secretKey": {
                "type": "http",
                "scheme": "bearer",
                "description": "A secret key: `aks_live_...`, or `aks_test_...` for the sandbox.",
            }
        },
    }
    return result
