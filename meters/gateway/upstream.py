"""The way to the providers: guarded connections, and what of the headers goes out and comes back.

Names are resolved by the loop's resolver, and the address is checked when the socket is made: it is
the very address that is connected to, a literal one included, so no second answer of a resolver can
move it. Redirects, proxies of the environment and cookies are off.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Any

import aiohttp
from django.conf import settings

from billing import addresses
from meters.gateway import providers
from meters.gateway.providers import Provider

Headers = list[tuple[str, str]]

_HOP = frozenset(
    ("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection",
     "te", "trailer", "transfer-encoding", "upgrade", "http2-settings", "expect")
)  # fmt: skip
_NEVER_OUT = _HOP | {
    *providers.SLOTS, "host", "cookie", "content-length", "accept-encoding", "forwarded", "via",
    "x-real-ip", "true-client-ip", "cf-connecting-ip", "x-client-ip", "origin", "referer",
    "x-envoy-external-address", "fly-client-ip", "traceparent", "tracestate", "baggage",
}  # fmt: skip
_NEVER_BACK = _HOP | {
    "set-cookie", "set-cookie2", "content-length", "alt-svc", "strict-transport-security",
    "server", "date", "via", "report-to", "nel", "clear-site-data", "location",
    "content-security-policy", "www-authenticate",
}  # fmt: skip
# Names that say whose account at the provider it is.
_ACCOUNT = ("organization", "project", "account", "workspace", "team")


_REDACTED = b"[redacted]"


class Blocked(OSError):
    """The address may not be reached."""


class Sessions:
    """One session for the open network and one for rows that mean one's own; one loop owns them."""

    def __init__(self) -> None:
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    def of(self, row: Provider) -> aiohttp.ClientSession:
        """The session that a row is called through."""
        session = self._sessions.get(row.private)
        if session is None:
            session = self._sessions[row.private] = self._new(private=row.private)
        return session

    async def close(self) -> None:
        """Close every connection."""
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            await session.close()

    @staticmethod
    def _new(*, private: bool) -> aiohttp.ClientSession:
        def make_socket(info: Any) -> socket.socket:
            family, kind, protocol, _, address = info
            if not addresses.may_connect(str(address[0]), private=private):
                raise Blocked("This address may not be reached through the gateway.")
            made = socket.socket(family=family, type=kind, proto=protocol)
            made.setblocking(False)
            return made

        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, ttl_dns_cache=30, keepalive_timeout=60, socket_factory=make_socket
            ),
            auto_decompress=False,
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept", "Content-Type"),
            timeout=aiohttp.ClientTimeout(
                total=None,
                sock_connect=settings.GATEWAY_CONNECT_S,
                sock_read=settings.GATEWAY_IDLE_S,
            ),
            read_bufsize=1 << 18,
            max_line_size=64 << 10,
            max_field_size=64 << 10,
        )


def outgoing(
    headers: Iterable[tuple[bytes, bytes]], *, row: Provider, path: str, key: str
) -> Headers:
    """The caller's headers as they go out: without its tokens, cookies and way here; with the
    provider's key in the provider's slot."""
    named = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers]
    hops = {
        word.strip().lower()
        for name, value in named
        if name == "connection"
        for word in value.split(",")
    }
    found = [
        (name, value)
        for name, value in named
        if name not in _NEVER_OUT
        and name not in hops
        and not name.startswith(("x-lava-", "x-forwarded", "sec-", "cf-", "x-amzn-trace"))
    ]
    found.append(("accept-encoding", "identity"))
    slot = row.slot
    if row.dialect == "anthropic" and path.endswith("/chat/completions"):
        # Anthropic's OpenAI-compatible address.
        slot = providers.BEARER
    found.append((slot, f"Bearer {key}" if slot == providers.BEARER else key))
    return found


def incoming(headers: Iterable[tuple[str, str]], *, key: str) -> list[tuple[bytes, bytes]]:
    """The provider's headers as they go back: no cookies, no account, nothing that echoes a key."""
    found = []
    for name, value in headers:
        lowered = name.lower()
        if lowered in _NEVER_BACK or lowered.startswith(("access-control-", "cf-", "x-lava-")):
            continue
        if any(word in lowered for word in _ACCOUNT) or (key and key in value):
            continue
        found.append((lowered.encode("latin-1"), value.encode("utf-8", "surrogateescape")))
    return found


class Scrubber:
    """An answer without the key that it echoes, also where it comes in pieces.

    What may be the beginning of the key at the end of a piece waits for the next one.
    """

    def __init__(self, key: str) -> None:
        self._key = key.encode()
        self._rest = b""
        # Whether the key was there.
        self.found = False

    @property
    def is_waiting(self) -> bool:
        """Whether the last bytes may be the key's first ones."""
        return bool(self._rest)

    def feed(self, data: bytes) -> bytes:
        """The next bytes, as far as they can be passed on."""
        if not self._key:
            return data
        data = self._rest + data
        if self._key in data:
            self.found = True
            data = data.replace(self._key, _REDACTED)
        keep = self._begun(data)
        self._rest = data[len(data) - keep :]
        return data[: len(data) - keep]

    def close(self) -> bytes:
        """What waited; nothing follows it."""
        rest, self._rest = self._rest, b""
        return rest

    def _begun(self, data: bytes) -> int:
        """How many of the last bytes could be the key's first ones."""
        most = len(self._key) - 1
        tail = data[-most:] if most else b""
        at = tail.find(self._key[:1])
        while at >= 0:
            if self._key.startswith(tail[at:]):
                return len(tail) - at
            at = tail.find(self._key[:1], at + 1)
        return 0
