"""`@copilotkit/aimock`, a stand-in for many providers that is not ours: it sends a stream's usage
only when asked, has switches for chaos, and keeps a journal of what arrived."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import httpx

from lava.bench import ports
from tests.product import eventually

FOLDER = Path(__file__).resolve().parent
PROGRAM = FOLDER / "node_modules/@copilotkit/aimock/dist/cli.js"
SAID = "Hi there, friend. How are you today?"
# 120 in and 30 out, in the words of each dialect.
USAGE = {
    "prompt_tokens": 120, "completion_tokens": 30, "total_tokens": 150, "input_tokens": 120,
    "output_tokens": 30, "promptTokenCount": 120, "candidatesTokenCount": 30,
    "totalTokenCount": 150,
}  # fmt: skip
FIXTURES = {
    "fixtures": [
        {"match": {"userMessage": "hello"}, "response": {"content": SAID, "usage": USAGE}},
        {
            "match": {"userMessage": "weather"},
            "response": {
                "toolCalls": [{"name": "get_weather", "arguments": '{"city":"Oslo"}'}],
                "usage": USAGE,
            },
        },
        {"match": {"inputText": "hello"}, "response": {"embedding": [0.1, 0.2, 0.3]}},
    ]
}


class Aimock:
    """One running stand-in."""

    def __init__(self, node: str, folder: Path) -> None:
        fixtures = folder / "fixtures.json"
        fixtures.write_text(json.dumps(FIXTURES))
        port = ports.free()
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [node, str(PROGRAM), "-p", str(port), "-f", str(fixtures), "--log-level", "silent"],
            stdout=subprocess.DEVNULL,
            env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        )
        eventually(self._answers, within_s=30)
        self._seen = 0

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/__aimock/journal", timeout=1).is_success
        except httpx.HTTPError:
            return False

    def journal(self) -> list[dict[str, Any]]:
        """What arrived since `forget`, oldest first."""
        found: list[dict[str, Any]] = httpx.get(f"{self.url}/__aimock/journal").json()
        return found[self._seen :]

    def forget(self) -> None:
        self._seen += len(self.journal())

    def chaos(self, **rates: float) -> None:
        """Let what comes from now on fail; with nothing, let it be well again."""
        url = f"{self.url}/__aimock/chaos"
        done = httpx.post(url, json=rates) if rates else httpx.delete(url)
        assert done.is_success, done.text

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)
