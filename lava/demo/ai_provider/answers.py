"""What a dialect hands back to the server: a JSON answer, or a stream of frames; and what went
wrong. Pure."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Call:
    """One request as the dialects see it; header names in lower case, `body` the parsed JSON
    object."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Json


@dataclass(frozen=True)
class Whole:
    """An answer in one piece."""

    body: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Stream:
    """An answer in frames, each ready for the line."""

    frames: Iterator[bytes]
    kind: str = "text/event-stream; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)


Answer = Whole | Stream


class RefusedError(Exception):
    """The request is answered with an error of this status, in the dialect's shape."""

    def __init__(self, status: int, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param


def frame(data: Any, *, event: str | None = None) -> bytes:
    """One server-sent event."""
    head = f"event: {event}\n" if event else ""
    text = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"))
    return f"{head}data: {text}\n\n".encode()


def new_id(prefix: str) -> str:
    """A fresh id; ids are the one thing that differs between two equal calls."""
    return prefix + secrets.token_hex(12)


def output_limit(body: Json, *names: str) -> int | None:
    """The first of the limits `names` that the request sets. Raises RefusedError 400 unless
    positive."""
    for name in names:
        value = body.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise RefusedError(
                400, f"Invalid value for '{name}': expected a whole number from 1.", param=name
            )
        return value
    return None


def model_of(body: Json) -> str:
    """The request's model. Raises RefusedError 400 when there is none."""
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise RefusedError(400, "you must provide a model parameter", param="model")
    return model
