"""The load client: `python -m lava.bench.load`, a `Plan` as JSON in, an `Outcome` out.

A process of its own on raw sockets and epoll, so that what it costs is small beside what it
measures and is counted apart. Each client is one keep-alive connection with one request under way.
Every answer is read to its end and its status looked at.
"""

from __future__ import annotations

import json
import random
import select
import socket
import sys
import time
from array import array
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

PATH = "/v1/requests"
SILENCE_S = 20
_END = b"\r\n\r\n"
_LENGTH = b"content-length: "
# Of what was sent before, so many ids may be sent again: they meet each other under way.
_RECENT = 64


@dataclass(frozen=True)
class Plan:
    """What to post. One of `seconds` and `requests` says when to stop.

    `targets` are connections, one of them a request by chance; `repeats` is the share of requests
    that send an id and body once more. With `batch` each call reports so many requests.
    """

    port: int
    key: str
    prefix: str
    targets: list[str]
    clients: int
    seconds: float | None = None
    requests: int | None = None
    repeats: float = 0.0
    batch: int = 0
    prefer: str = ""
    fields: dict[str, Any] = field(default_factory=dict)
    # Calls of a gateway: where to, with `fields` as the body as they are; `targets` are then the
    # tokens that are sent, and `first_byte` takes the time to the first byte, not to the last. A
    # path with braces is read instead, with one of the targets in them and the shop's key.
    path: str = ""
    first_byte: bool = False


@dataclass
class Outcome:
    """What came back. `done` are the moments of answers (seconds since 1970), `took` in seconds."""

    statuses: dict[int, int]
    # Ids with an answer 2xx, each counted once.
    acknowledged: int
    # The first few bodies of other answers.
    refusals: list[str]
    done: array[float] = field(default_factory=lambda: array("d"))
    took: array[float] = field(default_factory=lambda: array("d"))

    @property
    def refused(self) -> int:
        return sum(count for status, count in self.statuses.items() if status >= 300)


@dataclass
class _Wire:
    """One client: its socket, what has arrived of the answer, what it asked and when."""

    socket: socket.socket
    arrived: bytes = b""
    asked: str = ""
    at: float = 0.0
    first: float = 0.0


def requests(plan: Plan) -> Iterator[tuple[str, bytes]]:
    """Request ids with the bytes to send, without end."""
    if plan.batch:
        yield from batches(plan)
    chance = random.Random(plan.prefix)  # noqa: S311
    if plan.path:
        yield from _calls(plan, chance)
    recent: deque[tuple[str, bytes]] = deque(maxlen=_RECENT)
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{plan.port}\r\n"
        f"Authorization: Bearer {plan.key}\r\nContent-Type: application/json\r\n"
    )
    ready = []
    width = len(plan.prefix) + 9
    for target in plan.targets:
        body = json.dumps({"connection_id": target} | plan.fields, separators=(",", ":"))[1:]
        length = len(body) + width + len('{"request_id":"",')
        ready.append((
            f'{head}Content-Length: {length}\r\n\r\n{{"request_id":"'.encode(),
            f'",{body}'.encode(),
        ))  # fmt: skip
    count = len(ready)
    number = 0
    while True:
        if recent and plan.repeats and chance.random() < plan.repeats:
            yield chance.choice(recent)
            continue
        front, back = ready[int(chance.random() * count)]
        number += 1
        name = f"{plan.prefix}{number:09d}"
        made = (name, front + name.encode() + back)
        if plan.repeats:
            recent.append(made)
        yield made


def _calls(plan: Plan, chance: random.Random) -> Iterator[tuple[str, bytes]]:
    """The same call by each token, or one of the targets read, without end."""
    tell = _read if "{}" in plan.path else _call
    ready = [tell(plan, target).encode() for target in plan.targets]
    while True:
        yield "", ready[int(chance.random() * len(ready))]


def _call(plan: Plan, token: str) -> str:
    body = json.dumps(plan.fields, separators=(",", ":"))
    return (
        f"POST {plan.path} HTTP/1.1\r\nHost: 127.0.0.1:{plan.port}\r\n"
        f"Authorization: Bearer {token}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    )


def _read(plan: Plan, target: str) -> str:
    return (
        f"GET {plan.path.format(target)} HTTP/1.1\r\nHost: 127.0.0.1:{plan.port}\r\n"
        f"Authorization: Bearer {plan.key}\r\n\r\n"
    )


def batches(plan: Plan) -> Iterator[tuple[str, bytes]]:
    """Batches with the bytes to send, without end; the targets take turns."""
    ready = [
        f'",{json.dumps({"connection_id": target} | plan.fields, separators=(",", ":"))[1:]}'
        for target in plan.targets
    ]
    prefer = f"Prefer: {plan.prefer}\r\n" if plan.prefer else ""
    number = 0
    while True:
        names = [f"{plan.prefix}{number + line:09d}" for line in range(plan.batch)]
        lines = ",".join(
            f'{{"request_id":"{name}{ready[(number + line) % len(ready)]}'
            for line, name in enumerate(names)
        )
        number += plan.batch
        body = f'{{"requests":[{lines}]}}'.encode()
        head = (
            f"POST {PATH}/batch HTTP/1.1\r\nHost: 127.0.0.1:{plan.port}\r\n"
            f"Authorization: Bearer {plan.key}\r\nContent-Type: application/json\r\n"
            f"{prefer}Content-Length: {len(body)}\r\n\r\n"
        )
        yield names[0], head.encode() + body


def complete(data: bytes) -> bool:
    """Whether an answer has arrived whole."""
    end = data.find(_END)
    if end < 0:
        return False
    at = data.find(_LENGTH, 0, end)
    if at >= 0:
        at += len(_LENGTH)
        return len(data) >= end + 4 + int(data[at : data.index(b"\r", at)])
    return data.endswith(b"0\r\n\r\n")


def run(plan: Plan) -> Outcome:
    """Post until it is time to stop, then wait for what is under way.

    Raises:
        RuntimeError: the server hung up or fell silent.
    """
    wires: dict[int, _Wire] = {}
    poll = select.epoll()
    for _ in range(plan.clients):
        link = socket.create_connection(("127.0.0.1", plan.port), timeout=SILENCE_S)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wires[link.fileno()] = _Wire(link)
        poll.register(link.fileno(), select.EPOLLIN)
    outcome = Outcome(statuses={}, acknowledged=0, refusals=[])
    statuses: Counter[bytes] = Counter()
    seen: set[str] = set()
    waiting = requests(plan)
    left = plan.requests if plan.requests is not None else sys.maxsize
    stop = time.time() + plan.seconds if plan.seconds is not None else float("inf")
    under_way = 0
    for wire in list(wires.values())[:left]:
        _ask(wire, waiting)
        under_way, left = under_way + 1, left - 1
    while under_way:
        events = poll.poll(SILENCE_S)
        if not events:
            raise RuntimeError(f"No answer for {SILENCE_S} s.")
        for number, _ in events:
            wire = wires[number]
            data = wire.socket.recv(65536)
            if not data:
                raise RuntimeError("The server hung up.")
            if not wire.arrived:
                wire.first = time.time()
            data = wire.arrived + data
            if not complete(data):
                wire.arrived = data
                continue
            wire.arrived = b""
            now = time.time()
            outcome.done.append(now)
            outcome.took.append((wire.first if plan.first_byte else now) - wire.at)
            status = data[9:12]
            statuses[status] += 1
            if status[:1] == b"2":
                if plan.repeats:
                    seen.add(wire.asked)
            elif len(outcome.refusals) < 5:
                outcome.refusals.append(data.partition(_END)[2].decode(errors="replace"))
            if left > 0 and now < stop:
                _ask(wire, waiting)
                left -= 1
            else:
                under_way -= 1
    for wire in wires.values():
        wire.socket.close()
    outcome.statuses = {int(status): count for status, count in statuses.items()}
    answered = sum(outcome.statuses.values()) - outcome.refused
    outcome.acknowledged = len(seen) if plan.repeats else answered
    return outcome


def _ask(wire: _Wire, waiting: Iterator[tuple[str, bytes]]) -> None:
    wire.asked, data = next(waiting)
    wire.at = time.time()
    wire.socket.sendall(data)


def ask(plan: Plan) -> bytes:
    """The plan as the process reads it."""
    return json.dumps(asdict(plan)).encode()


def read(raw: bytes) -> Outcome:
    """The outcome as the process wrote it: a line of JSON, then two arrays of doubles."""
    head, _, rest = raw.partition(b"\n")
    said = json.loads(head)
    numbers = array("d", rest)
    half = len(numbers) // 2
    return Outcome(
        statuses={int(status): count for status, count in said["statuses"].items()},
        acknowledged=said["acknowledged"],
        refusals=said["refusals"],
        done=numbers[:half],
        took=numbers[half:],
    )


def main() -> None:
    """Read a plan, carry it out, write the outcome."""
    outcome = run(Plan(**json.load(sys.stdin)))
    head = {
        "statuses": outcome.statuses,
        "acknowledged": outcome.acknowledged,
        "refusals": outcome.refusals,
    }
    sys.stdout.buffer.write(json.dumps(head).encode() + b"\n")
    sys.stdout.buffer.write(outcome.done.tobytes() + outcome.took.tobytes())


if __name__ == "__main__":
    main()
