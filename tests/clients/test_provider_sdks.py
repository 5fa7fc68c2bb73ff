"""The stock `openai`, `anthropic` and `google-genai` SDKs through a live gateway.

They are looked for in this environment, or in the Pythons of LAVA_SDK_PYTHONS (paths, joined by
`:`): each holds one set of versions.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.meters.gateway.live import Shop, settled, shop, sound

__all__ = ["shop"]

PYTHONS = os.environ.get("LAVA_SDK_PYTHONS", sys.executable).split(":")


@pytest.mark.parametrize("python", PYTHONS)
def test_the_stock_sdks_work_with_base_url_and_key_alone(shop: Shop, python: str) -> None:
    if python == sys.executable and not (find_spec("openai") and find_spec("anthropic")):
        if os.environ.get("CI"):
            pytest.fail("the provider SDKs are not installed")
        pytest.skip("the provider SDKs are not installed: set LAVA_SDK_PYTHONS")
    poor = Shop(shop.server, credit="0.000001")
    told = {
        "url": shop.server.url,
        "provider": shop.server.provider_url,
        "token": shop.token(),
        "poor": poor.token(),
    }
    done = subprocess.run(
        [python, str(Path(__file__).with_name("provider_sdks.py")), json.dumps(told)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    calls = settled(shop)
    # Each was asked once, and each that the credits did not cover was never sent.
    assert len(calls) == len(shop.server.journal()) == 25
    # A typed error each, after exactly one attempt: two of OpenAI's, two of Anthropic's, one of
    # Google's.
    assert [(call.status, call.http_status) for call in poor.calls()] == [("blocked", 402)] * 5
    counted = ("/count_tokens", ":countTokens", "/models")
    for call in calls:
        assert (call.charged > 0) != call.endpoint.endswith(counted), call.endpoint
        assert not set(call.flags) - {"unpriced"}
    sound(shop)
