"""A surface to draw on: smooth shapes, and text that is wrapped, checked and remembered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, Literal

from PIL import Image, ImageDraw, ImageFilter

from pipeline.generate.fonts import face_for, load

__all__ = [
    "MIN_TEXT",
    "Box",
    "Canvas",
    "Color",
    "DoesNotFitError",
    "TextBox",
    "mix",
    "place",
    "rng_of",
    "width_of",
    "wrap",
]

Color = tuple[int, int, int]
Box = tuple[float, float, float, float]

MIN_TEXT: Final = 14  # pixels in the finished image: below that, text readers start to fail
_LINE: Final = 1.18  # height of one line in font sizes, with what reaches below it
_SCALE: Final = 2  # Pillow's shapes have hard edges: draw at twice the size, then shrink


class DoesNotFitError(ValueError):
    """A text does not fit its place at a size that can be read."""


@dataclass(frozen=True, slots=True)
class TextBox:
    """A piece of text with the box (left, top, right, bottom) of its ink in the finished image."""

    text: str
    box: Box
    size: int


def rng_of(seed: int) -> Random:
    """The one source of chance of a drawing."""
    return Random(seed)  # noqa: S311 - pictures, not secrets


def mix(a: Color, b: Color, share: float) -> Color:
    """`a` with `share` of `b` in it."""
    r, g, b_ = (round(x + (y - x) * share) for x, y in zip(a, b, strict=True))
    return r, g, b_


def wrap(text: str, face: str, size: int, width: float, *, force: bool = False) -> list[str] | None:
    """`text` in lines no wider than `width`.

    Args:
        text: one paragraph.
        face: a font of `fonts.FACES`.
        size: of the font, in finished pixels.
        width: in finished pixels.
        force: whether a word that is wider may be cut.

    Returns:
        The lines, or None when a word is too wide and may not be cut.
    """
    font = load(face_for(face, text), size * _SCALE)
    limit = width * _SCALE
    lines: list[str] = []
    current = ""
    for whole in text.split():
        word = whole
        joined = f"{current} {word}".strip()
        if font.getlength(joined) <= limit:
            current = joined
            continue
        if current:
            lines.append(current)
        while font.getlength(word) > limit:
            if not force:
                return None
            keep = len(word) - 1
            while keep > 1 and font.getlength(word[:keep]) > limit:
                keep -= 1
            if keep < 1:
                return None
            lines.append(word[:keep])
            word = word[keep:]
        current = word
    return [*lines, current] if current else lines


def width_of(text: str, face: str, size: int) -> float:
    """How wide `text` is, in finished pixels."""
    return load(face_for(face, text), size * _SCALE).getlength(text) / _SCALE


class Canvas:
    """A picture in the making, in finished pixels.

    Attributes:
        width: in finished pixels.
        height: in finished pixels.
        texts: every piece of text drawn so far, in order.
        notes: choices worth recording: layout, colours.
    """

    def __init__(self, width: float, height: float, fill: Color | Image.Image) -> None:
        """Start with a colour, or with an image that is stretched to fill."""
        self.width, self.height = round(width), round(height)
        size = (self.width * _SCALE, self.height * _SCALE)
        if isinstance(fill, Image.Image):
            self._image = fill.convert("RGB").resize(size, Image.Resampling.BICUBIC)
        else:
            self._image = Image.new("RGB", size, fill)
        self._draw = ImageDraw.Draw(self._image)
        self.texts: list[TextBox] = []
        self.notes: dict[str, str] = {}
        self.faces: set[str] = set()

    def finish(self) -> Image.Image:
        """The finished picture."""
        return self._image.resize((self.width, self.height), Image.Resampling.LANCZOS)

    # Shapes

    def rect(
        self,
        box: Box,
        fill: Color | None = None,
        outline: Color | None = None,
        width: float = 0,
        radius: float = 0,
    ) -> None:
        """A rectangle, with round corners when `radius` is not 0."""
        self._draw.rounded_rectangle(
            _up(box), radius * _SCALE, fill=fill, outline=outline, width=round(width * _SCALE)
        )

    def ellipse(
        self, box: Box, fill: Color | None = None, outline: Color | None = None, width: float = 0
    ) -> None:
        """An ellipse within `box`."""
        self._draw.ellipse(_up(box), fill=fill, outline=outline, width=round(width * _SCALE))

    def arc(self, box: Box, start: float, end: float, fill: Color, width: float) -> None:
        """Part of an ellipse; angles in degrees, clockwise from three o'clock."""
        self._draw.arc(_up(box), start, end, fill=fill, width=max(1, round(width * _SCALE)))

    def pie(self, box: Box, start: float, end: float, fill: Color) -> None:
        """A filled slice of an ellipse."""
        self._draw.pieslice(_up(box), start, end, fill=fill)

    def line(self, points: Sequence[tuple[float, float]], fill: Color, width: float = 1) -> None:
        """A line through `points`."""
        scaled = [(x * _SCALE, y * _SCALE) for x, y in points]
        self._draw.line(scaled, fill=fill, width=max(1, round(width * _SCALE)), joint="curve")

    def polygon(self, points: Sequence[tuple[float, float]], fill: Color) -> None:
        """A filled shape."""
        self._draw.polygon([(x * _SCALE, y * _SCALE) for x, y in points], fill=fill)

    def paste(self, other: Canvas, at: tuple[float, float]) -> None:
        """Copy `other` here; only for pictures without text."""
        self._image.paste(other._image, (round(at[0] * _SCALE), round(at[1] * _SCALE)))

    # Text

    def text(
        self,
        x: float,
        y: float,
        text: str,
        face: str,
        size: int,
        fill: Color,
        anchor: str = "la",
        within: Box | None = None,
    ) -> Box:
        """One line of text; `anchor` as Pillow's. An empty one leaves nothing.

        Returns:
            The box of its ink.

        Raises:
            DoesNotFitError: when it would reach out of `within`, or of the canvas.
        """
        used = face_for(face, text)
        font = load(used, size * _SCALE)
        at = (x * _SCALE, y * _SCALE)
        left, top, right, bottom = (
            v / _SCALE for v in self._draw.textbbox(at, text, font=font, anchor=anchor)
        )
        limits = within or (0, 0, self.width, self.height)
        slack = 1  # letters may lean a pixel out of their place
        if (
            left < max(0, limits[0] - slack)
            or top < max(0, limits[1] - slack)
            or right > min(self.width, limits[2] + slack)
            or bottom > min(self.height, limits[3] + slack)
        ):
            raise DoesNotFitError(f"{text!r} does not fit at {size} px")
        if text:
            self._draw.text(at, text, fill=fill, font=font, anchor=anchor)
            self.faces.add(used)
            self.texts.append(TextBox(text, (left, top, right, bottom), size))
        return left, top, right, bottom

    def fit(
        self,
        box: Box,
        lines: Sequence[str],
        face: str,
        fill: Color,
        *,
        largest: int,
        smallest: int = MIN_TEXT,
        unbroken: int | None = None,
        align: Literal["left", "center", "right"] = "left",
        valign: Literal["top", "middle"] = "top",
        leading: float = 1.3,
        gap: float = 0.0,
    ) -> float:
        """Paragraphs at the largest size at which they fit into `box`, wrapped.

        Args:
            box: where they go.
            lines: one paragraph each.
            face: a font of `fonts.FACES`.
            fill: colour.
            largest: font size to try first, in finished pixels.
            smallest: font size to try last.
            unbroken: down to this size, rather shrink than break a paragraph.
            align: where lines sit in the width of the box.
            valign: where the block sits in its height.
            leading: line height in font sizes.
            gap: additional space between paragraphs, in font sizes.

        Returns:
            The lower edge of the block.

        Raises:
            DoesNotFitError: when they do not fit at the smallest size.
        """
        left, top, right, bottom = box
        tries = [(size, False) for size in range(max(largest, smallest), smallest - 1, -1)]
        if unbroken is not None:
            tries = [(size, True) for size in range(largest, max(unbroken, smallest) - 1, -1)] + tries
        for size, whole in tries:
            wrapped = [wrap(p, face, size, right - left, force=size == smallest) for p in lines]
            blocks = [block for block in wrapped if block is not None]
            if len(blocks) < len(wrapped) or (whole and any(len(block) > 1 for block in blocks)):
                continue
            rows = sum(len(block) for block in blocks)
            height = size * ((rows - 1) * leading + _LINE + gap * (len(blocks) - 1))
            if height > bottom - top:
                continue
            y = (top if valign == "top" else top + (bottom - top - height) / 2) + size * _LINE / 2
            x, anchor = {
                "left": (left, "lm"),
                "center": ((left + right) / 2, "mm"),
                "right": (right, "rm"),
            }[align]
            for block in blocks:
                for row in block:
                    self.text(x, y, row, face, size, fill, anchor)
                    y += size * leading
                y += size * gap
            return y - size * (gap + leading - _LINE / 2)
        raise DoesNotFitError(f"{' / '.join(lines)!r} does not fit at {smallest} px")


def place(page: Canvas, onto: Canvas, angle: float, *, shadow: float = 5, radius: float = 0) -> None:
    """Lay `page`, turned by `angle` degrees, on the middle of `onto`, with its shadow and its texts.

    Raises:
        DoesNotFitError: when the turned page is larger than `onto`.
    """
    sheet = page._image
    mask = Image.new("L", sheet.size, 0)
    ImageDraw.Draw(mask).rounded_rectangle(
        (0, 0, sheet.width - 1, sheet.height - 1), radius * _SCALE, fill=255
    )
    turned = sheet.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    mask = mask.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    x, y = (onto._image.width - turned.width) // 2, (onto._image.height - turned.height) // 2
    if x < 0 or y < 0:
        raise DoesNotFitError("the page is larger than what it lies on")
    shade = Image.new("L", onto._image.size, 0)
    shade.paste(mask.point(lambda v: v * 2 // 5), (x + round(shadow), y + round(shadow * 1.5)))
    shade = shade.filter(ImageFilter.GaussianBlur(shadow * _SCALE))
    onto._image.paste(Image.new("RGB", onto._image.size, (20, 18, 16)), (0, 0), shade)
    onto._image.paste(turned, (x, y), mask)
    sin, cos = math.sin(math.radians(angle)), math.cos(math.radians(angle))
    for item in page.texts:
        left, top, right, bottom = item.box
        corners = [
            (
                onto.width / 2 + cos * (cx - page.width / 2) + sin * (cy - page.height / 2),
                onto.height / 2 - sin * (cx - page.width / 2) + cos * (cy - page.height / 2),
            )
            for cx in (left, right)
            for cy in (top, bottom)
        ]
        xs, ys = zip(*corners, strict=True)
        onto.texts.append(TextBox(item.text, (min(xs), min(ys), max(xs), max(ys)), item.size))
    onto.faces |= page.faces
    onto.notes |= page.notes


def _up(box: Box) -> tuple[float, float, float, float]:
    left, top, right, bottom = (v * _SCALE for v in box)
    return left, top, right - 1, bottom - 1
