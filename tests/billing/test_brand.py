from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing import brand

COLORS = st.integers(0, 0xFFFFFF).map(lambda value: f"#{value:06x}")


@given(COLORS)
def test_every_brand_colour_gives_readable_tokens(color: str) -> None:
    for ground in (brand.LIGHT, brand.DARK):
        palette = brand.derive(color, ground=ground)
        assert brand.contrast(palette.accent, ground.surface) >= 4.5
        assert brand.contrast(palette.accent, ground.canvas) >= 4.5
        assert brand.contrast(palette.on_accent, palette.accent_fill) >= 4.5
        assert brand.contrast(palette.on_accent, palette.accent_fill_hover) >= 4.5
        assert brand.contrast(palette.accent_fill, ground.surface) >= 3
        assert brand.contrast(palette.accent_mid, ground.surface) >= 3


def test_a_brand_that_is_readable_stays_as_it_is() -> None:
    palette = brand.derive("#0b5f8f", ground=brand.LIGHT)
    assert (palette.accent, palette.accent_fill, palette.on_accent) == (
        "#0b5f8f",
        "#0b5f8f",
        "#ffffff",
    )


def test_a_bright_brand_carries_dark_words() -> None:
    assert brand.derive("#ffcc00", ground=brand.LIGHT).on_accent == brand.INK


@pytest.mark.parametrize("color", ["#000000", "#ffffff", "#ff0000", "#00ff00", "#0000ff"])
def test_a_stylesheet_has_both_themes_and_only_colours(color: str) -> None:
    sheet = brand.stylesheet(color)
    assert sheet.count("--accent-fill:") == 2
    assert "prefers-color-scheme:dark" in sheet


def test_a_changed_colour_has_another_address() -> None:
    assert brand.fingerprint("#0B5F8F") == brand.fingerprint("#0b5f8f")
    assert brand.fingerprint("#0b5f8e") != brand.fingerprint("#0b5f8f")
