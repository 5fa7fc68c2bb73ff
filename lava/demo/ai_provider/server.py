"""The provider's HTTP server: picks the dialect, keeps the journal, obeys the steering headers.
Loopback only."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from lava.demo.ai_provider import anthropic, gemini, openai, replies
from lava.demo.ai_provider.answers import Answer, Call, RefusedError, Stream, Whole

log = logging.getLogger(__name__)

_LARGEST_BODY = 32 << 20
_KEPT = 1000


class Journal:
    """The last requests, as they arrived."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: deque[dict[str, Any]] = deque(maxlen=_KEPT)
        self._count = 0

    def add(self, **entry: Any) -> dict[str, Any]:
        """Note a request; its `status` is filled in when it is answered."""
        with self._lock:
            self._count += 1
            kept = {"id": self._count, **entry, "status": None}
            self._entries.append(kept)
            return kept

    def all(self) -> list[dict[str, Any]]:
        """Oldest first."""
        with self._lock:
            return list(self._entries)

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._entries.clear()


class Server(ThreadingHTTPServer):
    """The provider on 127.0.0.1. Port 0 takes a free one; `url` says which."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.journal = Journal()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no event worth a traceback."""
        log.debug("connection from %s ended early", client_address)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_version = "LocalAIProvider"
    sys_version = ""
    timeout = 120
    disable_nagle_algorithm = True
    wbufsize = -1
    server: Server

    def version_string(self) -> str:
        return self.server_version

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_DELETE(self) -> None:
        self._handle()

    def _handle(self) -> None:
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        raw = self._read()
        if raw is None:
            return
        if path.startswith("/_control/"):
            self._control(path)
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        entry = self.server.journal.add(
            method=self.command,
            path=path,
            query=query,
            headers=headers,
            body=raw.decode("utf-8", errors="replace"),
        )
        dialect = _dialect(path, headers)
        time.sleep(replies.number(headers, "x-stub-delay-ms", 0) / 1000)
        try:
            _forced(headers)
            call = Call(self.command, path, query, headers, _parsed(self.command, raw))
            answer: Answer = dialect.answer(call)
        except RefusedError as refused:
            answer = Whole(dialect.error(refused), refused.status)
        entry["status"] = 200 if isinstance(answer, Stream) else answer.status
        if isinstance(answer, Stream):
            self._stream(answer, headers)
        else:
            self._send(answer.status, answer.body, dict(answer.headers))

    def _read(self) -> bytes | None:
        """The body, of a stated length or chunked; None after refusing it."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            pieces, total = [], 0
            while size := int(self.rfile.readline(32).split(b";")[0].strip() or b"0", 16):
                total += size
                if total > _LARGEST_BODY:
                    break
                pieces.append(self.rfile.read(size))
                self.rfile.readline(8)
            else:
                self.rfile.readline(8)
                return b"".join(pieces)
        else:
            length = self.headers.get("Content-Length", "0")
            if length.isdigit() and int(length) <= _LARGEST_BODY:
                return self.rfile.read(int(length))
        self.close_connection = True
        self._send(413, {"error": {"message": "Request too large.", "type": "request_too_large"}})
        return None

    def _control(self, path: str) -> None:
        journal = self.server.journal
        if path == "/_control/health":
            self._send(200, {"ok": True})
        elif path == "/_control/journal" and self.command in ("GET", "DELETE"):
            if self.command == "DELETE":
                journal.clear()
            self._send(200, {"data": journal.all()})
        else:
            self._send(404, {"error": f"no control endpoint {self.command} {path}"})

    def _stream(self, answer: Stream, headers: dict[str, str]) -> None:
        """Send frames as chunks of the transfer encoding, each as soon as it is there."""
        pause = replies.number(headers, "x-stub-chunk-delay-ms", 0) / 1000
        cut = replies.number(headers, "x-stub-cut-after", -1)
        self.send_response(200)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        for index, data in enumerate(answer.frames):
            if index == cut:
                self.close_connection = True
                return
            if pause:
                time.sleep(pause)
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def _send(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if status in (429, 503):
            self.send_header("Retry-After", "1")
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        """Requests are in the journal; the log is for what goes wrong."""
        log.debug(format, *args)


def _dialect(path: str, headers: dict[str, str]) -> ModuleType:
    """Whose request this is, by path, and for the shared /v1/models by Anthropic's version
    header."""
    if path.startswith("/v1beta/") or (path.startswith("/v1/models/") and ":" in path):
        return gemini
    if path.startswith("/v1/messages") or "anthropic-version" in headers:
        return anthropic
    return openai


def _forced(headers: dict[str, str]) -> None:
    """Raise what `x-stub-status` asks for."""
    status = replies.number(headers, "x-stub-status", 0)
    if 400 <= status <= 599:
        raise RefusedError(status, f"The request asked for status {status}.")


def _parsed(method: str, raw: bytes) -> dict[str, Any]:
    """The JSON object of a POST. Raises RefusedError 400."""
    if method != "POST":
        return {}
    message = "We could not parse the JSON body of your request."
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, message) from error
    if not isinstance(body, dict):
        raise RefusedError(400, message)
    return body
