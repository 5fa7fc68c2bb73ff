"""Usage out of a provider's answer, as JSON or as a stream, incrementally. Pure.

A `Reader` is fed the bytes that pass and says at the end what was used, as counts that are never
below 0: `input` holds everything read (caches, tools and media included), `output` everything made
(reasoning included), the other counts say of which kind these were. Which shape an answer has is
seen by its own fields, so that one provider may speak another's dialect; what cannot be seen by
them (whose stated cost is believed, who hides reasoning) the `Rules` of its provider say.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import orjson

from meters.gateway import frames

Json = dict[str, Any]

# A count past this is no count of one call.
LARGEST_COUNT = 50_000_000
# An answer in one piece is parsed whole up to here; of a longer one, the ends are searched.
WHOLE = 2 << 20
_HEAD, _TAIL = 64 << 10, 256 << 10
# How much of a stream is kept to estimate its output where it ends without usage.
_SAMPLE = 128 << 10
# Above this the quick parser is worth it: thousands of numbers of an embedding.
_QUICK = 16 << 10

_USAGE_KEY = re.compile(rb'(?<!\\)"(usage|usageMetadata)"\s*:\s*(?=\{)')
_MODEL_KEY = re.compile(rb'(?<!\\)"(?:model|modelVersion)"\s*:\s*"([^"\\]{1,120})"')


@dataclass(frozen=True, slots=True)
class Rules:
    """What the reader must know of the provider. `states_cost`: `usage.cost` is its own word, in
    dollars, and is believed. `hides_reasoning`: only the total counts what was thought."""

    states_cost: bool = False
    hides_reasoning: bool = False


PLAIN = Rules()


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one call used. Counts of tokens but for the names that say otherwise."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    # Of `cache_write`: written to be kept for an hour.
    cache_write_1h: int = 0
    reasoning: int = 0
    input_audio: int = 0
    output_audio: int = 0
    input_image: int = 0
    output_image: int = 0
    input_tool: int = 0
    web_searches: int = 0
    searches: int = 0
    images: int = 0
    input_seconds: Decimal = Decimal(0)
    # In dollars, by the provider's own word.
    cost: Decimal | None = None
    # A count was negative, no number or out of all bounds, and was left out.
    suspect: bool = False

    def counts(self) -> dict[str, int | str]:
        """The counts that are not 0, JSON-ready."""
        found: dict[str, int | str] = {}
        for name in self.__slots__:
            value = getattr(self, name)
            if value and name not in ("suspect", "cost"):
                found[name] = value if isinstance(value, int) else f"{value:f}"
        return found


class Reader:
    """Reads one answer. Feed it every byte in order, then ask `usage`.

    `content_type` is the answer's; `is_array` says that JSON comes as an array, bit by bit.
    """

    def __init__(
        self, content_type: str = "", *, rules: Rules | None = None, is_array: bool = False
    ) -> None:
        self.rules = rules or PLAIN
        self.splitter: frames.Splitter | None = (
            frames.Elements() if is_array else frames.splitter(content_type)
        )
        self.is_stream = self.splitter is not None
        self.model = ""
        # The answer says that it failed.
        self.failed = False
        # The last frame of a stream's dialect was seen: nothing but the end can follow.
        self.finished = False
        self.received = 0
        self._stated: Json = {}
        self._is_anthropic = False
        self._images = 0
        self._seconds = Decimal(0)
        self._head = bytearray()
        self._tail = bytearray()
        self._sample: list[bytes] = []
        self._sampled = 0
        self._frames = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take the next bytes; gives the frames they complete (none for an answer in one piece)."""
        self.received += len(chunk)
        if self.splitter is None:
            self._keep(chunk)
            return []
        found = self.splitter.feed(chunk)
        for frame in found:
            self._read_frame(frame)
        return found

    def close(self) -> bytes:
        """The stream has ended; gives what is left of it, a last frame without its terminator."""
        if self.splitter is None:
            self._read_whole()
            return b""
        rest = self.splitter.close()
        if rest:
            self._read_frame(rest)
        return rest

    @property
    def usage(self) -> Usage | None:
        """What was used, as far as the answer has said it; None when it has said nothing."""
        if not self._stated and not self._images and not self._seconds:
            return None
        found = usage_of(self._stated, self.rules, is_anthropic=self._is_anthropic)
        if not self._images and not self._seconds:
            # Only zeros, or words that nobody knows, say nothing.
            says = found.counts() or found.suspect or found.cost is not None
            return found if says else None
        return replace(
            found,
            images=max(found.images, self._images),
            input_seconds=found.input_seconds or self._seconds,
        )

    def estimate_output(self) -> int:
        """About how many tokens came out, by the text that passed: where the usage never came."""
        if self.splitter is None:
            texts = _texts(self._parsed(bytes(self._head)))
            return -(-sum(map(_size, texts)) // 4)
        kind = type(self.splitter)
        size = 0
        for frame in self._sample:
            size += sum(map(_size, _texts(self._frame_json(frame, kind))))
        if not self._sample:
            return 0
        return -(-size * self._frames // (len(self._sample) * 4))

    # -- answers in one piece

    def _keep(self, chunk: bytes) -> None:
        if len(self._head) < WHOLE:
            room = WHOLE - len(self._head)
            self._head += chunk[:room]
            chunk = chunk[room:]
        if chunk:
            self._tail += chunk
            if len(self._tail) > 2 * _TAIL:
                del self._tail[:-_TAIL]

    def _read_whole(self) -> None:
        if not self._tail and (whole := self._parsed(bytes(self._head))) is not None:
            self._take(whole)
            return
        # Too long or too odd to parse: its model stands at the head, its usage at either end.
        head, tail = bytes(self._head[:_HEAD]), bytes(self._tail)
        if match := _MODEL_KEY.search(head) or _MODEL_KEY.search(tail):
            self.model = match[1].decode("utf-8", "replace")
        for part in (bytes(self._head[-_TAIL:]) + tail, head):
            for match in reversed(list(_USAGE_KEY.finditer(part))):
                try:
                    text = part[match.end() :].decode("utf-8", "replace")
                    value, _ = _DECODER.raw_decode(text)
                except (ValueError, RecursionError):
                    continue
                self._take({match[1].decode(): value})
                return

    # -- streams

    def _read_frame(self, frame: bytes) -> None:
        self._frames += 1
        kind = type(self.splitter)
        if self._sampled < _SAMPLE:
            self._sample.append(frame)
            self._sampled += len(frame)
        if b"[DONE]" in frame[-16:]:
            self.finished = True
            return
        if not (
            b"sage" in frame or b'"error"' in frame or b"billed_units" in frame or
            b"eval_count" in frame or b'"bytes"' in frame or b"_stop" in frame
        ):  # fmt: skip
            return
        if len(frame) <= frames.LONGEST_FRAME:
            self._take(self._frame_json(frame, kind))

    def _frame_json(self, frame: bytes, kind: type) -> Any:
        value = self._parsed(frames.payload(frame, kind))
        if kind is frames.AmazonEvents and isinstance(value, dict) and "bytes" in value:
            # Bedrock wraps the model's own event.
            try:
                return self._parsed(base64.b64decode(value["bytes"]))
            except (TypeError, ValueError, binascii.Error):
                return None
        return value

    def _parsed(self, text: bytes) -> Any:
        """A piece of JSON; None for anything else. Decimals are exact where money may be read.

        What servers write that is not quite JSON is read too: half a surrogate pair, NaN, text that
        is cut within a character. Its usage is no less true.
        """
        if text[:64].lstrip(b" \t\r\n\xef\xbb\xbf")[:1] not in (b"{", b"["):
            # A recording is not looked through for what it cannot be.
            return None
        if len(text) > _QUICK and not self.rules.states_cost:
            with contextlib.suppress(ValueError):
                return orjson.loads(text)
        try:
            return _DECODER.decode(text.decode("utf-8-sig", "replace"))
        except (ValueError, RecursionError):
            return None

    def _take(self, value: Any) -> None:
        """Take what one whole answer or one frame states; the last word counts."""
        if isinstance(value, list):
            for item in value:
                self._take(item)
            return
        if not isinstance(value, dict):
            return
        kind = value.get("type")
        if kind in ("message_stop", "message-end", "response.completed", "response.incomplete"):
            self.finished = True
        if value.get("error") or kind in ("error", "response.failed"):
            self.failed = True
        for inner in (value, value.get("response"), value.get("message")):
            if isinstance(inner, dict):
                model = inner.get("model") or inner.get("modelVersion")
                if isinstance(model, str) and model:
                    self.model = model[:120].encode("utf-8", "replace").decode()
                self._take_usage(inner, kind)
        if kind == "message-end" and isinstance(value.get("delta"), dict):
            self._take_usage(value["delta"], kind)
        if isinstance(value.get("data"), list) and any(
            isinstance(item, dict) and ("b64_json" in item or "url" in item)
            for item in value["data"]
        ):
            self._images = len(value["data"])
        if not isinstance(value.get("usage"), dict):
            seconds = value.get("duration")
            if isinstance(seconds, (int, float, Decimal, str)) and "text" in value:
                self._seconds = _seconds(seconds)

    def _take_usage(self, value: Json, kind: Any) -> None:
        stated = _stated(value)
        if stated is None:
            return
        if kind == "message" or value.get("type") == "message" or kind == "message_start":
            self._is_anthropic = self._is_anthropic or "prompt_tokens" not in stated
        if kind in ("message_start", "message_delta"):
            # Cumulative: what the later frame states replaces, what it leaves out stays.
            self._is_anthropic = True
            self._stated = self._stated | {
                name: item for name, item in stated.items() if item is not None
            }
        else:
            self._stated = stated


def _stated(value: Json) -> Json | None:
    """The object that states usage within an answer or a frame, wherever its dialect puts it."""
    for name in ("usage", "usageMetadata"):
        if isinstance(value.get(name), dict) and value[name]:
            return dict(value[name])
    for outer, inner in (("x_groq", "usage"), ("meta", "billed_units")):
        holder = value.get(outer)
        if isinstance(holder, dict) and isinstance(holder.get(inner), dict):
            return dict(holder[inner]) if inner == "usage" else {"billed_units": holder[inner]}
    if "eval_count" in value or "prompt_eval_count" in value:
        return {name: value.get(name) for name in ("prompt_eval_count", "eval_count")}
    return None


def usage_of(stated: Json, rules: Rules, *, is_anthropic: bool = False) -> Usage:
    """The usage that an object of any dialect states."""
    counts = _Counts(stated)
    if "promptTokenCount" in stated or "totalTokenCount" in stated:
        found = _gemini(counts)
    elif isinstance(stated.get("billed_units"), dict):
        found = _cohere(_Counts(stated["billed_units"]))
    elif "inputTokens" in stated or "outputTokens" in stated:
        found = _bedrock(counts)
    elif "eval_count" in stated or "prompt_eval_count" in stated:
        found = Usage(input=counts("prompt_eval_count"), output=counts("eval_count"))
    elif stated.get("type") == "duration":
        found = Usage(input_seconds=_seconds(stated.get("seconds")))
    elif is_anthropic or "cache_creation_input_tokens" in stated or "iterations" in stated:
        found = _anthropic(stated)
    elif "input_tokens" in stated or "output_tokens" in stated:
        found = _responses(counts)
    else:
        found = _chat(counts, rules)
    if rules.states_cost:
        found = replace(found, cost=_cost(stated.get("cost")))
    if counts.suspect and not found.suspect:
        found = replace(found, suspect=True)
    return found


class _Counts:
    """Reads counts out of an object, by path; anything that is no count is 0 and noted."""

    def __init__(self, value: Mapping[str, Any]) -> None:
        self.value = value
        self.suspect = False

    def __call__(self, *path: str) -> int:
        item: Any = self.value
        for name in path:
            item = item.get(name) if isinstance(item, dict) else None
        if item is None:
            return 0
        if isinstance(item, (float, Decimal)) and -1 < item < 10**12 and item == int(item):
            item = int(item)
        if not isinstance(item, int) or isinstance(item, bool) or not 0 <= item <= LARGEST_COUNT:
            self.suspect = True
            return 0
        return item

    def first(self, *paths: tuple[str, ...]) -> int:
        """The first of several places that holds a count above 0."""
        return next((found for path in paths if (found := self(*path))), 0)

    def by_modality(self, name: str, modality: str) -> int:
        """Gemini lists counts as [{modality, tokenCount}, ...]."""
        listed = self.value.get(name)
        total = 0
        for item in listed if isinstance(listed, list) else ():
            if isinstance(item, dict) and item.get("modality") == modality:
                total += _Counts(item)("tokenCount")
        return total


def _chat(counts: _Counts, rules: Rules) -> Usage:
    """OpenAI's chat completions, embeddings, and everyone who writes the same."""
    read, made = counts("prompt_tokens"), counts("completion_tokens")
    total = counts("total_tokens")
    if not read and not made:
        # Embeddings and rankings of some state nothing else (Voyage).
        read = total
    reasoning = counts("completion_tokens_details", "reasoning_tokens")
    hidden = total - read - made
    if hidden > 0 and (rules.hides_reasoning or hidden == reasoning):
        # Reasoning beside the completion (xAI), or in the total alone (Gemini).
        made += hidden
        reasoning = max(reasoning, hidden)
    return Usage(
        input=read,
        output=made,
        cache_read=counts.first(
            ("prompt_tokens_details", "cached_tokens"),
            ("prompt_cache_hit_tokens",),
            ("cached_tokens",),
            ("num_cached_tokens",),
        ),
        cache_write=counts("prompt_tokens_details", "cache_write_tokens"),
        reasoning=reasoning,
        input_audio=counts("prompt_tokens_details", "audio_tokens"),
        output_audio=counts("completion_tokens_details", "audio_tokens"),
        input_image=counts("prompt_tokens_details", "image_tokens"),
        output_image=counts("completion_tokens_details", "image_tokens"),
        suspect=counts.suspect,
    )


def _responses(counts: _Counts) -> Usage:
    """OpenAI's Responses, images and transcriptions: `input_tokens` holds what was cached."""
    return Usage(
        input=counts("input_tokens"),
        output=counts("output_tokens"),
        cache_read=counts("input_tokens_details", "cached_tokens"),
        cache_write=counts("input_tokens_details", "cache_write_tokens"),
        reasoning=counts("output_tokens_details", "reasoning_tokens"),
        input_audio=counts.first(
            ("input_tokens_details", "audio_tokens"), ("input_token_details", "audio_tokens")
        ),
        output_audio=counts("output_tokens_details", "audio_tokens"),
        input_image=counts("input_tokens_details", "image_tokens"),
        output_image=counts("output_tokens_details", "image_tokens"),
        suspect=counts.suspect,
    )


def _anthropic(stated: Json) -> Usage:
    """Anthropic's messages: `input_tokens` leaves out both caches. Where the answer took several
    turns of the model, `iterations` lists what each used and the sums above it do not."""
    turns = stated.get("iterations")
    listed = [turn for turn in turns if isinstance(turn, dict)] if isinstance(turns, list) else []
    found = Usage()
    for turn in listed or [stated]:
        counts = _Counts(turn)
        read, write = counts("cache_read_input_tokens"), counts("cache_creation_input_tokens")
        hour = counts("cache_creation", "ephemeral_1h_input_tokens")
        found = replace(
            found,
            input=found.input + counts("input_tokens") + read + write,
            output=found.output + counts("output_tokens"),
            cache_read=found.cache_read + read,
            cache_write=found.cache_write + write,
            cache_write_1h=found.cache_write_1h + min(hour, write),
            reasoning=found.reasoning + counts("output_tokens_details", "thinking_tokens"),
            suspect=found.suspect or counts.suspect,
        )
    return replace(found, web_searches=_Counts(stated)("server_tool_use", "web_search_requests"))


def _gemini(counts: _Counts) -> Usage:
    """Gemini: what it thought, and what its tools read, are counted beside the rest."""
    thoughts, tools = counts("thoughtsTokenCount"), counts("toolUsePromptTokenCount")
    return Usage(
        input=counts("promptTokenCount") + tools,
        output=counts("candidatesTokenCount") + thoughts,
        cache_read=counts("cachedContentTokenCount"),
        reasoning=thoughts,
        input_tool=tools,
        input_audio=counts.by_modality("promptTokensDetails", "AUDIO"),
        output_audio=counts.by_modality("candidatesTokensDetails", "AUDIO"),
        input_image=counts.by_modality("promptTokensDetails", "IMAGE"),
        output_image=counts.by_modality("candidatesTokensDetails", "IMAGE"),
        suspect=counts.suspect,
    )


def _cohere(counts: _Counts) -> Usage:
    """Cohere: what it bills, not what it counted."""
    return Usage(
        input=counts("input_tokens"),
        output=counts("output_tokens"),
        searches=counts("search_units"),
        images=counts("images"),
        suspect=counts.suspect,
    )


def _bedrock(counts: _Counts) -> Usage:
    """Bedrock's Converse: `inputTokens` leaves out both caches."""
    read, write = counts("cacheReadInputTokens"), counts("cacheWriteInputTokens")
    return Usage(
        input=counts("inputTokens") + read + write,
        output=counts("outputTokens"),
        cache_read=read,
        cache_write=write,
        suspect=counts.suspect,
    )


def _cost(value: Any) -> Decimal | None:
    """A stated cost in dollars; None for anything that is none."""
    if type(value) is int:
        value = Decimal(value)
    if isinstance(value, Decimal) and value.is_finite() and 0 <= value < 10**6:
        return value
    return None


def _seconds(value: Any) -> Decimal:
    try:
        found = Decimal(str(value))
    except ArithmeticError:
        return Decimal(0)
    if not found.is_finite() or not 0 <= found < 10**7:
        return Decimal(0)
    return round(found, 6)


def _texts(value: Any) -> list[str]:
    """What a model wrote within an answer: texts under the names that dialects give them."""
    found: list[str] = []
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting.extend(item)
        elif isinstance(item, dict):
            for name, inner in item.items():
                if isinstance(inner, str) and name in _WRITTEN:
                    found.append(inner)
                elif isinstance(inner, (dict, list)):
                    waiting.append(inner)
    return found


_WRITTEN = frozenset(
    ("text", "content", "delta", "arguments", "partial_json", "thinking", "reasoning",
     "reasoning_content", "refusal", "transcript")
)  # fmt: skip


def _size(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


# NaN and the infinities are read as texts: where a count should stand, they are none.
_DECODER = json.JSONDecoder(parse_float=Decimal, parse_constant=str, strict=False)
