"""The accent colours of a merchant's pages and mails, derived from one brand colour. Pure.

Only five tokens depend on the brand (design tokens of the customer pages, Colour): accent,
accent-fill with its hover, accent-mid, accent-soft and the ring. The hue is held and the lightness
is moved in OKLCH until the contrast holds; `checkout.views` serves the result as a stylesheet of
its own, so that no page needs an inline style.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import chain

# Raise it whenever the derivation changes: it is part of the stylesheet's address.
VERSION = 1

WHITE = "#ffffff"
INK = "#15191e"
TEXT_CONTRAST = 4.5
SHAPE_CONTRAST = 3.0

RGB = tuple[float, float, float]


@dataclass(frozen=True)
class Ground:
    """What a theme paints on, and where its derived colours start (OKLCH lightness)."""

    surface: str
    canvas: str
    # The accent may be the brand itself on light; on dark it starts bright.
    accent_lightness: float | None
    mid_lightness: float
    soft_lightness: float
    soft_chroma: float
    ring_alpha: float
    # Moving this way makes a colour stand out from the surface.
    away: int
    # The contrast with the surface that a fill aims at.
    fill_contrast: float


LIGHT = Ground(
    surface="#ffffff",
    canvas="#f5f6f7",
    accent_lightness=None,
    mid_lightness=0.626,
    soft_lightness=0.96,
    soft_chroma=0.012,
    ring_alpha=0.24,
    away=-1,
    fill_contrast=SHAPE_CONTRAST,
)
DARK = Ground(
    surface="#161a1e",
    canvas="#0d1013",
    accent_lightness=0.776,
    mid_lightness=0.593,
    soft_lightness=0.272,
    soft_chroma=0.038,
    ring_alpha=0.28,
    away=1,
    fill_contrast=3.45,
)


@dataclass(frozen=True)
class Palette:
    """The derived tokens of one theme, as CSS values."""

    accent: str
    accent_fill: str
    accent_fill_hover: str
    on_accent: str
    accent_mid: str
    accent_soft: str
    ring: str

    def declarations(self) -> str:
        """The palette as CSS custom properties."""
        return ";".join(
            f"--{field.name.replace('_', '-')}:{getattr(self, field.name)}"
            for field in fields(self)
        )


def derive(color: str, *, ground: Ground) -> Palette:
    """The palette of `color` (`#rrggbb`) on one theme's ground.

    Every text colour reaches 4.5 and every shape 3.0 against what it stands on (WCAG 2.2).
    """
    lightness, chroma, hue = _to_oklch(color)

    def at(level: float, strength: float = chroma) -> str:
        return _from_oklch(level, strength, hue)

    accent = _move(
        lightness if ground.accent_lightness is None else ground.accent_lightness,
        ground.away,
        at,
        lambda c: min(contrast(c, ground.surface), contrast(c, ground.canvas)) >= TEXT_CONTRAST,
        keep=color if ground.accent_lightness is None else None,
    )
    fill = _move(
        lightness,
        ground.away,
        at,
        lambda c: contrast(c, ground.surface) >= ground.fill_contrast and _readable(c),
        keep=color,
    )
    on_accent = WHITE if contrast(fill, WHITE) >= TEXT_CONTRAST else INK
    return Palette(
        accent=accent,
        accent_fill=fill,
        accent_fill_hover=_hover(fill, on_accent, ground),
        on_accent=on_accent,
        accent_mid=_move(
            ground.mid_lightness,
            ground.away,
            at,
            lambda c: contrast(c, ground.surface) >= SHAPE_CONTRAST,
        ),
        accent_soft=at(ground.soft_lightness, min(chroma, ground.soft_chroma)),
        ring=_alpha(accent, ground.ring_alpha),
    )


def stylesheet(color: str) -> str:
    """The whole stylesheet of a brand colour, light and dark."""
    light, dark = (derive(color, ground=ground).declarations() for ground in (LIGHT, DARK))
    return f":root{{{light}}}\n@media (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"


def fingerprint(color: str) -> str:
    """Names one version of a brand's stylesheet, so that it may be cached for ever."""
    return hashlib.sha256(f"{VERSION}:{color.lower()}".encode()).hexdigest()[:12]


def logo_fingerprint(logo: bytes) -> str:
    """Names one version of a logo, so that it may be cached for ever."""
    return hashlib.sha256(logo).hexdigest()[:12]


def contrast(one: str, other: str) -> float:
    """WCAG 2 contrast of two `#rrggbb` colours, 1 to 21."""
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def _readable(fill: str) -> bool:
    return max(contrast(fill, WHITE), contrast(fill, INK)) >= TEXT_CONTRAST


def _move(
    start: float,
    direction: int,
    at: Callable[[float], str],
    holds: Callable[[str], bool],
    *,
    keep: str | None = None,
) -> str:
    """The first colour from `start` in `direction` that holds, else the first the other way.

    `keep` is tried before any step: rounding through OKLCH must not change a brand that is fine.
    """
    if keep is not None and holds(keep):
        return keep
    steps = (start + direction * step / 200 for step in range(201))
    back = (start - direction * step / 200 for step in range(201))
    for level in chain(steps, back):
        if 0 <= level <= 1 and holds(candidate := at(level)):
            return candidate
    raise ValueError("No lightness of this hue reaches the contrast.")  # black and white always do


def _hover(fill: str, on_accent: str, ground: Ground) -> str:
    lightness, chroma, hue = _to_oklch(fill)
    for change in (-0.06, -0.04, -0.02, 0.02, 0.04, 0.06):
        candidate = _from_oklch(lightness + change, chroma, hue)
        on_text = contrast(candidate, on_accent) >= TEXT_CONTRAST
        if on_text and contrast(candidate, ground.surface) >= 2.5:
            return candidate
    return fill


def _alpha(color: str, alpha: float) -> str:
    red, green, blue = (round(channel * 255) for channel in _channels(color))
    return f"rgb({red} {green} {blue}/{alpha:.0%})"


# sRGB <-> OKLCH after Björn Ottosson, "A perceptual color space for image processing" (2020).


def _channels(color: str) -> RGB:
    red, green, blue = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue


def _linear(channel: float) -> float:
    if channel <= 0.04045:
        return channel / 12.92
    return float(((channel + 0.055) / 1.055) ** 2.4)


def _gamma(channel: float) -> float:
    if channel <= 0.0031308:
        return channel * 12.92
    return float(1.055 * channel ** (1 / 2.4) - 0.055)


def _luminance(color: str) -> float:
    red, green, blue = map(_linear, _channels(color))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _to_oklch(color: str) -> tuple[float, float, float]:
    red, green, blue = map(_linear, _channels(color))
    long = math.cbrt(0.4122214708 * red + 0.5363325363 * green + 0.0514459929 * blue)
    medium = math.cbrt(0.2119034982 * red + 0.6806995451 * green + 0.1073969566 * blue)
    short = math.cbrt(0.0883024619 * red + 0.2817188376 * green + 0.6299787005 * blue)
    lightness = 0.2104542553 * long + 0.7936177850 * medium - 0.0040720468 * short
    a = 1.9779984951 * long - 2.4285922050 * medium + 0.4505937099 * short
    b = 0.0259040371 * long + 0.7827717662 * medium - 0.8086757660 * short
    return lightness, math.hypot(a, b), math.atan2(b, a)


def _from_oklch(lightness: float, chroma: float, hue: float) -> str:
    """The nearest `#rrggbb`; chroma gives way until the colour is within sRGB."""
    level = min(max(lightness, 0.0), 1.0)
    for step in range(51):
        rgb = _oklch_to_linear(level, chroma * (1 - step / 50), hue)
        if all(-0.0005 <= channel <= 1.0005 for channel in rgb):
            break
    return "#" + "".join(
        f"{round(min(max(_gamma(max(channel, 0.0)), 0.0), 1.0) * 255):02x}" for channel in rgb
    )


def _oklch_to_linear(lightness: float, chroma: float, hue: float) -> RGB:
    a, b = chroma * math.cos(hue), chroma * math.sin(hue)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    return (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )
