"""Drawings that are mostly words: posters and signs, handwritten notes, letters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from typing import Final

from pipeline.generate.canvas import MIN_TEXT, Box, Canvas, Color, DoesNotFitError, mix, place, wrap
from pipeline.generate.people import day, person
from pipeline.generate.surfaces import paper, surface

__all__ = ["letter", "note", "poster"]

_BLACK: Final[Color] = (24, 24, 26)
_WHITE: Final[Color] = (252, 251, 247)
# Board, letters, accent.
_PALETTES: Final[tuple[tuple[Color, Color, Color], ...]] = (
    (_WHITE, _BLACK, (200, 38, 44)),
    (_BLACK, _WHITE, (240, 190, 40)),
    ((190, 34, 40), _WHITE, (255, 214, 90)),
    ((244, 200, 46), _BLACK, (190, 40, 36)),
    ((26, 74, 140), _WHITE, (250, 206, 70)),
    ((24, 110, 78), _WHITE, (244, 226, 160)),
    ((248, 238, 214), (70, 40, 30), (186, 84, 40)),
    ((88, 46, 120), (255, 240, 250), (250, 170, 60)),
    ((232, 110, 50), _WHITE, (60, 34, 26)),
    ((214, 232, 240), (22, 52, 84), (226, 92, 70)),
    ((250, 216, 220), (110, 24, 60), (60, 120, 110)),
    ((60, 66, 74), (255, 226, 120), (230, 230, 230)),
)
_POSTER_FACES: Final = (
    "sans_bold",
    "serif_bold",
    "caladea_bold",
    "round",
    "times_bold",
    "hand_caps",
    "aileron",
)
_INKS: Final[tuple[Color, ...]] = ((28, 44, 104), (30, 30, 34), (90, 30, 36), (20, 72, 60))


def poster(lines: Sequence[str], about: str, rng: Random, longest: int) -> Canvas:
    """A sign or poster with bold typography.

    Args:
        lines: what it says, a line each; the first is the heading.
        about: caption and subject: "black and white" is followed.
        rng: the drawing's source of chance.
        longest: length of the longer side.
    """
    layout = rng.choice(("board", "stripes", "rays", "split", "taped", "planks"))
    board, ink, accent = rng.choice(_PALETTES)
    if "black and white" in about.lower():
        board, ink = rng.choice(((_WHITE, _BLACK), (_BLACK, _WHITE)))
        accent = (128, 128, 128)
        layout = "board" if layout == "planks" else layout
    face = rng.choice(_POSTER_FACES)
    ratio = rng.choice((1.0, 1.0, 0.75, 0.8, 1.3))
    w, h = (longest, round(longest * ratio)) if ratio <= 1 else (round(longest / ratio), longest)
    if layout in {"board", "taped", "planks"}:
        canvas = _hung(lines, rng, layout, (w, h), face, (board, ink, accent))
    else:
        canvas = Canvas(w, h, board)
        if layout == "stripes":
            text_box = _stripes(canvas, rng, ink, accent)
            _words(canvas, text_box, lines, face, ink, accent)
        elif layout == "rays":
            text_box, plaque = _rays(canvas, rng, board, accent)
            _words(canvas, text_box, lines, face, _ink_on(plaque), accent if len(lines) > 1 else None)
        else:
            _split(canvas, rng, lines, face, (board, ink, accent))
    canvas.notes |= {"layout": layout, "face": face, "board": _hex(board), "ink": _hex(ink)}
    return canvas


def note(lines: Sequence[str], _about: str, rng: Random, longest: int) -> Canvas:
    """A handwritten note on ruled, squared or plain paper, a little turned, on a table.

    Args:
        lines: what it says; a line that starts small goes on with the sentence before it.
        _about: caption and subject; nothing here depends on them.
        rng: the drawing's source of chance.
        longest: length of the longer side.
    """
    style = rng.choice(("ruled", "squared", "plain", "sticky"))
    ratio = rng.uniform(0.72, 1.0)
    w, h = (longest, round(longest * ratio)) if rng.random() < 0.4 else (round(longest * ratio), longest)
    # Amatic is narrow and light: it needs a larger size to be read.
    face, floor = rng.choice((("hand", 17), ("hand", 17), ("hand_caps", 24), ("sans_oblique", MIN_TEXT)))
    tone: Color = rng.choice(((252, 249, 238), (250, 250, 250), (247, 240, 220)))
    if style == "sticky":
        tone = rng.choice(((252, 232, 120), (250, 190, 200), (180, 226, 190), (176, 216, 240)))
    pw, ph = round(w * 0.88), round(h * 0.88)
    page = Canvas(pw, ph, paper(pw, ph, tone, rng))
    margin = round(pw * 0.09)
    left = margin * (1.9 if style == "ruled" else 1.0)
    top = ph * 0.10
    ink = rng.choice(_INKS)
    size, step, rows = _hand_rows(lines, face, floor, (pw - left - margin, ph - top - margin * 0.7))
    _ruling(page, style, step, top, left - margin * 0.35)
    if style != "ruled" and style != "squared":
        top += max(0.0, (ph - top - margin - step * len(rows)) * rng.uniform(0.2, 0.5))
    for i, row in enumerate(rows):
        if not row:
            continue
        x = left + rng.uniform(-2.0, 4.0)
        y = top + step * (i + 1) - size * 0.22 + rng.uniform(-1.2, 1.2)
        page.text(x, y, row, face, size, mix(ink, tone, rng.uniform(0, 0.12)), "ls")
    return _on_table(page, rng, (w, h), {"layout": style, "face": face})


def letter(lines: Sequence[str], _about: str, rng: Random, longest: int) -> Canvas:
    """A typed letter. One that starts with a greeting has a sender and a signature, another only its words.

    Args:
        lines: what it says; a line that starts small goes on with the sentence before it.
        _about: caption and subject; nothing here depends on them.
        rng: the drawing's source of chance.
        longest: length of the longer side.
    """
    longest = max(longest, 440)  # full of text: small sheets would not hold it
    w, h = round(longest * rng.uniform(0.78, 0.86)), longest
    pw, ph = round(w * 0.9), round(h * 0.92)
    tone: Color = rng.choice(((253, 253, 252), (251, 248, 238), (244, 246, 250)))
    page = Canvas(pw, ph, paper(pw, ph, tone, rng))
    face = rng.choice(("times", "caladea", "serif", "mono", "aileron"))
    ink: Color = (30, 30, 36)
    left, right = pw * 0.09, pw * 0.91
    y = ph * 0.06
    sender = person(rng)
    formal = _greets(lines[0])
    written = day(rng, 2023, 2025)
    if formal:
        head = mix(rng.choice(_INKS), tone, 0.1)
        side, x = rng.choice((("ra", right), ("la", left), ("ma", pw / 2)))
        page.text(
            x,
            y,
            sender.name,
            f"{face}_bold" if face in {"times", "caladea", "serif"} else face,
            19,
            head,
            side,
        )
        for i, row in enumerate((sender.street, sender.town)):
            page.text(x, y + 24 + 18 * i, row, face, MIN_TEXT, head, side)
        y += 68
        page.line([(left, y), (right, y)], head, 1)
        y += 10
    page.text(
        left if formal else right, y, f"{written:%d %B %Y}", face, MIN_TEXT, ink, "la" if formal else "ra"
    )
    y += 30
    end = page.fit(
        (left, y, right, ph * (0.84 if formal else 0.95)),
        _paragraphs(lines),
        face,
        ink,
        largest=24,
        gap=0.5,
        leading=1.28,
    )
    if formal:
        y = min(end + 14, ph * 0.86)
        page.text(left + 4, y, sender.name, "hand", 24, (28, 44, 104), "la")
    return _on_table(page, rng, (w, h), {"layout": "formal" if formal else "plain", "face": face}, turn=2.0)


def _greets(line: str) -> bool:
    return line.lower().startswith("dear ")


def _paragraphs(lines: Sequence[str]) -> list[str]:
    """`lines` with those joined that are one sentence: where they break depends on the sheet."""
    joined: list[str] = []
    for line in lines:
        if joined and line[0].islower() and joined[-1][-1] not in ".!?:;" and not _greets(joined[-1]):
            joined[-1] += f" {line}"
        else:
            joined.append(line)
    return joined


def _on_table(
    page: Canvas, rng: Random, size: tuple[int, int], notes: dict[str, str], turn: float = 3.5
) -> Canvas:
    background, table = surface(*size, rng)
    canvas = Canvas(*size, background)
    place(page, canvas, rng.uniform(-turn, turn))
    canvas.notes |= notes | {"background": table}
    return canvas


def _hand_rows(
    lines: Sequence[str], face: str, floor: int, room: tuple[float, float]
) -> tuple[int, float, list[str]]:
    """Font size, line height and rows at the largest size at which they fit, unbroken if large."""
    joined = _paragraphs(lines)
    sizes = [(size, True) for size in range(34, floor + 4, -1)] + [
        (size, False) for size in range(34, floor - 1, -1)
    ]
    for size, whole in sizes:
        step = size * 1.32
        rows: list[str] = []
        for line in lines if whole else joined:
            wrapped = wrap(line, face, size, room[0] - 6, force=size == floor)
            if wrapped is None or (whole and len(wrapped) > 1):
                break
            rows += wrapped
        else:
            if (len(rows) + 0.3) * step <= room[1]:
                return size, step, rows
    raise DoesNotFitError(f"{' / '.join(lines)!r} does not fit at {floor} px")


def _ruling(page: Canvas, style: str, step: float, top: float, margin: float) -> None:
    blue: Color = (176, 200, 226)
    if style in {"ruled", "squared"}:
        pitch = step if style == "ruled" else step / 2
        y = top % pitch
        while y < page.height:
            if style == "squared" or y >= top - 1:
                page.line([(0, y), (page.width, y)], blue, 0.8)
            y += pitch
    if style == "squared":
        x = pitch / 2
        while x < page.width:
            page.line([(x, 0), (x, page.height)], blue, 0.8)
            x += pitch
    if style == "ruled":
        page.line([(margin, 0), (margin, page.height)], (226, 140, 140), 1.2)
        for i in range(3):
            y = page.height * (0.18 + 0.32 * i)
            page.ellipse((7, y - 5, 17, y + 5), (120, 116, 110))


def _words(
    canvas: Canvas, box: Box, lines: Sequence[str], face: str, ink: Color, accent: Color | None
) -> None:
    """The first line large, the others below it; a rule between them when there is room."""
    left, top, right, bottom = box
    floor = 22 if face == "hand_caps" else MIN_TEXT
    if len(lines) == 1 or sum(map(len, lines)) < 40:
        canvas.fit(
            box, lines, face, ink, largest=110, smallest=floor, align="center", valign="middle", leading=1.16
        )
        return
    rest = sum(map(len, lines[1:]))
    share = min(0.62, max(0.3, len(lines[0]) * 2.0 / (len(lines[0]) * 2.0 + rest)))
    cut = top + (bottom - top) * share
    canvas.fit(
        (left, top, right, cut - 6),
        lines[:1],
        face,
        ink,
        largest=84,
        smallest=floor,
        align="center",
        valign="middle",
        leading=1.12,
    )
    if accent:
        middle, half = (left + right) / 2, (right - left) * 0.18
        canvas.line([(middle - half, cut), (middle + half, cut)], accent, 3)
    canvas.fit(
        (left, cut + 6, right, bottom),
        lines[1:],
        face,
        ink,
        largest=36,
        smallest=floor,
        unbroken=20,
        align="center",
        valign="middle",
        gap=0.2,
    )


def _hung(
    lines: Sequence[str],
    rng: Random,
    layout: str,
    size: tuple[int, int],
    face: str,
    colors: tuple[Color, Color, Color],
) -> Canvas:
    """A board with a frame, a taped sheet, or planks on a rope, on a wall."""
    w, h = size
    board, ink, accent = colors
    background, _ = surface(w, h, rng)
    canvas = Canvas(w, h, background)
    pw, ph = round(w * 0.86), round(h * (0.72 if layout == "planks" else 0.86))
    if layout == "planks":
        brown: Color = rng.choice(((150, 104, 66), (181, 136, 92), (112, 74, 48)))
        ink = _ink_on(brown)
        page = Canvas(pw, ph, paper(pw, ph, brown, rng))
        count = rng.randint(3, 4)
        for i in range(1, count):
            page.line([(0, ph * i / count), (pw, ph * i / count)], mix(brown, _BLACK, 0.35), 2)
        for nail in (12, pw - 12):
            for i in range(count):
                y = ph * (i + 0.5) / count
                page.ellipse((nail - 3, y - 3, nail + 3, y + 3), mix(brown, _BLACK, 0.5))
        for x in (w / 2 - pw * 0.32, w / 2 + pw * 0.32):
            canvas.line([(w / 2, h * 0.02), (x, h * 0.16)], (70, 56, 42), 3)
        inner: Box = (24, 10, pw - 24, ph - 10)
        _words(page, inner, lines, face, ink, None)
        place(page, canvas, rng.uniform(-1.5, 1.5), radius=4)
        return canvas
    page = Canvas(pw, ph, paper(pw, ph, board, rng))
    if layout == "board":
        edge = rng.choice((ink, accent))
        page.rect((7, 7, pw - 7, ph - 7), outline=edge, width=rng.choice((3, 5, 8)), radius=12)
        if rng.random() < 0.5:
            page.rect((19, 19, pw - 19, ph - 19), outline=edge, width=1.5, radius=6)
        for sx in (26, pw - 26):
            for sy in (26, ph - 26):
                page.ellipse((sx - 4, sy - 4, sx + 4, sy + 4), (168, 168, 170), (100, 100, 104), 1)
        _words(page, (34, 34, pw - 34, ph - 34), lines, face, ink, accent)
        place(page, canvas, rng.uniform(-1.5, 1.5), radius=14)
    else:
        _words(page, (18, 26, pw - 18, ph - 18), lines, face, ink, accent)
        place(page, canvas, rng.uniform(-4, 4))
        tape: Color = (224, 214, 170)
        for x in (w * 0.5,) if rng.random() < 0.5 else (w * 0.26, w * 0.74):
            y = (h - ph) / 2
            canvas.polygon([(x - 26, y - 7), (x + 24, y - 10), (x + 26, y + 9), (x - 24, y + 11)], tape)
    return canvas


def _stripes(canvas: Canvas, rng: Random, ink: Color, accent: Color) -> Box:
    """Slanted stripes above and below; gives the room between."""
    w, h = canvas.width, canvas.height
    band = h * 0.11
    pitch = rng.choice((26, 34, 44))
    for y in (0.0, h - band):
        canvas.rect((0, y, w, y + band), ink)
        x = -band
        while x < w:
            canvas.polygon(
                [(x, y + band), (x + pitch / 2, y + band), (x + pitch / 2 + band, y), (x + band, y)], accent
            )
            x += pitch
    return 18, band + 10, w - 18, h - band - 10


def _rays(canvas: Canvas, rng: Random, board: Color, accent: Color) -> tuple[Box, Color]:
    """Rays from the middle with a plaque on them; gives the room on the plaque, and its colour."""
    w, h = canvas.width, canvas.height
    reach, count = math.hypot(w, h), rng.choice((12, 16, 20))
    tint = mix(board, accent, 0.55)
    for i in range(count):
        a, b = 2 * math.pi * i / count, 2 * math.pi * (i + 0.5) / count
        canvas.polygon(
            [
                (w / 2, h / 2),
                (w / 2 + reach * math.cos(a), h / 2 + reach * math.sin(a)),
                (w / 2 + reach * math.cos(b), h / 2 + reach * math.sin(b)),
            ],
            tint,
        )
    plaque = rng.choice((_WHITE, _BLACK, (250, 240, 214)))
    box: Box = (w * 0.07, h * 0.12, w * 0.93, h * 0.88)
    canvas.rect(box, plaque, _ink_on(plaque), 4, radius=rng.choice((2, 18, 30)))
    return (box[0] + 16, box[1] + 12, box[2] - 16, box[3] - 12), plaque


def _split(
    canvas: Canvas, rng: Random, lines: Sequence[str], face: str, colors: tuple[Color, Color, Color]
) -> None:
    """A block of colour with the heading, the other lines beneath."""
    board, ink, accent = colors
    w, h = canvas.width, canvas.height
    share = 0.74 if len(lines) == 1 else 0.5
    light = mix(board, _WHITE, 0.85)
    canvas.rect((0, 0, w, h), light)
    canvas.rect((0, 0, w, h * share), board)
    for i in range(rng.randint(2, 5)):
        r = w * rng.uniform(0.08, 0.3)
        x, y = w * rng.random(), h * share * rng.random()
        canvas.arc((x - r, y - r, x + r, y + r), 0, 360, mix(board, accent, 0.18), 3 + i)
    canvas.rect((0, h * share, w, h), light)
    canvas.rect((0, h * share - 5, w, h * share + 5), accent)
    floor = 22 if face == "hand_caps" else MIN_TEXT
    canvas.fit(
        (18, 14, w - 18, h * share - 16),
        lines[:1],
        face,
        ink,
        largest=84,
        smallest=floor,
        align="center",
        valign="middle",
        leading=1.14,
    )
    if len(lines) > 1:
        canvas.fit(
            (18, h * share + 14, w - 18, h - 12),
            lines[1:],
            face,
            _ink_on(light),
            largest=38,
            smallest=floor,
            unbroken=20,
            align="center",
            valign="middle",
            gap=0.2,
        )
    else:
        for i in range(3):
            x = w * (0.35 + 0.15 * i)
            y = h * (share + (1 - share) / 2)
            canvas.ellipse((x - 6, y - 6, x + 6, y + 6), accent)


def _ink_on(color: Color) -> Color:
    light = 0.3 * color[0] + 0.59 * color[1] + 0.11 * color[2]
    return _BLACK if light > 140 else _WHITE


def _hex(color: Color) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)
