"""What a request asks for, and about what it will use: read once from its body, before it is sent.

Pure. The estimate is what is set aside (gateway.md, What it will cost): a third of the text's bytes
as input tokens, fixed allowances for media, and the request's own limit of output, else 4,096,
times `n`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from urllib.parse import unquote

import orjson

from billing import errors
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
_OF_PATH = re.compile(r"/models?/([^/]+?)(?::[A-Za-z]+$|/(?:invoke|converse))")
_BOUNDARY = re.compile(r'boundary="?([^";,\s]+)', re.IGNORECASE)
# In the head of a form's field: it names the model.
_NAMES_MODEL = re.compile(rb'\bname\s*=\s*"?model(_id)?(?=["\s;]|$)', re.IGNORECASE)
_LONGEST_HEAD = 16 << 10
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

    Raises:
        billing.errors.Invalid: as `parsed`.
    """
    # As a provider reads it.
    path = unquote(path)
    named = _model_of_path(path)
    long_running = bool(_LONG_RUNNING.search(path)) or method not in ("GET", "HEAD", "POST")
    if method != "POST" or _COUNTS.search(path):
        told = _object(body) if method == "POST" else {}
        return Asked(
            model=named or _model(told, content_type, b""), billed=False, long_running=long_running,
            body=told,
        )  # fmt: skip
    told = _object(body)
    model = named or _model(told, content_type, body)
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
    """The same request, asking for its stream's usage.

    Raises:
        billing.errors.Invalid: as `written`.
    """
    options = body.get("stream_options")
    options = options if isinstance(options, dict) else {}
    return written(body | {"stream_options": options | {"include_usage": True}})


def parsed(body: bytes) -> Any:
    """A request's JSON, None for anything else: read as widely as any provider may read it, since
    what is not seen here is not measured there. Half a surrogate pair, NaN, a byte order mark and
    UTF-16 are no JSON to the quick parser alone.

    Raises:
        billing.errors.Invalid: it is nested too deeply for anybody.
    """
    try:
        return orjson.loads(body)
    except ValueError:
        pass
    if b"{" not in body.lstrip()[:8]:
        return None
    try:
        return json.loads(body, parse_int=_int)
    except ValueError:
        return None
    except RecursionError as error:
        raise _too_deep() from error


def written(told: Json) -> bytes:
    """A request as JSON again.

    Raises:
        billing.errors.Invalid: it is nested too deeply.
    """
    try:
        return orjson.dumps(told)
    except TypeError:
        pass
    try:
        return json.dumps(told, separators=(",", ":")).encode()
    except RecursionError as error:
        raise _too_deep() from error


def _too_deep() -> errors.Invalid:
    return errors.Invalid("The body is nested too deeply.", code="body_too_deep")


def _int(text: str) -> int:
    """A whole number; Python makes none of more digits."""
    return int(text[:4000])


def _object(body: bytes) -> Json:
    told = parsed(body)
    return told if isinstance(told, dict) else {}


def _model_of_path(path: str) -> str:
    """The model that a path names, as Gemini's and Bedrock's do: what the body says beside it does
    not count."""
    match = _OF_PATH.search(path)
    return match[1][:120] if match else ""


def _model(told: Json, content_type: str, body: bytes) -> str:
    """The model, from the body or from a form's field."""
    model = told.get("model") or told.get("model_id")
    if isinstance(model, str) and model.isprintable():
        return model[:120]
    if content_type.lower().startswith("multipart/"):
        return _form_model(content_type, body)
    return ""


def _form_model(content_type: str, body: bytes) -> str:
    """The model that a form names; none where it names several: whichever the provider takes would
    be another than the one that was allowed."""
    told = _BOUNDARY.findall(content_type)
    if len(told) != 1:
        return ""
    found: set[bytes] = set()
    for part in body.split(b"--" + told[0].encode("latin-1")):
        head, _, value = part[:_LONGEST_HEAD].partition(b"\r\n\r\n")
        if _NAMES_MODEL.search(head):
            found.add(value.partition(b"\r\n")[0])
    model = found.pop().decode("utf-8", "replace") if len(found) == 1 else ""
    return model[:120] if model.isprintable() else ""


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
