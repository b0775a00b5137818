"""Pictures as the page may show them: decoded, made smaller and encoded anew, never the bytes that came."""

from __future__ import annotations

import io
import secrets
import threading
import warnings
from collections import OrderedDict
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from pipeline.anyset import AnySet
from pipeline.curate.normalise import in_eight_bits, upright
from pipeline.encoders._common import on_white

__all__ = ["MISSING", "Gallery", "Shown", "shown"]

SIDE = 1024
PIXELS = 100_000_000
KEPT = 16
"""Pictures that are kept in memory, for a row that is shown again."""
FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF")
MISSING = "This dataset does not hold the picture."


class Shown(NamedTuple):
    """What is shown for a picture.

    Attributes:
        jpeg: the picture, or words.
        whole: whether it is the picture.
    """

    jpeg: bytes
    whole: bool


class Gallery:
    """The pictures of a dataset by keys that tell nothing and that cannot be guessed."""

    def __init__(self, data: AnySet) -> None:
        """Begin with no picture that may be asked for."""
        self._data = data
        self._names: dict[str, str] = {}
        self._images: dict[str, str] = {}
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._broken: set[str] = set()
        self._lock = threading.Lock()

    def name(self, image: str) -> str:
        """What the page calls a picture; only pictures that were named so are given out."""
        with self._lock:
            if image not in self._names:
                self._names[image] = name = secrets.token_urlsafe(16)
                self._images[name] = image
            return self._names[image]

    def read(self, name: str) -> bytes | None:
        """A picture as JPEG, of words where none can be seen; None where the name is not known."""
        with self._lock:
            image = self._images.get(name)
            if image is None:
                return None
            if image in self._kept:
                self._kept.move_to_end(image)
                return self._kept[image]
        made = shown(dict(self._data.pictures.read([image])).get(image))
        with self._lock:
            if not made.whole:
                self._broken.add(image)
            self._kept[image] = made.jpeg
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return made.jpeg

    def is_broken(self, image: str) -> bool:
        """Whether words were shown where a picture was asked for."""
        with self._lock:
            return image in self._broken


def shown(data: bytes | None) -> Shown:
    """A picture encoded anew as JPEG within 1024 x 1024; words where it cannot be."""
    if data is None:
        return _said(MISSING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is odd about metadata is no news: none of it is kept
            with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
                if opened.width * opened.height > PIXELS:
                    return _said(f"Too large: {opened.width:,} x {opened.height:,} pixels.")
                opened.draft("RGB", (SIDE, SIDE))
                picture = on_white(in_eight_bits(upright(opened)))
                picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
                return Shown(_encoded(picture), whole=True)
    except Exception as error:  # noqa: BLE001 - decoders raise whatever a damaged file makes of their code
        return _said(f"The picture is damaged and cannot be shown ({type(error).__name__}).")


def _encoded(picture: Image.Image) -> bytes:
    clean = Image.new("RGB", picture.size)
    clean.paste(picture)
    buffer = io.BytesIO()
    clean.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _said(words: str) -> Shown:
    return Shown(_encoded(_words(words)), whole=False)


def _words(said: str) -> Image.Image:
    card = Image.new("RGB", (640, 200), "#e2e6ee")
    font = ImageFont.load_default(22)
    lines, line = [], ""
    for word in said.split():
        if line and font.getlength(f"{line} {word}") > 580:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    ImageDraw.Draw(card).multiline_text(
        (320, 100),
        "\n".join([*lines, line]),
        fill="#1d2330",
        font=font,
        anchor="mm",
        align="center",
        spacing=8,
    )
    return card
