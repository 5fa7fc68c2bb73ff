"""One call: forward it, pass its answer on as it comes, measure it, settle it.

`Call.run` is awaited by the proxy for the client; the work itself runs in a task of its own and
hands its pieces over through a short queue. When the client leaves, the work reads on alone.
"""

from __future__ import annotations

import asyncio
import functools
import re
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import aiohttp
import structlog
from django.conf import settings
from django.utils import timezone
from yarl import URL

from billing import errors, failpoints, ids, money, tasks
from meters.gateway import charging, estimates, packing, refusals, store, upstream
from meters.gateway.callers import Caller
from meters.gateway.passage import Passage
from meters.gateway.readers import Reader
from meters.gateway.running import Running
from meters.gateway.store import Settled, Settlement, Store
from meters.gateway.targets import Target

log = structlog.get_logger(__name__)

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

_USAGE = re.compile(rb'"usage"\s*:\s*\{')
_NO_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\]')
# An answer in one piece is kept until it is settled, up to here; a longer one passes as it comes.
KEPT = 8 << 20
# Pieces between the provider and a slow client.
QUEUED = 32
# How long a settlement is tried again while the database is away.
SETTLE_S = 900.0


@dataclass(eq=False)
class Call:
    """A call that was let through. `body` is what is sent; `injected`: it asks for usage that the
    client did not ask for, so that one frame is left out of what the client sees."""

    id: UUID
    caller: Caller
    target: Target
    asked: estimates.Asked
    method: str
    headers: upstream.Headers
    body: bytes
    plain_body: bytes
    key: str = field(repr=False)
    injected: bool
    started: float
    store: Store
    running: Running
    sessions: upstream.Sessions

    def __post_init__(self) -> None:
        # Set once it is held; asks for the hold again when a crash of the database took it.
        self.hold_again: Callable[[], Awaitable[Any]] | None = None
        self.reader = Reader()
        self.left_at: float | None = None
        self.flags: list[str] = []
        self.sent_at = self.answered_at = self.started
        self.status = 0
        self._pieces: asyncio.Queue[MutableMapping[str, Any] | None] = asyncio.Queue(QUEUED)
        self._begun = False
        self._passage = Passage(self.key)
        self._deadline: asyncio.Timeout | None = None
        self._refused: errors.LavaError | None = None
        self._stopped_early = False
        self._kept: bytes | None = None
        self._answer_headers: list[tuple[bytes, bytes]] = []
        self._overhead_ms = 0.0

    def progress(self) -> tuple[int, int]:
        """For the heartbeat: tokens out so far, about; bytes so far."""
        return self.reader.estimate_output() if self.reader.is_stream else 0, self.reader.received

    # -- the client's side

    async def run(self, receive: Receive, send: Send) -> None:
        """Pass the answer on until it ends or the client leaves."""
        self.running.add(self)
        self.running.start(self._work())
        watcher = asyncio.ensure_future(self._watch(receive))
        try:
            while (piece := await self._pieces.get()) is not None:
                await send(piece)
        finally:
            watcher.cancel()
            if self.left_at is None:
                self._leave()

    async def _watch(self, receive: Receive) -> None:
        """Notice that the client leaves; nothing else says so while nothing is sent."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _leave(self) -> None:
        """Nobody takes pieces any more; what has begun to come is read on for so long."""
        if self.left_at is None:
            self.left_at = time.monotonic()
            self._hurry()
        while not self._pieces.empty():
            self._pieces.get_nowait()
        self._pieces.put_nowait(None)

    def _hurry(self) -> None:
        """Bound how long an answer that nobody takes is read on, whatever the provider does: one
        that falls silent is left too. Before it has begun, the whole call's limit holds."""
        if self.left_at is None or self._deadline is None or not self.status:
            return
        if self._deadline.expired():
            return
        # Whoever closes right after the last frame has not left.
        drains = settings.GATEWAY_WHEN_CLIENT_LEAVES != "abort" or self.reader.finished
        end = asyncio.get_running_loop().time() + (settings.GATEWAY_DRAIN_S if drains else 0)
        if (now := self._deadline.when()) is None or end < now:
            self._deadline.reschedule(end)

    async def _pass(self, piece: MutableMapping[str, Any] | None) -> None:
        if self.left_at is None:
            await self._pieces.put(piece)

    # -- the provider's side

    async def _work(self) -> None:
        """Forward, read to the end, settle. Ends by itself, whatever happens."""
        try:
            failpoints.at("call.held")
            try:
                async with asyncio.timeout(settings.GATEWAY_LONGEST_S) as self._deadline:
                    await self._forward()
            except (aiohttp.ClientError, OSError, TimeoutError, zlib.error) as error:
                self._failed(error)
            except Exception as error:
                log.exception("gateway_call_failed", call=str(self.id), error=type(error).__name__)
                self.flags.append("failed")
            self._deadline = None
            await self._finish()
        finally:
            self.running.remove(self)
            await self._pass(None)

    def _failed(self, error: Exception) -> None:
        """The provider could not be reached, or its line broke."""
        if self.status:
            # It had begun: what came is what there is.
            self.reader.close()
            left = isinstance(error, TimeoutError) and self.left_at is not None
            if not (left and self.reader.finished):
                self.flags.append("partial" if left else "cut")
            return
        if isinstance(error, upstream.Blocked) or isinstance(
            getattr(error, "os_error", None), upstream.Blocked
        ):
            self._refused = errors.Forbidden(
                "This address may not be reached through the gateway.", code="target_not_allowed"
            )
        elif isinstance(error, TimeoutError):
            self._refused = refusals.Upstream(
                "The provider did not answer in time.", status=504, code="provider_timeout"
            )
        else:
            self._refused = refusals.Upstream("The provider could not be reached.")

    async def _forward(self) -> None:
        response = await self._ask(self.body)
        try:
            if self.injected and response.status in (400, 422):
                said = await _read_some(response)
                if b"stream_options" in said or b"include_usage" in said:
                    # It does not know the option: ask again as the client did.
                    response.release()
                    self.injected = False
                    response = await self._ask(self.plain_body)
                else:
                    await self._read(response, first=said)
                    return
            await self._read(response)
        finally:
            response.close() if self._stopped_early else response.release()

    async def _ask(self, body: bytes) -> aiohttp.ClientResponse:
        """Send the request; once more when no connection could be made at all."""
        session = self.sessions.of(self.target.provider)
        for attempt in (1, 2):
            self.sent_at = time.monotonic()
            try:
                return await session.request(
                    self.method,
                    URL(self.target.url, encoded=True),
                    headers=self.headers,
                    data=body if body or self.method == "POST" else None,
                    allow_redirects=False,
                )
            except aiohttp.ClientConnectorError as error:
                if attempt == 2 or isinstance(error.os_error, upstream.Blocked):
                    raise
        raise AssertionError("unreachable")

    async def _read(self, response: aiohttp.ClientResponse, *, first: bytes = b"") -> None:
        """Read the answer to its end: to the reader, and on to the client."""
        self.status = response.status
        self.answered_at = time.monotonic()
        self._hurry()
        kind = response.headers.get("content-type", "")
        self.reader = Reader(
            kind,
            rules=self.target.provider.rules,
            is_array=self.asked.is_array and "json" in kind and self.status < 400,
        )
        self._answer_headers = upstream.incoming(response.headers.items(), key=self.key)
        try:
            self._passage.expect(response.headers.get("content-encoding", "identity").lower())
        except packing.Unknown:
            self._withhold()
            return
        whole = not self.reader.is_stream and ("json" in kind or self.status >= 400)
        if not whole:
            await self._begin()
        kept: list[bytes] | None = [] if whole else None
        size = 0
        async for chunk in _pieces_of(response, first):
            size += len(chunk)
            found = [
                frame for data in self._passage.look(chunk) for frame in self.reader.feed(data)
            ]
            if self._passage.must_stop(can_redact=kept is not None and size <= KEPT):
                self._withhold()
                break
            if kept is None:
                await self._pass_on(found, chunk)
                failpoints.at("call.streaming")
            else:
                kept.append(chunk)
                if size > KEPT:
                    # Too long to keep: pass on what there is, and the rest as it comes.
                    await self._begin()
                    await self._pass_scrubbed(b"".join(kept))
                    kept = None
            if self._must_stop(size):
                self._stopped_early = True
                break
        rest = self.reader.close()
        if self._refused is not None:
            return
        if kept is not None:
            self._kept, unpacked = self._passage.redact(b"".join(kept))
            if unpacked:
                self._answer_headers = [
                    pair for pair in self._answer_headers if pair[0] != b"content-encoding"
                ]
            return
        if self.injected and rest and not self._passage.is_packed:
            await self._pass_on([rest], rest)
        if last := self._passage.close():
            await self._pass(_body(last))

    def _withhold(self) -> None:
        """Let no more of a packed answer pass: it has the key, or nobody can know that it has not.

        It was asked for unpacked. Before the answer has begun, the client is told so.
        """
        self._stopped_early = True
        self._passage.stop()
        self.flags.append("packed")
        if self._begun:
            self.flags.append("cut")
            return
        self._refused = refusals.Upstream(
            "The provider packed its answer, though none was asked for, in a way that cannot be "
            "looked through.",
            code="provider_packed",
        )

    async def _pass_on(self, found: list[bytes], chunk: bytes) -> None:
        """Give the client the bytes as they are; of a stream whose usage only we asked for, all
        frames but that one."""
        if self.injected and self.reader.is_stream and not self._passage.is_packed:
            chunk = b"".join(frame for frame in found if not _is_usage_alone(frame))
        await self._pass_scrubbed(chunk)

    async def _pass_scrubbed(self, chunk: bytes) -> None:
        if chunk := self._passage.feed(chunk):
            await self._pass(_body(chunk))

    def _must_stop(self, size: int) -> bool:
        """Whether to stop reading: too much, or the client left and the drain is over."""
        if size > settings.GATEWAY_LARGEST_ANSWER:
            self.flags.append("cut")
            return True
        if self.left_at is None or self.reader.finished:
            return False
        if (
            settings.GATEWAY_WHEN_CLIENT_LEAVES == "abort"
            or time.monotonic() - self.left_at > settings.GATEWAY_DRAIN_S
        ):
            self.flags.append("partial")
            return True
        return False

    # -- the end

    async def _begin(self, *, settled: Settled | None = None, length: int | None = None) -> None:
        """The head of the answer."""
        overhead = (self.sent_at - self.started) + (time.monotonic() - self.answered_at)
        self._overhead_ms = round(overhead * 1000, 2)
        headers = [
            *self._answer_headers,
            (b"x-lava-request-id", ids.public("req", self.id).encode()),
            (b"x-lava-overhead-ms", f"{self._overhead_ms:.2f}".encode()),
        ]
        if self.reader.is_stream:
            headers.append((b"x-accel-buffering", b"no"))
        if settled is not None and settled.outcome == "settled":
            headers.append((b"x-lava-charge", money.wire(settled.charged).encode()))
            if settled.balance is not None:
                headers.append((b"x-lava-balance", money.wire(settled.balance).encode()))
        if length is not None:
            headers.append((b"content-length", str(length).encode()))
        self._begun = True
        await self._pass({"type": "http.response.start", "status": self.status, "headers": headers})

    async def _finish(self) -> None:
        """Settle, then end the answer: a client that has seen the end finds its request charged."""
        told = self._settlement()
        failpoints.at("call.ended")
        try:
            settled: Settled | None = await self._settle(told)
        except store.FAULTS as error:
            # It is tried until it works; the client need not wait for that.
            self._say_unsettled(error)
            settled = None
            self.running.start(self._settle_later(told))
        failpoints.at("call.settled")
        if settled is not None:
            self._hint(settled)
        if self._refused is not None:
            status, headers, body = refusals.answer(
                self._refused,
                dialect=self.target.provider.dialect,
                request_id=ids.public("req", self.id),
            )
            self.status, self._answer_headers = status, headers
            await self._begin(length=len(body))
            await self._pass(_body(body, last=True))
        elif self._kept is not None and not self._begun:
            await self._begin(settled=settled, length=len(self._kept))
            await self._pass(_body(self._kept, last=True))
        elif self._begun and not {"cut", "failed"} & set(self.flags):
            await self._pass(_body(b"", last=True))
        # A broken answer is not ended as if it were whole: the server closes the line.

    async def _settle(self, told: Settlement) -> Settled:
        """Settle, after a new hold where a crash of the database took the first: holds do not wait
        for the disk."""
        settled = await self.store.settle(self.id, told)
        if settled.outcome != "unknown" or self.hold_again is None:
            return settled
        log.warning("gateway_call_held_again", call=str(self.id))
        try:
            await self.hold_again()
        except errors.Unavailable:
            raise
        except errors.LavaError as error:
            # Disabled or deleted since the crash: nobody is left to charge.
            log.error("gateway_call_not_settled", call=str(self.id), error=error.code)
            return settled
        return await self.store.settle(self.id, told)

    async def _settle_later(self, told: Settlement) -> None:
        self.running.add(self)
        try:
            deadline = time.monotonic() + SETTLE_S
            pause = 0.5
            while time.monotonic() < deadline:
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, 10)
                try:
                    self._hint(await self._settle(told))
                    return
                except store.FAULTS as error:
                    self._say_unsettled(error)
            log.error("gateway_call_not_settled", call=str(self.id))
        finally:
            self.running.remove(self)

    def _say_unsettled(self, error: Exception) -> None:
        """Say a fault that no other place says: the database is there, and something is wrong."""
        if not isinstance(error, errors.Unavailable):
            log.error("gateway_settlement_failed", call=str(self.id), error=type(error).__name__)

    def _hint(self, settled: Settled) -> None:
        if settled.collect and settled.connection is not None:
            store.hint(tasks.hint_overage, settled.connection)
        if settled.fell and settled.connection is not None:
            store.hint(tasks.hint_fall, settled.connection)

    def _model(self) -> str:
        """The model that answered; a provider may write anything there, its key too."""
        said = self.reader.model
        return said if said and not (self.key and self.key in said) else self.asked.model

    def _settlement(self) -> Settlement:
        now = time.monotonic()
        asked = self.asked
        told = functools.partial(
            Settlement,
            http_status=self.status,
            model=(model := self._model()),
            received=self.reader.received,
            overhead_ms=round(self._overhead_ms or (self.sent_at - self.started) * 1000),
            first_byte_ms=round((self.answered_at - self.started) * 1000),
            total_ms=round((now - self.started) * 1000),
            flags=(said := [*dict.fromkeys(self.flags)]),
        )
        if self._refused is not None:
            return told(status="error", billed=False, error=self._refused.code)
        if self.status >= 300 or not self.status:
            # A redirect is not followed: nothing was made.
            return told(status="error", billed=False, error=f"http_{self.status}")
        if not asked.billed:
            return told(status="completed", billed=False)
        found = self.reader.usage
        if found is None and self.reader.failed:
            return told(status="error", billed=False, error="provider_error")
        used, flags = charging.believed(
            found,
            asked,
            sent=len(self.body),
            output_so_far=self.reader.estimate_output,
            whole=not {"cut", "partial", "failed"} & set(said),
        )
        flags = [*said, *flags]
        cost = charging.find_cost(self.caller, self.target, (model, asked.model), used, asked,
                         now=timezone.now() + self.caller.clock_offset)  # fmt: skip
        if cost is None:
            flags.append("unpriced")
        return told(
            status="completed",
            billed=True,
            usage=used.counts(),
            input_tokens=used.input,
            output_tokens=used.output,
            characters=asked.characters,
            seconds=used.input_seconds,
            cost=cost,
            flags=flags,
        )


def _is_usage_alone(frame: bytes) -> bool:
    """Whether a frame holds usage and nothing else: the one that only we asked for. Azure's first
    one has neither choices nor usage (null), and says what its filters found."""
    return bool(_USAGE.search(frame) and _NO_CHOICES.search(frame))


def _body(data: bytes, *, last: bool = False) -> MutableMapping[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": not last}


async def _pieces_of(response: aiohttp.ClientResponse, first: bytes) -> AsyncIterator[bytes]:
    """The answer's bytes as they come, after those that were read before."""
    if first:
        yield first
    async for chunk in response.content.iter_any():
        if chunk:
            yield chunk


async def _read_some(response: aiohttp.ClientResponse) -> bytes:
    """The beginning of an error's body; it is read no further than this."""
    found = b""
    while len(found) < 1 << 16 and (chunk := await response.content.readany()):
        found += chunk
    return found
