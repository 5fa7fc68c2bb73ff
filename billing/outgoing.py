"""One POST to an address of a merchant's choosing, guarded: the only way webhooks leave.

The name is resolved once, every address is judged (`billing.addresses`), and the connection goes to
a judged address itself, so that a name cannot change its mind in between. No redirects, no proxies,
no cookies; a bounded wait and a bounded answer, whatever the other side does.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache

from billing import addresses

CONNECT_TIMEOUT_S = 5.0
# From the first byte sent to the last byte read, at most.
LONGEST_S = 15.0
KEPT_BYTES = 1000


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came back: a status and the beginning of the body, or why nothing did."""

    status: int | None
    body: str
    error: str
    duration_ms: int

    @property
    def ok(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


def post(url: str, body: bytes, *, headers: Mapping[str, str], local: bool) -> Outcome:
    """Send once; never raises. `local` takes loopback too (see `addresses`)."""
    began = time.monotonic()
    status: int | None = None
    answer = error = ""
    try:
        target = addresses.target(url, local=local)
        status, answer = _exchange(target, body, headers, local=local)
    except Exception as problem:
        error = _reason(problem)
    duration = int((time.monotonic() - began) * 1000)
    return Outcome(status=status, body=answer, error=error, duration_ms=duration)


class _Refused(Exception):
    """The name points at an address that is never called."""


def _exchange(
    target: addresses.Target, body: bytes, headers: Mapping[str, str], *, local: bool
) -> tuple[int, str]:
    raw = _connect(target, local=local)
    # Wraps the socket, which shakes hands only below, under the watchdog.
    if target.scheme == "https":
        raw = _tls().wrap_socket(raw, server_hostname=target.host, do_handshake_on_connect=False)
    # Of the peer that sends one byte a minute: the socket is closed under the reader.
    watchdog = threading.Timer(LONGEST_S, _close, (raw,))
    watchdog.daemon = True
    watchdog.start()
    try:
        if isinstance(raw, ssl.SSLSocket):
            raw.do_handshake()
        connection = http.client.HTTPConnection(target.host, target.port)
        connection.sock = raw
        connection.putrequest("POST", target.path, skip_host=True, skip_accept_encoding=True)
        for name, value in {
            "Host": target.netloc,
            "Content-Length": str(len(body)),
            "Connection": "close",
            **headers,
        }.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        response = connection.getresponse()
        return response.status, response.read(KEPT_BYTES).decode("utf-8", "replace")
    finally:
        watchdog.cancel()
        _close(raw)


def _connect(target: addresses.Target, *, local: bool) -> socket.socket:
    found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    if not found:
        raise _Refused
    # All or nothing: a name that also points inside is not to be trusted.
    if not all(addresses.may_connect(str(entry[4][0]), local=local) for entry in found):
        raise _Refused
    last: OSError | None = None
    for family, kind, proto, _, address in found[:3]:
        raw = socket.socket(family, kind, proto)
        raw.settimeout(CONNECT_TIMEOUT_S)
        try:
            raw.connect(address)
        except OSError as error:
            raw.close()
            last = error
            continue
        raw.settimeout(LONGEST_S)
        return raw
    assert last is not None
    raise last


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _close(raw: socket.socket) -> None:
    with suppress(OSError):
        raw.shutdown(socket.SHUT_RDWR)
    with suppress(OSError):
        raw.close()


def _reason(problem: Exception) -> str:
    """A sentence for the log that the merchant reads."""
    if isinstance(problem, _Refused):
        return "The name points at an address that is not called from here."
    if isinstance(problem, socket.gaierror):
        return "The name does not resolve."
    if isinstance(problem, TimeoutError):
        return "No answer in time."
    if isinstance(problem, ConnectionRefusedError):
        return "The connection was refused."
    if isinstance(problem, ssl.SSLCertVerificationError):
        return f"The certificate is not valid: {problem.verify_message}"
    if isinstance(problem, ssl.SSLError):
        return "TLS failed."
    message = getattr(problem, "message", "")
    return str(message) or f"The connection failed ({type(problem).__name__})."
