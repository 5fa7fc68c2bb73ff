"""Which frames of a stream the client does not see."""

from __future__ import annotations

import pytest

from meters.gateway import calls


@pytest.mark.parametrize(
    ("frame", "is_ours"),
    [
        (b'data: {"choices":[],"usage":{"prompt_tokens":1}}\n\n', True),
        (b'data: {"usage" : {"prompt_tokens": 1}, "choices" : [ ]}\n\n', True),
        (b'data: {"choices":[{"delta":{}}],"usage":{"prompt_tokens":1}}\n\n', False),
        (b'data: {"choices":[{"delta":{}}],"usage":null}\n\n', False),
        # Azure's first one.
        (b'data: {"choices":[],"prompt_filter_results":[{}],"usage":null}\n\n', False),
        (b"data: [DONE]\n\n", False),
    ],
)
def test_only_the_frame_that_we_asked_for_is_left_out(frame: bytes, is_ours: bool) -> None:
    assert calls._is_usage_alone(frame) is is_ours
