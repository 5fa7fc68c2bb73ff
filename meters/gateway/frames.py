"""Cutting a byte stream into the frames of its format, whatever the network's chunks are. Pure.

Used by `readers` (to find usage) and by the proxy (to leave out the one frame it asked for itself).
Every splitter gives frames with their terminators, so that the frames joined are the stream.
"""

from __future__ import annotations

import re
import struct
from typing import Protocol

# A frame longer than this is not looked at; it still passes.
LONGEST_FRAME = 8 << 20

# Two ends of lines, each CRLF, LF or CR; a CR at the very end may yet become CRLF.
_BLANK_LINE = re.compile(rb"(?:\r\n|\n|\r(?!\n|\Z)){2}")
_LINE_END = re.compile(rb"\r\n|\n|\r")
_IN_TEXT = re.compile(rb'[\\"]')
_OUTSIDE = re.compile(rb'["{}]')


class Splitter(Protocol):
    """Takes chunks, gives the frames that are complete."""

    def feed(self, chunk: bytes) -> list[bytes]:
        """The frames that this chunk completes."""

    def close(self) -> bytes:
        """What is left when the stream has ended; perhaps a last frame without its terminator."""


class Events:
    """Server-sent events: frames end with an empty line."""

    def __init__(self) -> None:
        self._rest = b""
        self._seen = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        data = self._rest + chunk
        found: list[bytes] = []
        start = 0
        # What was searched before needs no search again, but for a terminator cut in two.
        place = max(self._seen - 4, 0)
        while match := _BLANK_LINE.search(data, place):
            found.append(data[start : match.end()])
            start = place = match.end()
        self._rest = data[start:]
        self._seen = len(self._rest)
        if self._seen > LONGEST_FRAME:
            found.append(self._rest)
            self._rest, self._seen = b"", 0
        return found

    def close(self) -> bytes:
        rest, self._rest, self._seen = self._rest, b"", 0
        return rest


class Lines:
    """Newline-delimited JSON: a frame a line."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        *found, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > LONGEST_FRAME:
            found.append(self._rest)
            self._rest = b""
        return [line + b"\n" for line in found]

    def close(self) -> bytes:
        rest, self._rest = self._rest, b""
        return rest


class Elements:
    """A JSON array of objects that arrives bit by bit, as Gemini streams without `alt=sse`.

    A frame is one object of the array; brackets, commas and spaces between them go with it.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._read = 0
        self._depth = 0
        self._in_text = False

    def feed(self, chunk: bytes) -> list[bytes]:
        data = self._rest + chunk
        found: list[bytes] = []
        start, place = 0, self._read
        while match := (_IN_TEXT if self._in_text else _OUTSIDE).search(data, place):
            sign = match.group()
            if sign == b"\\" and match.end() == len(data):
                # What it escapes has not come yet.
                place = match.start()
                break
            place = match.end()
            if sign == b"\\":
                place += 1
            elif sign == b'"':
                self._in_text = not self._in_text
            elif sign == b"{":
                self._depth += 1
            else:
                self._depth -= 1
                if self._depth == 0:
                    found.append(data[start:place])
                    start = place
        else:
            place = len(data)
        self._rest, self._read = data[start:], place - start
        if len(self._rest) > LONGEST_FRAME:
            found.append(self._rest)
            self._rest, self._read = b"", 0
        return found

    def close(self) -> bytes:
        rest, self._rest, self._read = self._rest, b"", 0
        return rest


class AmazonEvents:
    """`application/vnd.amazon.eventstream`: frames that state their length, as Bedrock streams."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        self._rest += chunk
        found: list[bytes] = []
        while len(self._rest) >= 12:
            (length,) = struct.unpack_from(">I", self._rest)
            if not 16 <= length <= LONGEST_FRAME:
                # No such frame: let everything pass unread from here on.
                found.append(self._rest)
                self._rest = b""
                break
            if len(self._rest) < length:
                break
            found.append(self._rest[:length])
            self._rest = self._rest[length:]
        return found

    def close(self) -> bytes:
        rest, self._rest = self._rest, b""
        return rest


def splitter(content_type: str) -> Splitter | None:
    """The splitter for an answer's content type; None for an answer in one piece."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "text/event-stream":
        return Events()
    if kind in ("application/x-ndjson", "application/jsonl", "application/stream+json"):
        return Lines()
    if kind == "application/vnd.amazon.eventstream":
        return AmazonEvents()
    return None


def event_data(frame: bytes) -> bytes:
    """The data of a server-sent event: its `data:` lines, joined; comments and names left out."""
    lines = []
    for line in _LINE_END.split(frame):
        if line.startswith(b"data:"):
            lines.append(line[5:].removeprefix(b" "))
    return b"\n".join(lines)


def payload(frame: bytes, kind: type) -> bytes:
    """The JSON text within a frame of a splitter of this kind."""
    if kind is Events:
        return event_data(frame)
    if kind is Elements:
        return frame.strip(b" \t\r\n,[]")
    if kind is AmazonEvents:
        (headers,) = struct.unpack_from(">I", frame, 4) if len(frame) >= 16 else (0,)
        return frame[12 + headers : -4]
    return frame
