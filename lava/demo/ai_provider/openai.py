"""OpenAI's dialect: chat completions, responses, embeddings, models. Shapes:
platform.openai.com/docs/api-reference"""

from __future__ import annotations

import base64
import hashlib
import struct
import time
from collections.abc import Iterator
from typing import Any

from lava.demo.ai_provider import answers, replies, tokens
from lava.demo.ai_provider.answers import Answer, Call, Json, RefusedError, Stream, Whole, frame
from lava.demo.ai_provider.replies import Reply

MODELS = ("gpt-4o-mini", "gpt-4o", "gpt-4.1-mini", "gpt-5-mini", "text-embedding-3-small")
# What the chat format costs beyond the texts: three tokens a message, three to open the answer.
_A_MESSAGE, _ANSWER = 3, 3
_CREATED = 1_754_902_196
_ERROR_TYPES = {401: "invalid_request_error", 403: "invalid_request_error", 429: "requests"}


def answer(call: Call) -> Answer:
    """The answer to any request in this dialect. Raises RefusedError."""
    if not call.headers.get("authorization", "").startswith("Bearer "):
        raise RefusedError(
            401,
            "You didn't provide an API key. You need to provide your API key in an Authorization "
            "header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY).",
        )
    handler = {
        "POST /v1/chat/completions": chat,
        "POST /v1/responses": responses,
        "POST /v1/embeddings": embeddings,
        "GET /v1/models": models,
    }.get(f"{call.method} {call.path}")
    if handler is not None:
        return handler(call)
    name = call.path.removeprefix("/v1/models/")
    if call.method == "GET" and name in MODELS:
        return Whole(_model(name))
    if call.method == "GET" and call.path.startswith("/v1/models/"):
        raise RefusedError(404, f"The model '{name}' does not exist", param="model")
    raise RefusedError(404, f"Invalid URL ({call.method} {call.path})")


def error(refused: RefusedError) -> Json:
    """An error as OpenAI shapes it."""
    status = refused.status
    code = {401: "invalid_api_key", 429: "rate_limit_exceeded"}.get(status)
    if status == 404 and refused.param == "model":
        code = "model_not_found"
    kind = _ERROR_TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {
        "error": {
            "message": refused.message,
            "type": kind,
            "param": refused.param,
            "code": code,
        }
    }


def chat(call: Call) -> Answer:
    """POST /v1/chat/completions"""
    body = call.body
    model = answers.model_of(body)
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RefusedError(400, "Missing required parameter: 'messages'.", param="messages")
    choices = body.get("n") or 1
    if not isinstance(choices, int) or not 1 <= choices <= 128:
        raise RefusedError(400, "Invalid value for 'n': expected 1 to 128.", param="n")
    reply = replies.reply(
        messages,
        overhead=_A_MESSAGE * len(messages) + _ANSWER,
        limit=answers.output_limit(body, "max_completion_tokens", "max_tokens"),
        headers=call.headers,
    )
    head: Json = {
        "id": answers.new_id("chatcmpl-"),
        "created": int(time.time()),
        "model": model,
        "service_tier": "default",
        "system_fingerprint": None,
    }
    usage = _chat_usage(reply, choices)
    finish = "length" if reply.cut else "stop"
    if body.get("stream"):
        options = body.get("stream_options")
        wanted = isinstance(options, dict) and bool(options.get("include_usage"))
        return Stream(_chat_frames(head, reply, choices, finish, usage if wanted else None))
    whole = {
        **head,
        "object": "chat.completion",
        "choices": [
            {
                "index": index,
                "message": {
                    "role": "assistant",
                    "content": reply.text,
                    "refusal": None,
                    "annotations": [],
                },
                "logprobs": None,
                "finish_reason": finish,
            }
            for index in range(choices)
        ],
        "usage": usage,
    }
    return Whole(whole)


def _chat_frames(
    head: Json, reply: Reply, choices: int, finish: str, usage: Json | None
) -> Iterator[bytes]:
    """The chunks; with `usage` each carries the field, null until a last chunk without choices."""

    def chunk(listed: list[Json], last: Json | None = None) -> bytes:
        data: Json = {**head, "object": "chat.completion.chunk", "choices": listed}
        if usage is not None:
            data["usage"] = last
        return frame(data)

    def choice(index: int, delta: Json, reason: str | None = None) -> list[Json]:
        return [{"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}]

    for index in range(choices):
        yield chunk(choice(index, {"role": "assistant", "content": "", "refusal": None}))
        for piece in reply.pieces():
            yield chunk(choice(index, {"content": piece}))
        yield chunk(choice(index, {}, finish))
    if usage is not None:
        yield chunk([], usage)
    yield frame("[DONE]")


def _chat_usage(reply: Reply, choices: int) -> Json:
    output = reply.output_tokens * choices
    return {
        "prompt_tokens": reply.input_tokens,
        "completion_tokens": output,
        "total_tokens": reply.input_tokens + output,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def responses(call: Call) -> Answer:
    """POST /v1/responses"""
    body = call.body
    model = answers.model_of(body)
    prompt = body.get("input")
    if not isinstance(prompt, (str, list)) or not prompt:
        raise RefusedError(400, "Missing required parameter: 'input'.", param="input")
    reply = replies.reply(
        [body.get("instructions") or "", prompt],
        overhead=_A_MESSAGE * (len(prompt) if isinstance(prompt, list) else 1) + _ANSWER,
        limit=answers.output_limit(body, "max_output_tokens"),
        headers=call.headers,
    )
    shape: Json = {
        "id": answers.new_id("resp_"),
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "model": model,
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": body.get("previous_response_id"),
        "reasoning": {"effort": None, "summary": None},
        "store": bool(body.get("store", True)),
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": body.get("tools") or [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": None,
        "user": None,
        "metadata": body.get("metadata") or {},
    }
    message = answers.new_id("msg_")
    done = {
        **shape,
        "status": "incomplete" if reply.cut else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if reply.cut else None,
        "output": [_message(message, reply)],
        "usage": {
            "input_tokens": reply.input_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": reply.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": reply.input_tokens + reply.output_tokens,
        },
    }
    if body.get("stream"):
        return Stream(_response_frames(shape, done, message, reply))
    return Whole(done)


def _message(id: str, reply: Reply) -> Json:
    return {
        "id": id,
        "type": "message",
        "status": "incomplete" if reply.cut else "completed",
        "role": "assistant",
        "content": [_part(reply.text)],
    }


def _part(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _response_frames(shape: Json, done: Json, message: str, reply: Reply) -> Iterator[bytes]:
    sequence = 0

    def event(kind: str, **fields: Any) -> bytes:
        nonlocal sequence
        data = {"type": kind, "sequence_number": sequence, **fields}
        sequence += 1
        return frame(data, event=kind)

    place: Json = {"item_id": message, "output_index": 0, "content_index": 0}
    empty = {**_message(message, reply), "status": "in_progress", "content": []}
    yield event("response.created", response=shape)
    yield event("response.in_progress", response=shape)
    yield event("response.output_item.added", output_index=0, item=empty)
    yield event("response.content_part.added", **place, part=_part(""))
    for piece in reply.pieces():
        yield event("response.output_text.delta", **place, delta=piece, logprobs=[])
    yield event("response.output_text.done", **place, text=reply.text, logprobs=[])
    yield event("response.content_part.done", **place, part=_part(reply.text))
    yield event("response.output_item.done", output_index=0, item=done["output"][0])
    yield event(f"response.{done['status']}", response=done)


def embeddings(call: Call) -> Answer:
    """POST /v1/embeddings: vectors made of the text's hash, of length one."""
    body = call.body
    model = answers.model_of(body)
    given = body.get("input")
    if not given or not isinstance(given, (str, list)):
        raise RefusedError(400, "Missing required parameter: 'input'.", param="input")
    if isinstance(given, str) or isinstance(given[0], int):
        given = [given]
    size = answers.output_limit(body, "dimensions") or 1536
    used = sum(tokens.count(item) if isinstance(item, str) else len(item) for item in given)
    used = replies.number(call.headers, "x-stub-input-tokens", used)
    packed = body.get("encoding_format") == "base64"
    data = [
        {"object": "embedding", "index": index, "embedding": _vector(item, size, packed=packed)}
        for index, item in enumerate(given)
    ]
    usage = {"prompt_tokens": used, "total_tokens": used}
    return Whole({"object": "list", "data": data, "model": model, "usage": usage})


def _vector(item: object, size: int, *, packed: bool) -> list[float] | str:
    raw = hashlib.shake_256(repr(item).encode()).digest(size * 2)
    values = [value / 32768 for value in struct.unpack(f"<{size}h", raw)]
    length = sum(value * value for value in values) ** 0.5 or 1.0
    values = [value / length for value in values]
    if packed:
        return base64.b64encode(struct.pack(f"<{size}f", *values)).decode()
    return values


def models(_: Call) -> Answer:
    """GET /v1/models"""
    return Whole({"object": "list", "data": [_model(name) for name in MODELS]})


def _model(name: str) -> Json:
    return {"id": name, "object": "model", "created": _CREATED, "owned_by": "local"}
