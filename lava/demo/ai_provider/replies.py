"""The reply: words of one token each, as many as the prompt, the request's limit and its headers
say. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lava.demo.ai_provider import tokens

_TEXT = """
this is a test of the line and no real mind is at work here but all of it adds up so you can see
what one call will cost you
"""
_WORDS = _TEXT.split()
_SHORTEST = 8
_SPREAD = 24
_PIECE = 4


@dataclass(frozen=True)
class Reply:
    """A finished reply: its words (one token each), the counted input, and whether the limit cut
    it."""

    words: tuple[str, ...]
    input_tokens: int
    cut: bool

    @property
    def output_tokens(self) -> int:
        """Tokens of the reply."""
        return len(self.words)

    @property
    def text(self) -> str:
        """The reply as one text."""
        return " ".join(self.words)

    def pieces(self) -> Iterator[str]:
        """The text in the pieces a stream sends; joined they are `text` again."""
        for start in range(0, len(self.words), _PIECE):
            text = " ".join(self.words[start : start + _PIECE])
            yield text if start == 0 else " " + text


def reply(prompt: object, *, overhead: int, limit: int | None, headers: Mapping[str, str]) -> Reply:
    """The reply to a prompt.

    `overhead` is what the dialect's frame costs in input tokens, `limit` the request's output
    limit. Without steering headers the length depends on the input's count alone.
    """
    counted = tokens.count_all(prompt) + overhead
    length = _SHORTEST + counted * 7 % _SPREAD
    input_tokens = number(headers, "x-stub-input-tokens", counted)
    length = number(headers, "x-stub-output-tokens", length)
    cut = limit is not None and limit < length
    if limit is not None:
        length = min(length, limit)
    words = tuple(_WORDS[index % len(_WORDS)] for index in range(length))
    return Reply(words, input_tokens, cut)


def number(headers: Mapping[str, str], name: str, default: int) -> int:
    """A steering header's whole number, or the default when it is absent or no number."""
    value = headers.get(name, "")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 10 else default
