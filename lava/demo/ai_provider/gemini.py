"""Gemini's dialect: generateContent, its stream, token counts, models. Shapes:
ai.google.dev/api/generate-content"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from lava.demo.ai_provider import answers, replies
from lava.demo.ai_provider.answers import Answer, Call, Json, RefusedError, Stream, Whole, frame
from lava.demo.ai_provider.replies import Reply

MODELS = ("gemini-2.5-flash", "gemini-2.5-pro", "gemini-2.0-flash")
_METHOD = re.compile(r"^/v1(?:beta)?/models/([^/:]+)(?::(\w+))?$")
_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def answer(call: Call) -> Answer:
    """The answer to any request in this dialect. Raises RefusedError."""
    if not (
        call.headers.get("x-goog-api-key")
        or call.query.get("key")
        or call.headers.get("authorization")
    ):
        raise RefusedError(
            403,
            "Method doesn't allow unauthenticated callers (callers without established identity). "
            "Please use API Key or other form of API consumer identity to call this API.",
        )
    if call.method == "GET" and call.path == "/v1beta/models":
        return Whole({"models": [_model(name) for name in MODELS]})
    match = _METHOD.match(call.path)
    if match is None:
        raise RefusedError(404, "Requested entity was not found.")
    model, method = match[1], match[2]
    if method is None and call.method == "GET" and model in MODELS:
        return Whole(_model(model))
    handler = {
        "generateContent": generate,
        "streamGenerateContent": stream,
        "countTokens": count_tokens,
    }.get(method or "")
    if handler is None or call.method != "POST":
        raise RefusedError(
            404, f"models/{model} is not found for API version v1beta, or does not support this."
        )
    return handler(call, model)


def error(refused: RefusedError) -> Json:
    """An error as Google shapes it."""
    status = _STATUSES.get(refused.status, "INTERNAL")
    return {"error": {"code": refused.status, "message": refused.message, "status": status}}


def generate(call: Call, model: str) -> Answer:
    """POST ...:generateContent"""
    reply = _reply(call)
    head = {"modelVersion": model, "responseId": answers.new_id("")}
    candidate = _candidate(reply.text, finish=_finish(reply))
    return Whole({"candidates": [candidate], "usageMetadata": _usage(reply), **head})


def stream(call: Call, model: str) -> Answer:
    """POST ...:streamGenerateContent: server-sent events with `alt=sse`, else one JSON array."""
    reply = _reply(call)
    if call.query.get("alt") == "sse":
        return Stream(frame(chunk) for chunk in _chunks(reply, model))
    return Stream(_array(reply, model), kind="application/json; charset=UTF-8")


def _chunks(reply: Reply, model: str) -> Iterator[Json]:
    """The usage is on every chunk and complete on the last, as Google sends it."""
    head = {"modelVersion": model, "responseId": answers.new_id("")}
    pieces = list(reply.pieces()) or [""]
    for index, piece in enumerate(pieces):
        last = index == len(pieces) - 1
        yield {
            "candidates": [_candidate(piece, finish=_finish(reply) if last else None)],
            "usageMetadata": _usage(reply) if last else _usage_so_far(reply),
            **head,
        }


def _array(reply: Reply, model: str) -> Iterator[bytes]:
    for index, chunk in enumerate(_chunks(reply, model)):
        yield (b"[" if index == 0 else b",\r\n") + json.dumps(chunk, indent=2).encode()
    yield b"]\n"


def count_tokens(call: Call, _: str) -> Answer:
    """POST ...:countTokens"""
    return Whole({"totalTokens": _reply(call).input_tokens})


def _reply(call: Call) -> Reply:
    contents = call.body.get("contents")
    if not isinstance(contents, list) or not contents:
        raise RefusedError(400, "* GenerateContentRequest.contents: contents is not specified")
    config = call.body.get("generationConfig")
    return replies.reply(
        [call.body.get("systemInstruction") or call.body.get("system_instruction") or "", contents],
        overhead=0,
        limit=answers.output_limit(config if isinstance(config, dict) else {}, "maxOutputTokens"),
        headers=call.headers,
    )


def _finish(reply: Reply) -> str:
    return "MAX_TOKENS" if reply.cut else "STOP"


def _candidate(text: str, *, finish: str | None) -> Json:
    candidate: Json = {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}
    if finish is not None:
        candidate["finishReason"] = finish
    return candidate


def _usage(reply: Reply) -> Json:
    return {
        "promptTokenCount": reply.input_tokens,
        "candidatesTokenCount": reply.output_tokens,
        "totalTokenCount": reply.input_tokens + reply.output_tokens,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": reply.input_tokens}],
        "candidatesTokensDetails": [{"modality": "TEXT", "tokenCount": reply.output_tokens}],
    }


def _usage_so_far(reply: Reply) -> Json:
    return {
        "promptTokenCount": reply.input_tokens,
        "totalTokenCount": reply.input_tokens,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": reply.input_tokens}],
    }


def _model(name: str) -> Json:
    return {
        "name": f"models/{name}",
        "version": "001",
        "displayName": name,
        "inputTokenLimit": 1_048_576,
        "outputTokenLimit": 65_536,
        "supportedGenerationMethods": ["generateContent", "countTokens"],
    }
