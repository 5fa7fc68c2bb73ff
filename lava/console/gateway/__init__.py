"""The gateway's pages: calls as they come, forward tokens, provider keys, prices of models.

Each module parses, calls one verb of `meters.gateway` and presents. What is entered as a secret is
never shown again; what is made as one is shown once.
"""

from __future__ import annotations

from django.urls import URLPattern

from lava.console.gateway import calls, edits, keys, prices, tokens

urls: list[URLPattern] = [
    *calls.urls,
    *tokens.urls,
    *edits.urls,
    *keys.urls,
    *prices.urls,
]
