"""Stripe's form encoding (`a[b][0]=x`) read into nested values. Pure; called by the server for
bodies and queries."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl

from lava.demo.card_network.errors import ApiError

_MAX_DEPTH = 8
_NAME = re.compile(r"^([^\[\]]+)((?:\[[^\[\]]*\])*)$")


def parse(text: str) -> dict[str, Any]:
    """The parameters of a form body or query string; lists where the indexes say so.

    Raises ApiError 400 for a name that is no bracket name, or one used both as a value and as a
    group.
    """
    root: dict[str, Any] = {}
    try:
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=False, errors="strict")
    except ValueError as error:
        raise ApiError(400, f"Invalid request body: {error}") from error
    for name, value in pairs:
        _put(root, _path(name), value, name)
    return {name: _with_lists(value, name) for name, value in root.items()}


def _path(name: str) -> list[str]:
    match = _NAME.match(name)
    if match is None:
        raise ApiError(400, f"Invalid parameter name: {name}", param=name)
    path = [match[1], *re.findall(r"\[([^\[\]]*)\]", match[2])]
    if len(path) > _MAX_DEPTH:
        raise ApiError(400, f"Parameter is nested too deeply: {name}", param=name)
    return path


def _put(root: dict[str, Any], path: list[str], value: str, name: str) -> None:
    group = root
    for step in path[:-1]:
        key = str(len(group)) if step == "" else step
        group = group.setdefault(key, {})
        if not isinstance(group, dict):
            raise ApiError(400, f"Invalid parameter: {name}", param=name)
    last = str(len(group)) if path[-1] == "" else path[-1]
    if isinstance(group.get(last), dict):
        raise ApiError(400, f"Invalid parameter: {name}", param=name)
    group[last] = value


def _with_lists(value: Any, name: str) -> Any:
    """Groups whose keys are all numbers become lists; metadata keeps its keys whatever they are."""
    if not isinstance(value, dict):
        return value
    if name != "metadata" and value and all(key.isdigit() for key in value):
        return [_with_lists(value[key], key) for key in sorted(value, key=int)]
    return {key: _with_lists(inner, key) for key, inner in value.items()}
