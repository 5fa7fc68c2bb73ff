"""The ASGI application: the gateway, and Django behind a bridge, on one address.

`manage.py up` serves this. A larger installation may serve `lava.wsgi` beside it and split by path
at its proxy: what `meters.gateway.proxy.takes` names goes here, everything else there.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import MutableMapping
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "lava.settings")

from lava import clocks
from lava.bridge import Bridge, Receive, Send, refuse

# It sets up Django, which what follows needs.
from lava.wsgi import application as django
from meters.gateway import proxy

THREADS = int(os.environ.get("LAVA_WEB_THREADS", "8"))
# How long Django may take until the first byte of an answer: less than a proxy's own 60 s.
ANSWER_S = float(os.environ.get("LAVA_ANSWER_S", "30"))
# How long a process that is told to end says so to whoever asks, before its lines are closed.
GOODBYE_S = 1.0


class Application:
    """Hands each request to the gateway or to Django."""

    def __init__(self) -> None:
        self.gateway = proxy.Gateway()
        self.django = Bridge(django, threads=THREADS, answer_s=ANSWER_S)
        self.leaving = False

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            if self.leaving:
                send = _saying_goodbye(send)
            if proxy.takes(scope["path"]):
                if await self._is_time_right():
                    await self.gateway(scope, receive, send)
                else:
                    later = (b"retry-after", b"5")
                    await refuse(send, 503, "unavailable", clocks.WRONG, later)
            else:
                await self.django(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self.gateway.start()
                self._hear_of_the_end()
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.gateway.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _is_time_right(self) -> bool:
        """As Django's middleware asks; the look itself in one of Django's threads."""
        right = clocks.known()
        if right is not None:
            return right
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.django.pool, clocks.is_right)

    def _hear_of_the_end(self) -> None:
        """On SIGTERM, which the server's own process sends for a restart (SIGHUP) and for an end:
        ask clients for a moment to come by another line. A line that is closed as its client
        sends the next request fails that request, and nobody may send a POST again unasked."""
        loop = asyncio.get_running_loop()

        def end() -> None:
            self.leaving = True
            # What the server takes as SIGTERM, which is heard here.
            loop.call_later(GOODBYE_S, os.kill, os.getpid(), signal.SIGINT)

        try:
            loop.add_signal_handler(signal.SIGTERM, end)
        except (NotImplementedError, RuntimeError, ValueError):
            # Not in the process's first thread, as in tests: its server ends as it likes.
            pass


def _saying_goodbye(send: Send) -> Send:
    """The same, with the line's end told in each answer."""

    async def told(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (b"connection", b"close")]
        await send(message)

    return told


application = Application()
