"""Which of an answer's bytes reach the client: all as they came, but for the key that the provider
was sent. `calls` has one for each answer.

A packed answer is looked through unpacked. It passes as it came while it has no key; what may hold
the beginning of one waits. One that has it is redacted where it is still whole, and withheld where
it is not.
"""

from __future__ import annotations

from meters.gateway import packing, upstream

# Of a packed answer, so much is unpacked to be looked through; nothing passes that was not.
UNPACKED = 64 << 20


class Passage:
    """The bytes of one answer. `key`: what must not pass; it may be empty."""

    def __init__(self, key: str) -> None:
        self._scrubber = upstream.Scrubber(key)
        # Of a packed answer: whether what it holds has the key, and what waits until that is known.
        self._inside = upstream.Scrubber(key)
        self._unpacker: packing.Unpacker | None = None
        self._encoding = ""
        self._waiting = b""

    @property
    def is_packed(self) -> bool:
        """Whether the bytes are packed, so that they cannot be cut where a frame ends."""
        return self._unpacker is not None

    def expect(self, encoding: str) -> None:
        """Say how the answer is packed, by its `content-encoding`.

        Raises:
            packing.Unknown: it cannot be looked through.
        """
        if encoding != "identity":
            self._unpacker = packing.Unpacker(encoding, most=UNPACKED)
            self._encoding = encoding

    def look(self, chunk: bytes) -> list[bytes]:
        """What the next bytes hold, to be read.

        Raises:
            zlib.error: they are not packed as it was said.
        """
        if self._unpacker is None:
            return [chunk]
        found = list(self._unpacker.feed(chunk))
        for data in found:
            self._inside.feed(data)
        return found

    def must_stop(self, *, can_redact: bool) -> bool:
        """Whether a packed answer may hold the key and cannot be mended any more."""
        if self._unpacker is None:
            return False
        return self._unpacker.is_full or (self._inside.found and not can_redact)

    def stop(self) -> None:
        """Let no more pass."""
        self._waiting = b""

    def feed(self, chunk: bytes) -> bytes:
        """The next bytes, as far as they may pass now."""
        if self._unpacker is not None:
            chunk, self._waiting = self._waiting + chunk, b""
            if self._inside.is_waiting:
                self._waiting = chunk
                return b""
        return self._scrubber.feed(chunk)

    def close(self) -> bytes:
        """What waited; nothing follows it."""
        return self._scrubber.feed(self._waiting) + self._scrubber.close()

    def redact(self, body: bytes) -> tuple[bytes, bool]:
        """An answer in one piece without the key, and whether it had to be unpacked for that."""
        unpacks = self._inside.found
        if unpacks:
            body = b"".join(packing.Unpacker(self._encoding, most=UNPACKED).feed(body))
        return self._scrubber.feed(body) + self._scrubber.close(), unpacks
