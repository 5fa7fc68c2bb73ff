"""The official Node clients, unchanged, only their base URL set; every answer is checked by
TypeScript against the client's own declaration of the method that gave it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

OLDER = "@lavapayments/nodejs"
NEWER = "lava11"


class Client:
    """Calls of one client, each in the words of its methods: `requests.create`."""

    def __init__(self, node: str, folder: Path, key: str, url: str, client: str = OLDER) -> None:
        self.node = node
        self.folder = folder
        self.key = key
        self.url = f"{url}/v1/"
        self.client = client
        self.called: list[tuple[str, Any]] = []

    def __call__(self, *calls: tuple[str, list[Any]]) -> list[Any]:
        told = {"client": self.client, "key": self.key, "baseUrl": self.url, "calls": calls}
        done = subprocess.run(
            [self.node, str(self.folder / "run.cjs")],
            input=json.dumps(told),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        answers = json.loads(done.stdout)
        self.called += [
            (path, answer["ok"])
            for (path, _), answer in zip(calls, answers, strict=True)
            if "ok" in answer
        ]
        return [answer.get("ok", answer.get("error")) for answer in answers]

    def one(self, method: str, *args: Any) -> Any:
        return self((method, list(args)))[0]

    def methods(self) -> set[str]:
        """Every method the client has."""
        return set(self.one("methods"))

    def worked(self) -> set[str]:
        """The methods that were called and answered."""
        return {path for path, _ in self.called if path != "methods"}


def check_types(clients: list[Client], tmp: Path) -> None:
    """Have TypeScript assign every answer to the declared answer of its method."""
    told = [client for client in clients if client.called]
    if not told:
        return
    folder = told[0].folder
    # The file stands where the compiler finds the packages.
    source = folder / f".answers-{tmp.name}.ts"
    source.write_text("\n".join(_program(client.client, client.called) for client in told))
    try:
        done = subprocess.run(
            [
                told[0].node,
                str(folder / "node_modules/typescript/bin/tsc"),
                *("--noEmit", "--strict", "--skipLibCheck", "--target", "es2022"),
                *("--module", "nodenext", "--moduleResolution", "nodenext"),
                *("--types", "node", str(source)),
            ],
            capture_output=True,
            text=True,
            cwd=folder,
            timeout=300,
        )
    finally:
        source.unlink()
    assert done.returncode == 0, done.stdout


def _program(client: str, called: list[tuple[str, Any]]) -> str:
    lines = [
        "{",
        f"type Lava = import('{client}').Lava;",
        f"type Made = typeof import('{client}').Lava;",
        "type Answer<M> = M extends (...args: never[]) => infer A ? Awaited<A> : never;",
        # Fields beside the declared ones are allowed; wrong or missing ones are not.
        "const answers = <T>() => <U extends T>(value: U) => value;",
    ]
    for path, answer in called:
        if path in ("methods", "request", "gateway"):
            continue
        resource, _, method = path.partition(".")
        kind = f"Lava['{resource}']['{method}']" if method else f"Lava['{resource}']"
        if resource == "Lava":
            kind = f"Made['{method}']"
        lines.append(f"answers<Answer<{kind}>>()({json.dumps(answer)});")
    return "\n".join([*lines, "}"]) + "\n"
