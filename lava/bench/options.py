"""What the command was asked for; the cases take what they use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """The flags of `manage.py bench`."""

    rounds: int
    seconds: float
    clients: int
    connections: int
    requests: int
    subscriptions: int = 100_000
    # The environment that LiteLLM is installed in; empty: it is left out.
    litellm: str = ""
