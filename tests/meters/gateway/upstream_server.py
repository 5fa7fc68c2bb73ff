"""A provider that says exactly what a test wrote for it, byte for byte. Run as a thread."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Script:
    """What to answer: raw bytes after the head, in pieces with pauses before each."""

    pieces: list[bytes] = field(default_factory=list)
    kind: str = "application/json"
    status: str = "200 OK"
    headers: list[str] = field(default_factory=list)
    pause_s: float = 0.0
    # Say no length and break the line at the end instead of ending the body.
    breaks: bool = False
    # Send the pieces over and over.
    endless: bool = False
    # Say nothing for so long before the end.
    stall_s: float = 0.0
    # Sent in place of head and pieces.
    raw: bytes | None = None


class Upstream:
    """Answers each connection's requests by the scripts it was given, the last one for ever."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.scripts: list[Script] = []
        self.requests: list[bytes] = []
        self.sent = 0
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def answers(self, *scripts: Script) -> None:
        self.scripts = list(scripts)
        self.requests = []
        self.sent = 0

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                link, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(link,), daemon=True).start()

    def _serve(self, link: socket.socket) -> None:
        with contextlib.suppress(OSError), link:
            data = b""
            while True:
                while b"\r\n\r\n" not in data:
                    more = link.recv(65536)
                    if not more:
                        return
                    data += more
                head, _, data = data.partition(b"\r\n\r\n")
                length = next(
                    (int(line[15:]) for line in head.lower().split(b"\r\n")
                     if line.startswith(b"content-length:")),
                    0,
                )  # fmt: skip
                while len(data) < length:
                    data += link.recv(65536)
                body, data = data[:length], data[length:]
                with self._lock:
                    self.requests.append(head + b"\r\n\r\n" + body)
                    script = self.scripts[0] if len(self.scripts) == 1 else self.scripts.pop(0)
                self._answer(link, script)
                if script.breaks:
                    return

    def _answer(self, link: socket.socket, script: Script) -> None:
        if script.raw is not None:
            link.sendall(script.raw)
            self._stall(link, script.stall_s)
            return
        lines = [f"HTTP/1.1 {script.status}", f"Content-Type: {script.kind}", *script.headers]
        link.sendall("\r\n".join([*lines, "Transfer-Encoding: chunked", "", ""]).encode())
        for piece in self._pieces(script):
            time.sleep(script.pause_s)
            link.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.sent += len(piece)
        self._stall(link, script.stall_s)
        if not script.breaks:
            link.sendall(b"0\r\n\r\n")

    @staticmethod
    def _stall(link: socket.socket, seconds: float) -> None:
        """Be silent, until the other side has had enough."""
        if seconds:
            link.settimeout(seconds)
            link.recv(1)

    @staticmethod
    def _pieces(script: Script) -> Iterator[bytes]:
        yield from script.pieces
        while script.endless:
            yield from script.pieces

    def close(self) -> None:
        self.listener.close()
