"""What documents lie on and signs hang on: wood, wall, cloth, paper."""

from __future__ import annotations

from random import Random
from typing import Final

from PIL import Image

from pipeline.generate.canvas import Color, mix

__all__ = ["gradient", "paper", "surface"]

_WOODS: Final[tuple[Color, ...]] = ((150, 104, 66), (181, 136, 92), (112, 74, 48), (199, 164, 122))
_WALLS: Final[tuple[Color, ...]] = (
    (196, 188, 176),
    (150, 158, 162),
    (172, 122, 100),
    (122, 140, 120),
    (104, 112, 128),
    (214, 206, 190),
)
_CLOTHS: Final[tuple[Color, ...]] = ((74, 96, 120), (128, 62, 66), (90, 110, 84), (88, 84, 92), (70, 70, 78))


def surface(width: int, height: int, rng: Random) -> tuple[Image.Image, str]:
    """A background of the given size, and what it is."""
    kind = rng.choice(("wood", "wall", "cloth", "desk"))
    if kind == "wood":
        return _textured(width, height, rng, rng.choice(_WOODS), 0.18, (3, 40)), kind
    if kind == "wall":
        return _textured(width, height, rng, rng.choice(_WALLS), 0.10, (24, 24)), kind
    if kind == "cloth":
        return _textured(width, height, rng, rng.choice(_CLOTHS), 0.14, (width // 3, height // 3)), kind
    base = rng.choice(_WALLS + _CLOTHS)
    return gradient(width, height, mix(base, (255, 255, 255), 0.2), mix(base, (0, 0, 0), 0.2)), kind


def paper(width: int, height: int, base: Color, rng: Random) -> Image.Image:
    """A sheet that is not quite even in colour."""
    return _textured(width, height, rng, base, 0.035, (9, 9))


def gradient(width: int, height: int, top: Color, bottom: Color) -> Image.Image:
    """`top` turning into `bottom`."""
    column = Image.new("RGB", (1, 32))
    for y in range(32):
        column.putpixel((0, y), mix(top, bottom, y / 31))
    return column.resize((width, height), Image.Resampling.BICUBIC)


def _textured(
    width: int, height: int, rng: Random, base: Color, strength: float, grid: tuple[int, int]
) -> Image.Image:
    """`base`, lighter and darker by a smooth random field with `grid` spots across and down."""
    across, down = max(2, grid[0]), max(2, grid[1])
    field = Image.frombytes("L", (across, down), rng.randbytes(across * down))
    smooth = field.resize((width, height), Image.Resampling.BICUBIC)
    tables = [
        [min(255, max(0, round(channel * (1 + strength * (v - 128) / 128)))) for v in range(256)]
        for channel in base
    ]
    return Image.merge("RGB", [smooth.point(table) for table in tables])
