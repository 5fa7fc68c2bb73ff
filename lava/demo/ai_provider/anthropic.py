"""Anthropic's dialect: messages, token counts, models. Shapes:
docs.anthropic.com/en/api/messages"""

from __future__ import annotations

from collections.abc import Iterator

from lava.demo.ai_provider import answers, replies
from lava.demo.ai_provider.answers import Answer, Call, Json, RefusedError, Stream, Whole, frame
from lava.demo.ai_provider.replies import Reply

MODELS = ("claude-sonnet-4-5", "claude-haiku-4-5", "claude-opus-4-1")
# What the message format costs beyond the texts, in tokens a message and for the answer.
_A_MESSAGE, _ANSWER = 4, 3
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def answer(call: Call) -> Answer:
    """The answer to any request in this dialect. Raises RefusedError."""
    if not (call.headers.get("x-api-key") or call.headers.get("authorization")):
        raise RefusedError(401, "x-api-key header is required")
    handler = {
        "POST /v1/messages": messages,
        "POST /v1/messages/count_tokens": count_tokens,
        "GET /v1/models": models,
    }.get(f"{call.method} {call.path}")
    if handler is not None:
        return handler(call)
    name = call.path.removeprefix("/v1/models/")
    if call.method == "GET" and name in MODELS:
        return Whole(_model(name))
    raise RefusedError(404, f"model: {name}" if name != call.path else "Not found")


def error(refused: RefusedError) -> Json:
    """An error as Anthropic shapes it."""
    kind = _TYPES.get(refused.status, "api_error")
    return {
        "type": "error",
        "error": {"type": kind, "message": refused.message},
        "request_id": answers.new_id("req_"),
    }


def messages(call: Call) -> Answer:
    """POST /v1/messages"""
    model = _model_of(call.body)
    limit = answers.output_limit(call.body, "max_tokens")
    if limit is None:
        raise RefusedError(400, "max_tokens: Field required", param="max_tokens")
    reply = _reply(call, limit)
    shape: Json = {
        "id": answers.new_id("msg_"),
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }
    stop = "max_tokens" if reply.cut else "end_turn"
    if call.body.get("stream"):
        return Stream(_frames(shape, reply, stop))
    whole = {
        **shape,
        "content": [{"type": "text", "text": reply.text}],
        "stop_reason": stop,
        "usage": _usage(reply, reply.output_tokens),
    }
    return Whole(whole)


def _frames(shape: Json, reply: Reply, stop: str) -> Iterator[bytes]:
    """`message_start` states the input and one output token, `message_delta` the whole,
    cumulatively."""

    def event(kind: str, data: Json) -> bytes:
        return frame({"type": kind, **data}, event=kind)

    first = min(1, reply.output_tokens)
    yield event("message_start", {"message": {**shape, "usage": _usage(reply, first)}})
    yield event("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}})
    yield event("ping", {})
    for piece in reply.pieces():
        delta = {"type": "text_delta", "text": piece}
        yield event("content_block_delta", {"index": 0, "delta": delta})
    yield event("content_block_stop", {"index": 0})
    usage = {
        "input_tokens": reply.input_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": reply.output_tokens,
    }
    yield event(
        "message_delta", {"delta": {"stop_reason": stop, "stop_sequence": None}, "usage": usage}
    )
    yield event("message_stop", {})


def _usage(reply: Reply, output: int) -> Json:
    return {
        "input_tokens": reply.input_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": output,
        "service_tier": "standard",
    }


def count_tokens(call: Call) -> Answer:
    """POST /v1/messages/count_tokens"""
    _model_of(call.body)
    return Whole({"input_tokens": _reply(call, None).input_tokens})


def models(_: Call) -> Answer:
    """GET /v1/models, in Anthropic's shape"""
    return Whole(
        {
            "data": [_model(name) for name in MODELS],
            "has_more": False,
            "first_id": MODELS[0],
            "last_id": MODELS[-1],
        }
    )


def _reply(call: Call, limit: int | None) -> Reply:
    listed = call.body.get("messages")
    if not isinstance(listed, list) or not listed:
        raise RefusedError(400, "messages: Field required", param="messages")
    return replies.reply(
        [call.body.get("system") or "", listed],
        overhead=_A_MESSAGE * len(listed) + _ANSWER,
        limit=limit,
        headers=call.headers,
    )


def _model_of(body: Json) -> str:
    if not isinstance(body.get("model"), str):
        raise RefusedError(400, "model: Field required", param="model")
    return answers.model_of(body)


def _model(name: str) -> Json:
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": "2025-09-29T00:00:00Z",
    }
