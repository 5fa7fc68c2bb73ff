"""The gateway called as a server calls it, within the test's own process and loop: so that a test
says to the piece when its client leaves, and sets the settings it needs."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from django.utils import timezone

from meters.gateway import keyring, proxy, spendkeys
from meters.gateway.models import GatewayCall
from tests import factories
from tests.meters.gateway.live import PROVIDER_KEY, chat, sound
from tests.meters.gateway.upstream_server import Upstream

OUR = "/v1/forward/replay/v1/chat/completions"


@dataclass
class Answer:
    """What a client got, piece by piece."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    pieces: list[bytes] = field(default_factory=list)
    # The answer was ended as a whole one.
    ended: bool = False
    took_s: float = 0.0

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)


class Direct:
    """A merchant whose provider is `upstream`; a subscriber with credits; their token."""

    def __init__(self, upstream: Upstream, *, sandbox: bool = False) -> None:
        self.upstream = upstream
        self.merchant = factories.make_merchant(sandbox=sandbox)
        now = timezone.now()
        self.key = factories.make_key(self.merchant)
        plan = factories.make_plan(self.merchant, price="0", credit="25", when_depleted="block")
        self.meter = factories.make_meter(self.merchant, plan)
        self.connection = factories.make_subscription(plan, now=now).connection
        keyring.add_provider(
            self.merchant, slug="replay", name="Replay", base_url=f"{upstream.url}/v1",
            private=True, now=now,
        )  # fmt: skip
        keyring.set_key(self.merchant, provider="replay", key=PROVIDER_KEY, actor="x", now=now)
        _, self.token = spendkeys.make(
            self.merchant, name="t", now=now, connection=self.connection, meter=self.meter
        )

    def run(self, work: Callable[[proxy.Gateway], Awaitable[Any]]) -> Any:
        """Do something with a gateway of its own, and wait until its calls are settled."""

        async def whole() -> Any:
            gateway = proxy.Gateway()
            try:
                return await work(gateway)
            finally:
                await gateway.stop()
                assert not gateway.running._calls and not gateway.running._tasks

        return asyncio.run(whole())

    def ask(self, **kwargs: Any) -> Answer:
        """One call, settled."""
        answer: Answer = self.run(lambda gateway: self.call(gateway, **kwargs))
        return answer

    async def call(
        self,
        gateway: proxy.Gateway,
        *,
        path: str = OUR,
        query: str = "",
        leave_after: int | None = None,
        leave_when: bytes = b"",
        headers: dict[str, str] | None = None,
        content: bytes | None = None,
        **fields: Any,
    ) -> Answer:
        """One call. The client leaves after so many pieces, or when it has seen something."""
        answer, left = Answer(), asyncio.Event()
        body = json.dumps(chat(**fields)).encode() if content is None else content
        asked = False

        async def receive() -> MutableMapping[str, Any]:
            nonlocal asked
            if not asked:
                asked = True
                return {"type": "http.request", "body": body, "more_body": False}
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = {
                    name.decode(): value.decode() for name, value in message["headers"]
                }
            else:
                if message["body"]:
                    answer.pieces.append(message["body"])
                answer.ended = not message.get("more_body", False)
            seen = leave_when and leave_when in answer.body
            if seen or (leave_after is not None and len(answer.pieces) >= leave_after):
                left.set()
            # As a server does: let others run.
            await asyncio.sleep(0)

        told = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
        told |= headers or {}
        scope = {
            "type": "http", "method": "POST", "path": path, "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in told.items()],
        }  # fmt: skip
        started = time.monotonic()
        await gateway(scope, receive, send)
        answer.took_s = time.monotonic() - started
        return answer

    def calls(self) -> list[GatewayCall]:
        return list(GatewayCall.objects.of(self.merchant).order_by("pk"))

    def sound(self) -> None:
        sound(self)  # type: ignore[arg-type]
