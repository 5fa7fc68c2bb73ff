"""How many tokens a text is, roughly, and always the same. Pure; used by all three dialects.

A word of up to four characters is one token, a longer one a token for every four begun, each sign
one token, and one for every four bytes begun of scripts without spaces. Near enough to real
tokenizers for a demo, and countable by hand in a test.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

_PIECES = re.compile(r"[A-Za-z0-9]+|[^\sA-Za-z0-9]")


def count(text: str) -> int:
    """The tokens of a text."""
    return sum(-(-len(piece.encode()) // 4) for piece in _PIECES.findall(text))


def texts(value: Any) -> Iterable[str]:
    """Every text a model would read in a prompt of any dialect: strings, and `text`, `content`,
    `parts`, `input`, `arguments` and `output` of its parts, however nested. Pictures and files are
    not text."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)
    elif isinstance(value, dict):
        for name in ("text", "content", "parts", "input", "arguments", "output"):
            if name in value:
                yield from texts(value[name])


def count_all(value: Any) -> int:
    """The tokens of all texts in a prompt."""
    return sum(count(text) for text in texts(value))
