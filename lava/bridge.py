"""Django's WSGI application behind an ASGI server: a thread runs each request, as under WSGI.

Used by `lava/asgi.py`, so that one port serves Django and the gateway. Django's own ASGI handler
costs several times as much a request (speed.md, One address).
"""

from __future__ import annotations

import asyncio
import io
import json
import sys
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import unquote_to_bytes

from billing import ids

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

# Above what any view takes; each view's own limit is lower.
LARGEST_BODY = 16 << 20


class Bridge:
    """A WSGI application as an ASGI one.

    Of `threads` requests at once each has `answer_s` seconds until the first byte of its answer,
    its wait for a thread included. A thread cannot be stopped: what it was about may come to its
    end, and the client is told so.
    """

    def __init__(self, app: Wsgi, *, threads: int, answer_s: float) -> None:
        self.app = app
        self.answer_s = answer_s
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix="django")

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Read the request, run it in a thread, send its answer."""
        body = await _read(scope, receive)
        if body is None:
            await refuse(
                send, 413, "too_large", "The body is too large.", (b"connection", b"close")
            )
            return
        if body is _LEFT:
            return
        loop = asyncio.get_running_loop()
        begun = given_up = False

        async def piece(message: Message) -> None:
            nonlocal begun
            if given_up:
                raise ConnectionAbortedError("Its client has been told that it took too long.")
            begun = True
            await send(message)

        def pass_on(message: Message) -> None:
            """From the thread: wait until a piece is sent, so that it makes no more than that."""
            asyncio.run_coroutine_threadsafe(piece(message), loop).result()

        def give_up() -> None:
            nonlocal given_up
            if not begun:
                given_up = True
                # One that still waits for a thread is not run any more.
                running.cancel()

        running = loop.run_in_executor(self.pool, self._run, _environ(scope, body), pass_on)
        late = loop.call_later(self.answer_s, give_up)
        try:
            start, last = await running
        except asyncio.CancelledError:
            if not given_up:
                raise
            await refuse(send, 503, "unavailable", TOO_LATE, (b"retry-after", b"1"))
            return
        finally:
            late.cancel()
        if start is not None:
            await send(start)
        await send({"type": "http.response.body", "body": last})

    def _run(
        self, environ: dict[str, Any], pass_on: Callable[[Message], None]
    ) -> tuple[Message | None, bytes]:
        """In the thread: run the application. An answer in one piece is given back with its head;
        of a longer one all but the last piece has been passed on."""
        told: list[Message] = []

        def start_response(status: str, headers: list[tuple[str, str]], *_: Any) -> None:
            told[:] = [
                {
                    "type": "http.response.start",
                    "status": int(status[:3]),
                    "headers": [
                        (name.lower().encode("latin-1"), value.encode("latin-1"))
                        for name, value in headers
                    ],
                }
            ]

        pieces = self.app(environ, start_response)
        try:
            last: bytes | None = None
            for piece in pieces:
                if last is not None:
                    if told:
                        pass_on(told.pop())
                    pass_on({"type": "http.response.body", "body": last, "more_body": True})
                last = piece
        finally:
            if hasattr(pieces, "close"):
                pieces.close()
        return (told[0] if told else None), last or b""


_LEFT = b"left"
TOO_LATE = (
    "It takes too long. It may have been done all the same: send it again with the same id, which "
    "does it once."
)


async def refuse(
    send: Send, status: int, code: str, message: str, header: tuple[bytes, bytes]
) -> None:
    """The API's error envelope, for what Django does not answer."""
    request = ids.public("rid", ids.new(sandbox=False))
    error = {"message": message, "code": code, "status": status, "request_id": request}
    headers = [(b"content-type", b"application/json"), (b"x-lava-request-id", request.encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, header]})
    await send({"type": "http.response.body", "body": json.dumps({"error": error}).encode()})


async def _read(scope: Message, receive: Receive) -> bytes | None:
    """The body; None for one that is too large, `_LEFT` when the client broke off."""
    for name, value in scope["headers"]:
        if name == b"content-length" and (not value.isdigit() or int(value) > LARGEST_BODY):
            return None
    found: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return _LEFT
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > LARGEST_BODY:
            return None
        found.append(chunk)
        if not message.get("more_body", False):
            return found[0] if len(found) == 1 else b"".join(found)


def _environ(scope: Message, body: bytes) -> dict[str, Any]:
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    server = scope.get("server") or ("127.0.0.1", 80)
    client = scope.get("client")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(raw.partition(b"?")[0]).decode("latin-1"),
        "QUERY_STRING": scope.get("query_string", b"").decode("latin-1"),
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1]),
        "SERVER_PROTOCOL": f"HTTP/{scope.get('http_version', '1.1')}",
        "REMOTE_ADDR": client[0] if client else "",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.get("scheme", "http"),
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in scope["headers"]:
        key = name.decode("latin-1").upper()
        if "_" in key or key == "CONTENT-LENGTH":
            # A name with _ could pose as one with -.
            continue
        key = "CONTENT_TYPE" if key == "CONTENT-TYPE" else f"HTTP_{key.replace('-', '_')}"
        text = value.decode("latin-1")
        if key in environ:
            text = f"{environ[key]}{'; ' if key == 'HTTP_COOKIE' else ','}{text}"
        environ[key] = text
    return environ
