"""A provider that costs next to nothing: `python -m lava.bench.upstream PORT`.

It answers every chat at once with the same bytes, whole or as a stream with its usage, so that what
is measured is what stands before it. One process on asyncio's bare protocols.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

_TEXT = "The quick brown fox jumps over the lazy dog. "
_USAGE = {"prompt_tokens": 12, "completion_tokens": 64, "total_tokens": 76}
_HEAD = {"id": "chatcmpl-bench", "created": 1700000000, "model": "gpt-4o-mini"}


def whole() -> bytes:
    """The answer in one piece."""
    message = {"role": "assistant", "content": _TEXT * 6}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    body = json.dumps(
        _HEAD | {"object": "chat.completion", "choices": [choice], "usage": _USAGE}
    ).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (
        len(body),
        body,
    )


def stream() -> bytes:
    """The answer as a stream of twenty frames, usage, end."""
    frames: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": {"content": word + " "}, "finish_reason": None}]}
        for word in (_TEXT * 2).split()
    ]
    frames.append({"choices": [], "usage": _USAGE})
    lines = [json.dumps(_HEAD | {"object": "chat.completion.chunk"} | frame) for frame in frames]
    pieces = [f"data: {line}\n\n".encode() for line in [*lines, "[DONE]"]]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
        b"transfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    )


WHOLE, STREAM = whole(), stream()


class Answering(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self.data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data
        while (end := self.data.find(b"\r\n\r\n")) >= 0:
            head = self.data[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r", 1)[0]) if at >= 0 else 0
            if len(self.data) < end + 4 + length:
                return
            body = self.data[end + 4 : end + 4 + length]
            self.data = self.data[end + 4 + length :]
            streams = b'"stream":true' in body or b'"stream": true' in body
            self.transport.write(STREAM if streams else WHOLE)


async def serve(port: int) -> None:
    """Answer on loopback until it is killed."""
    server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
