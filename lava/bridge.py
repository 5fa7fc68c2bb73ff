"""Django's WSGI application behind an ASGI server: a thread runs each request, as under WSGI.

Used by `lava/asgi.py`, so that one port serves Django and the gateway. Django's own ASGI handler
costs several times as much a request (speed.md, One address).
"""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import unquote_to_bytes

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

# Above what any view takes; each view's own limit is lower.
LARGEST_BODY = 16 << 20
TOO_LARGE = b'{"error": {"message": "The body is too large.", "code": "too_large", "status": 413}}'


class Bridge:
    """A WSGI application as an ASGI one."""

    def __init__(self, app: Wsgi, *, threads: int) -> None:
        self.app = app
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix="django")

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Read the request, run it in a thread, send its answer."""
        body = await _read(scope, receive)
        if body is None:
            headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
            await send({"type": "http.response.start", "status": 413, "headers": headers})
            await send({"type": "http.response.body", "body": TOO_LARGE})
            return
        if body is _LEFT:
            return
        loop = asyncio.get_running_loop()

        def pass_on(message: Message) -> None:
            """From the thread: wait until a piece is sent, so that it makes no more than that."""
            asyncio.run_coroutine_threadsafe(_awaited(send(message)), loop).result()

        start, last = await loop.run_in_executor(
            self.pool, self._run, _environ(scope, body), pass_on
        )
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


async def _awaited(waiting: Awaitable[None]) -> None:
    await waiting


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
