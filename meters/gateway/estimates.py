"""What a request asks for, and about what it will use: read once from its body, before it is sent.

Pure. The estimate is what is set aside (gateway.md, What it will cost): a third of the text's bytes
as input tokens, fixed allowances for media, and the request's own limit of output, else 4,096,
times `n`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import orjson

from meters.gateway.readers import Usage

Json = dict[str, Any]
NOTHING = Usage()

OUTPUT_WITHOUT_LIMIT = 4096
MOST_OUTPUT = 1_000_000
MOST_COPIES = 128
# What a medium counts for, whatever its size, in tokens; a recording in seconds.
_A_MEDIUM = 1_600
_A_DOCUMENT = 10_000
_A_RECORDING_S = Decimal(60)

# Fields whose text is a medium in base64, or an address of one.
_MEDIA = frozenset(("data", "b64_json", "image_url", "url", "image", "input_image", "bytes"))
_DOCUMENTS = frozenset(("file_data", "file_id", "file_url", "fileUri", "file_uri", "input_audio"))
_LIMITS = (
    ("max_completion_tokens",), ("max_tokens",), ("max_output_tokens",), ("maxOutputTokens",),
    ("generationConfig", "maxOutputTokens"), ("generation_config", "max_output_tokens"),
    ("inferenceConfig", "maxTokens"), ("max_tokens_to_sample",), ("max_gen_len",),
)  # fmt: skip
_COPIES = (("n",), ("generationConfig", "candidateCount"), ("best_of",), ("num_generations",))

# Work that goes on after the answer, or that changes what is stored.
_LONG_RUNNING = re.compile(
    r"/(batches|batch|batch_predictions|realtime|fine[_-]tun\w*|threads|assistants|evals|videos|"
    r"vector_stores|containers|tunedModels|convai|voices/add)(/|$)|"
    r":(batch\w+|asyncBatch\w+|predictLongRunning|createTunedModel)$",
    re.IGNORECASE,
)
# Asked, and not billed: counts of tokens.
_COUNTS = re.compile(r"(/count_tokens|:countTokens|/tokenize|/input_tokens|/moderations)$")
_NO_OUTPUT = re.compile(r"(/embeddings|:(batch)?embedContents?|/embed|/rerank|/classify)$", re.I)
_IMAGES = re.compile(r"/images/(generations|edits|variations)$")
_SPEECH = re.compile(r"(/audio/speech|/text-to-speech/[^/]+(/stream)?)$")
_LISTENS = re.compile(r"(/audio/(transcriptions|translations)|/speech-to-text)$")
# The field of a form that names the model.
_FORM_MODEL = re.compile(rb'name="model(?:_id)?"[^\r\n]*\r\n(?:[^\r\n]+\r\n)*\r\n([^\r\n]{1,120})')
_CHAT = re.compile(r"/(chat/)?completions$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request as the gateway reads it."""

    model: str = ""
    stream: bool = False
    # The answer is JSON in an array that grows (Gemini without `alt=sse`).
    is_array: bool = False
    # An OpenAI-shaped chat stream whose usage nobody asked for.
    wants_usage_injected: bool = False
    # It uses something that is paid for.
    billed: bool = True
    long_running: bool = False
    estimate: Usage = NOTHING
    characters: int = 0
    # The request bounds its own output.
    limited: bool = True
    body: Json = field(default_factory=dict, repr=False)


def read(method: str, path: str, query: str, content_type: str, body: bytes) -> Asked:
    """Read a request. A body that is no JSON is no error: the provider says what it thinks of it.

    Args:
        path: as it is sent to the provider.
    """
    long_running = bool(_LONG_RUNNING.search(path)) or method not in ("GET", "HEAD", "POST")
    if method != "POST" or _COUNTS.search(path):
        told = _json(content_type, body) if method == "POST" else {}
        return Asked(
            model=_model(told, path, content_type, b""), billed=False, long_running=long_running,
            body=told,
        )  # fmt: skip
    told = _json(content_type, body)
    model = _model(told, path, content_type, body)
    streams = told.get("stream") is True
    gemini = ":streamGenerateContent" in path
    tokens, media = _input(told, body)
    copies = _first(told, _COPIES, most=MOST_COPIES) or 1
    limit = _first(told, _LIMITS, most=MOST_OUTPUT)
    output = (limit if limit is not None else OUTPUT_WITHOUT_LIMIT) * copies
    limited = limit is not None
    characters, images, seconds = 0, 0, Decimal(0)
    if _NO_OUTPUT.search(path):
        output, limited = 0, True
    elif _IMAGES.search(path):
        images = copies
    elif _SPEECH.search(path):
        text = told.get("input") or told.get("text")
        characters = len(text) if isinstance(text, str) else 0
    elif _LISTENS.search(path):
        seconds = _A_RECORDING_S
    options = told.get("stream_options")
    asked = isinstance(options, dict) and options.get("include_usage") is True
    return Asked(
        model=model,
        stream=streams or gemini or path.endswith(("-stream", "/stream")),
        is_array=gemini and "alt=sse" not in query.split("&"),
        wants_usage_injected=streams and not asked and bool(_CHAT.search(path)),
        long_running=long_running or told.get("background") is True,
        estimate=Usage(input=tokens + media, output=output, images=images, input_seconds=seconds),
        characters=characters,
        limited=limited,
        body=told,
    )


def with_usage_asked(body: Json) -> bytes:
    """The same request, asking for its stream's usage."""
    options = body.get("stream_options")
    options = options if isinstance(options, dict) else {}
    return orjson.dumps(body | {"stream_options": options | {"include_usage": True}})


def _json(content_type: str, body: bytes) -> Json:
    if content_type.partition(";")[0].strip().lower().startswith("multipart/"):
        return {}
    try:
        told = orjson.loads(body)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _model(told: Json, path: str, content_type: str, body: bytes) -> str:
    """The model, from the body, from a form's field, or from the path as Gemini and Bedrock name
    it."""
    model = told.get("model") or told.get("model_id")
    if isinstance(model, str) and model.isprintable():
        return model[:120]
    if match := re.search(r"/models?/([^/:]+)(?::|/(?:invoke|converse))", path):
        return match[1][:120].replace("%3A", ":")
    if content_type.lower().startswith("multipart/"):
        field_ = _FORM_MODEL.search(body)
        return field_[1].decode("utf-8", "replace") if field_ else ""
    return ""


def _first(told: Json, paths: tuple[tuple[str, ...], ...], *, most: int) -> int | None:
    for path in paths:
        value: Any = told
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return min(value, most)
    return None


def _input(told: Json, body: bytes) -> tuple[int, int]:
    """Tokens of the text, and allowances for the media, within a request."""
    if not told:
        # A form with a file, or no JSON at all.
        return 0, _A_MEDIUM if body else 0
    size, media = 0, 0
    waiting: list[tuple[str, Any]] = [("", told)]
    while waiting:
        name, item = waiting.pop()
        if isinstance(item, str):
            if item.startswith("data:application/") or (name in _DOCUMENTS and item):
                media += _A_DOCUMENT
            elif item.startswith("data:") or (name in _MEDIA and len(item) > 64):
                media += _A_MEDIUM
            else:
                size += len(item.encode("utf-8", "replace"))
        elif isinstance(item, dict):
            size += sum(map(len, item))
            waiting.extend(item.items())
        elif isinstance(item, list):
            waiting.extend((name, inner) for inner in item)
            if item and isinstance(item[0], int):
                # Token ids, as embeddings take them.
                size += 3 * len(item)
    return -(-size // 3), media
