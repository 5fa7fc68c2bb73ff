"""The HTTP server: Stripe's API under /v1, the page's script, the control endpoints. Loopback only.

Started by `__main__`. One thread a connection; the store lets one call work at a time.
"""

from __future__ import annotations

import json
import logging
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from lava.demo.card_network import webhooks
from lava.demo.card_network.control import Control
from lava.demo.card_network.errors import ApiError
from lava.demo.card_network.faults import NoAnswerError
from lava.demo.card_network.pipeline import Answer, Pipeline, Request
from lava.demo.card_network.store import Store

log = logging.getLogger(__name__)

_LARGEST_BODY = 1 << 20
_SCRIPT_PATHS = ("/v3", "/v3/", "/stripe.js")
_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, POST, DELETE, OPTIONS",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Idempotency-Key, Stripe-Version",
    "Access-Control-Expose-Headers": "Request-Id, Idempotent-Replayed, Stripe-Should-Retry",
    "Access-Control-Allow-Private-Network": "true",
    "Access-Control-Max-Age": "300",
}


_SCRIPT = """/*
 * The page's Stripe() of the local card network: the part of js.stripe.com that the checkout uses,
 * with the same names, events, classes and answers. Split card elements, confirmation, 3-D Secure.
 *
 * It needs nothing but `script-src` and `connect-src` for the network's address: no inline style,
 * no style tag, no eval, no cookie, no storage, no frame.
 */
(function () {
'use strict';

%s
})();
"""


@cache
def script() -> str:
    """The page's `Stripe()`: the files of `page/` in their order, in one function of their own."""
    files = sorted(Path(__file__).with_name("page").glob("*.js"))
    return _SCRIPT % "\n".join(file.read_text(encoding="utf-8") for file in files)


class Server(ThreadingHTTPServer):
    """The network on 127.0.0.1. Port 0 takes a free one; `url` says which."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, store: Store, secrets: webhooks.Secrets) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.sender = webhooks.Sender(store, secrets)
        self.pipeline = Pipeline(store, committed=self.sender.wake)
        self.control = Control(store, wake=self.sender.wake)
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no event worth a traceback."""
        log.debug("connection from %s ended early", client_address)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_version = "LocalCardNetwork"
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

    def do_OPTIONS(self) -> None:
        """A browser asks whether it may call: the API and the script yes, the control no."""
        allowed = not urlsplit(self.path).path.startswith("/_control")
        self._send(204 if allowed else 403, b"", _CORS if allowed else {})

    def _handle(self) -> None:
        parts = urlsplit(self.path)
        length = self.headers.get("Content-Length", "0")
        if (
            not length.isdigit()
            or int(length) > _LARGEST_BODY
            or self.headers.get("Transfer-Encoding")
        ):
            self.close_connection = True
            self._send_json(413, {"error": {"message": "Body refused.", "type": "api_error"}})
            return
        body = self.rfile.read(int(length)).decode("utf-8", errors="replace")
        if parts.path.startswith("/_control"):
            self._control(parts.path, parts.query, body)
        elif parts.path in _SCRIPT_PATHS and self.command == "GET":
            headers = {**_CORS, "Cross-Origin-Resource-Policy": "cross-origin"}
            self._send(200, script().encode(), headers, kind="text/javascript; charset=utf-8")
        else:
            self._api(parts.path, parts.query, body)

    def _api(self, path: str, query: str, body: str) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            answer = self.server.pipeline.answer(Request(self.command, path, query, headers, body))
        except NoAnswerError:
            self.close_connection = True
            return
        except Exception:
            log.exception("%s %s", self.command, path)
            error = ApiError(500, "The local card network failed; see its log.", type="api_error")
            answer = Answer(500, json.dumps(error.body))
        self._send(answer.status, answer.body.encode(), {**_CORS, **answer.headers})

    def _control(self, path: str, query: str, body: str) -> None:
        if self.headers.get("Origin") is not None:
            self._send_json(403, {"error": "the control endpoints are not for browsers"})
            return
        status, result = self.server.control.answer(
            self.command, path, dict(parse_qsl(query)), body
        )
        self._send_json(status, result)

    def _send_json(self, status: int, value: object) -> None:
        self._send(status, json.dumps(value).encode(), {})

    def _send(
        self, status: int, body: bytes, headers: dict[str, str], *, kind: str = "application/json"
    ) -> None:
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        """Calls are in the journal; the log is for what goes wrong."""
        log.debug(format, *args)
