"""The fonts that drawings use, all from Python packages, so that every machine draws the same letters.

DejaVu and STIX come with matplotlib, Aileron with Pillow; Caladea (Apache-2.0), Intuitive, Amatic SC and
Fredoka One (SIL OFL 1.1) from the `font-*` packages.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from PIL import ImageFont

__all__ = ["FACES", "HANDS", "UndrawableTextError", "face_for", "load"]

_MPL: Final = "matplotlib/mpl-data/fonts/ttf"
_FILES: Final[dict[str, str]] = {
    "sans": f"{_MPL}/DejaVuSans.ttf",
    "sans_bold": f"{_MPL}/DejaVuSans-Bold.ttf",
    "sans_oblique": f"{_MPL}/DejaVuSans-Oblique.ttf",
    "serif": f"{_MPL}/DejaVuSerif.ttf",
    "serif_bold": f"{_MPL}/DejaVuSerif-Bold.ttf",
    "mono": f"{_MPL}/DejaVuSansMono.ttf",
    "mono_bold": f"{_MPL}/DejaVuSansMono-Bold.ttf",
    "times": f"{_MPL}/STIXGeneral.ttf",
    "times_bold": f"{_MPL}/STIXGeneralBol.ttf",
    "caladea": "font_caladea/files/Caladea-Regular.ttf",
    "caladea_bold": "font_caladea/files/Caladea-Bold.ttf",
    "round": "font_fredoka_one/files/FredokaOne-Regular.ttf",
    "hand": "font_intuitive/files/Intuitive.ttf",
    "hand_caps": "font_amatic_sc/files/AmaticSC-Bold.ttf",
}
_AILERON: Final = "aileron"  # embedded in Pillow, no file
FACES: Final = (*_FILES, _AILERON)
HANDS: Final = ("hand", "hand_caps", "sans_oblique")
_FALLBACK: Final = "sans"  # DejaVu Sans holds by far the most characters
_MISSING: Final = "\U0010ffff"  # no font has it, so it shows what a font draws for a missing character


class UndrawableTextError(ValueError):
    """A text holds characters that no font here has."""


def _path(face: str) -> Path:
    package, _, rest = _FILES[face].partition("/")
    spec = find_spec(package)  # finds without importing: matplotlib itself is slow to import
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"the font {face!r} comes with {package!r}: install it", name=package)
    return Path(spec.submodule_search_locations[0]) / rest


@lru_cache(maxsize=512)
def load(face: str, size: int) -> ImageFont.FreeTypeFont:
    """The font `face` at `size` pixels.

    Args:
        face: one of `FACES`.
        size: the height of a line in pixels, about 1.4 times that of a capital.
    """
    # The basic layout: Raqm is not on every machine, and places letters a little differently.
    if face == _AILERON:
        font = ImageFont.load_default(size)
        assert isinstance(font, ImageFont.FreeTypeFont)  # noqa: S101 - what load_default returns for a size
        return font
    return ImageFont.truetype(str(_path(face)), size, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=8192)
def _has(face: str, character: str) -> bool:
    font = load(face, 24)
    return character.isspace() or bytes(font.getmask(character)) != bytes(font.getmask(_MISSING))


def face_for(face: str, text: str) -> str:
    """`face`, or the fallback when `face` lacks a character of `text`.

    Raises:
        UndrawableTextError: when the fallback lacks one as well; the message names the characters.
    """
    for candidate in (face, _FALLBACK):
        missing = sorted({c for c in text if not _has(candidate, c)})
        if not missing:
            return candidate
    raise UndrawableTextError(f"no font has {' '.join(f'{c} (U+{ord(c):04X})' for c in missing)}")
