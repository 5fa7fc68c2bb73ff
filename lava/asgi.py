"""The ASGI application: the gateway, and Django behind a bridge, on one address.

`manage.py up` serves this. A larger installation may serve `lava.wsgi` beside it and split by path
at its proxy: what `meters.gateway.proxy.takes` names goes here, everything else there.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "lava.settings")

from lava.bridge import Bridge, Receive, Send

# It sets up Django, which what follows needs.
from lava.wsgi import application as django
from meters.gateway import proxy

THREADS = int(os.environ.get("LAVA_WEB_THREADS", "8"))
# How long Django may take until the first byte of an answer: less than a proxy's own 60 s.
ANSWER_S = float(os.environ.get("LAVA_ANSWER_S", "30"))


class Application:
    """Hands each request to the gateway or to Django."""

    def __init__(self) -> None:
        self.gateway = proxy.Gateway()
        self.django = Bridge(django, threads=THREADS, answer_s=ANSWER_S)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            if proxy.takes(scope["path"]):
                await self.gateway(scope, receive, send)
            else:
                await self.django(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self.gateway.start()
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.gateway.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return


application = Application()
