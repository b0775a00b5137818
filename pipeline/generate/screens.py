"""Drawings of screens: a messenger, a face-recognition camera, a chart."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Final

from pipeline.generate.canvas import MIN_TEXT, Box, Canvas, Color, DoesNotFitError, mix, width_of, wrap
from pipeline.generate.faces import draw_face
from pipeline.generate.people import Person, day, person
from pipeline.generate.surfaces import gradient

__all__ = ["chart", "chat", "face_screen"]

_WHITE: Final[Color] = (255, 255, 255)
_SPEAKER: Final = re.compile(r"^([A-Z][\w.]{0,14}): +(.+)$")


@dataclass(frozen=True, slots=True)
class _Theme:
    name: str
    page: Color
    bar: Color
    on_bar: Color
    theirs: Color
    mine: Color
    on_theirs: Color
    on_mine: Color


_DARK: Final[Color] = (28, 30, 34)
_THEMES: Final = (
    _Theme("green", (234, 226, 214), (16, 116, 98), _WHITE, _WHITE, (216, 248, 200), _DARK, _DARK),
    _Theme("blue", (255, 255, 255), (246, 246, 248), _DARK, (233, 233, 238), (20, 122, 240), _DARK, _WHITE),
    _Theme("night", (18, 22, 28), (32, 40, 50), _WHITE, (40, 48, 58), (30, 92, 120), _WHITE, _WHITE),
    _Theme("violet", (242, 238, 250), (96, 64, 160), _WHITE, _WHITE, (196, 176, 240), _DARK, _DARK),
    _Theme("rose", (252, 240, 240), (190, 60, 90), _WHITE, _WHITE, (250, 206, 214), _DARK, _DARK),
    _Theme("sky", (214, 230, 240), (70, 130, 180), _WHITE, _WHITE, (226, 250, 210), _DARK, _DARK),
)
_AVATARS: Final[tuple[Color, ...]] = (
    (226, 120, 90),
    (90, 150, 210),
    (120, 170, 90),
    (170, 110, 190),
    (210, 160, 60),
)


def chat(lines: Sequence[str], _about: str, rng: Random, longest: int) -> Canvas:
    """A screenshot of a messenger.

    Args:
        lines: messages, one each. `Name: words` says who writes (`Me` is the owner of the phone);
            without names two people take turns.
        _about: caption and subject; nothing here depends on them.
        rng: the drawing's source of chance.
        longest: length of the longer side.
    """
    theme = rng.choice(_THEMES)
    w = round(max(320, longest * 0.72))
    size = 16 if longest < 400 else 17
    face = rng.choice(("aileron", "sans"))
    other = person(rng)
    turns = _turns(lines, mine_first=rng.random() < 0.4, other=other.first)
    names = sorted({name for name, mine, _ in turns if not mine})
    group = len(names) > 1
    bubbles = []
    for name, mine, words in turns:
        rows = wrap(words, face, size, w * 0.70 - 24, force=True) or []
        bubbles.append((name, mine, rows, len(rows) * size * 1.28 + 30 + (20 if group and not mine else 0)))
    head, foot, gap = 56.0, 50.0 if rng.random() < 0.7 else 0.0, rng.uniform(6, 14)
    need = head + foot + 50 + sum(b[3] + gap for b in bubbles)
    h = round(max(need, min(longest, w * rng.uniform(0.9, 1.45))))
    if max(w, h) > 512:
        raise DoesNotFitError(
            "the messages do not fit on a screen of 512 px: shorten them, or leave some out"
        )
    canvas = Canvas(w, h, theme.page)
    wallpaper = rng.choice(("plain", "discs", "hills", "leaves"))
    _wallpaper(canvas, rng, wallpaper, theme)
    _chat_bars(canvas, rng, theme, "Group chat" if group else (names or [other.first])[0], face, foot)
    y = head + 10 + (h - need) * rng.choice((0.0, 0.5, 1.0))
    chip = mix(theme.page, theme.on_theirs, 0.12)
    when = rng.choice(("Today", "Yesterday", f"{day(rng, 2024, 2025):%d %b %Y}"))
    canvas.rect((w / 2 - 56, y, w / 2 + 56, y + 24), chip, radius=12)
    canvas.text(w / 2, y + 12, when, face, MIN_TEXT, mix(theme.on_theirs, chip, 0.15), "mm")
    y += 34
    clock = rng.randint(7 * 60, 23 * 60)
    for name, mine, rows, height in bubbles:
        label = group and not mine
        wide = max(width_of(row, face, size) for row in rows)
        wide = max(wide, 56, width_of(name, face, MIN_TEXT) if label else 0) + 24
        x = w - 12 - wide if mine else 12
        fill, ink = (theme.mine, theme.on_mine) if mine else (theme.theirs, theme.on_theirs)
        canvas.rect((x, y, x + wide, y + height), fill, radius=13)
        tail = x + wide - 16 if mine else x
        canvas.rect(
            (tail, y if not mine else y + height - 16, tail + 16, y + 16 if not mine else y + height),
            fill,
            radius=3,
        )
        row_y = y + 6
        if label:
            tint = _AVATARS[names.index(name) % len(_AVATARS)]
            canvas.text(x + 12, row_y + 8, name, face, MIN_TEXT, mix(tint, ink, 0.25), "lm")
            row_y += 20
        for row in rows:
            canvas.text(x + 12, row_y + size * 0.64, row, face, size, ink, "lm")
            row_y += size * 1.28
        stamp = f"{clock // 60 % 24:02d}:{clock % 60:02d}"
        canvas.text(x + wide - 10, y + height - 12, stamp, face, MIN_TEXT, mix(ink, fill, 0.4), "rm")
        clock += rng.choice((0, 1, 1, 2, 4, 9))
        y += height + gap
    canvas.notes |= {
        "layout": "group" if group else "pair",
        "theme": theme.name,
        "wallpaper": wallpaper,
        "face": face,
    }
    return canvas


def _wallpaper(canvas: Canvas, rng: Random, kind: str, theme: _Theme) -> None:
    """Large quiet shapes behind the messages, so that screens differ in more than their words."""
    w, h = canvas.width, canvas.height
    tone = mix(theme.page, rng.choice(_AVATARS), rng.uniform(0.16, 0.34))
    if kind == "discs":
        for _ in range(rng.randint(3, 6)):
            x, y, r = w * rng.random(), h * rng.random(), w * rng.uniform(0.10, 0.34)
            canvas.ellipse((x - r, y - r, x + r, y + r), mix(tone, theme.page, rng.uniform(0, 0.6)))
    elif kind == "hills":
        for i in range(3):
            y = h * (0.30 + 0.2 * i + rng.uniform(-0.1, 0.1))
            lean = h * rng.uniform(-0.2, 0.2)
            canvas.polygon(
                [(0, y), (w * 0.5, y + lean), (w, y - lean), (w, h), (0, h)],
                mix(theme.page, tone, 0.4 + 0.3 * i),
            )
    elif kind == "leaves":
        for _ in range(rng.randint(8, 14)):
            x, y, r = w * rng.random(), h * rng.random(), w * rng.uniform(0.08, 0.16)
            turn = rng.randrange(360)
            canvas.pie((x - r, y - r, x + r, y + r), turn, turn + rng.choice((60, 90, 180)), tone)


def _turns(lines: Sequence[str], *, mine_first: bool, other: str) -> list[tuple[str, bool, str]]:
    """Who says what: (name, is the owner of the phone, words)."""
    turns = []
    for i, line in enumerate(lines):
        if match := _SPEAKER.match(line):
            name = match[1]
            turns.append((name, name.lower() in {"me", "you"}, match[2]))
        else:
            mine = (i % 2 == 0) == mine_first
            turns.append(("Me" if mine else other, mine, line))
    return turns


def _chat_bars(canvas: Canvas, rng: Random, theme: _Theme, title: str, face: str, foot: float) -> None:
    w, h = canvas.width, canvas.height
    canvas.rect((0, 0, w, 56), theme.bar)
    canvas.line([(20, 20), (12, 28), (20, 36)], theme.on_bar, 2.2)
    tint = rng.choice(_AVATARS)
    canvas.ellipse((32, 10, 68, 46), tint)
    canvas.ellipse((43, 16, 57, 30), mix(tint, _WHITE, 0.6))
    canvas.pie((38, 30, 62, 54), 190, 350, mix(tint, _WHITE, 0.6))
    canvas.text(78, 20, title, face, 18, theme.on_bar, "lm")
    canvas.text(
        78,
        41,
        rng.choice(("online", "last seen today", "typing...")),
        face,
        MIN_TEXT,
        mix(theme.on_bar, theme.bar, 0.25),
        "lm",
    )
    for i in range(3):
        canvas.ellipse((w - 20, 20 + 7 * i, w - 16, 24 + 7 * i), theme.on_bar)
    if not foot:
        return
    canvas.rect((0, h - foot, w, h), mix(theme.page, theme.bar, 0.08))
    field = mix(theme.theirs, theme.page, 0.2)
    canvas.rect((10, h - foot + 8, w - 56, h - 8), field, mix(field, theme.on_theirs, 0.15), 1, radius=17)
    canvas.text(26, h - foot / 2, "Message", face, 15, mix(theme.on_theirs, field, 0.5), "lm")
    button = theme.bar if theme.name != "blue" else theme.mine
    canvas.ellipse((w - 46, h - foot + 7, w - 10, h - 7), button)
    canvas.polygon([(w - 34, h - foot / 2 - 8), (w - 18, h - foot / 2), (w - 34, h - foot / 2 + 8)], _WHITE)


def face_screen(
    lines: Sequence[str], about: str, rng: Random, longest: int, *, blank: bool = False
) -> Canvas:
    """A camera still with a face in a frame, a name, a score and the time; blank, with nobody in the room.

    Args:
        lines: title, then anything else to show.
        about: caption and subject; "man" or "woman" in it decides the face.
        rng: the drawing's source of chance.
        longest: length of the longer side.
        blank: whether it is drawn without anybody's data.
    """
    longest = max(longest, 380)
    who = person(rng, woman=_woman(about))
    layout = rng.choice(("panel", "below"))
    accent: Color = rng.choice(((60, 230, 120), (250, 80, 70), (250, 200, 60), (80, 190, 250)))
    back: Color = rng.choice(((16, 20, 26), (24, 28, 40), (20, 30, 28), (232, 236, 240)))
    ink = _WHITE if sum(back) < 380 else (26, 30, 38)
    w, h = (longest, round(longest * 0.74)) if layout == "panel" else (round(longest * 0.8), longest)
    canvas = Canvas(w, h, back)
    score = f"Match {rng.uniform(88.0, 99.7):.1f} %"
    when = day(rng, 2023, 2025)
    stamp = f"{when:%Y-%m-%d} {rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}:{rng.randint(0, 59):02d}"
    found = ["No person in view"] if blank else [who.name, score, f"ID {rng.randint(10000, 99999)}"]
    canvas.rect((0, 0, w, 40), mix(back, accent, 0.18))
    canvas.fit((12, 4, w - 12, 38), lines[:1], "sans_bold", ink, largest=20, valign="middle")
    view: Box = (10, 48, w * 0.60, h - 10) if layout == "panel" else (10, 48, w - 10, h * 0.66)
    _still(canvas, view, rng, accent, None if blank else who)
    canvas.rect((view[0] + 4, view[3] - 25, view[0] + 70, view[3] - 4), (20, 22, 26), radius=3)
    canvas.text(view[0] + 10, view[3] - 14, f"CAM {rng.randint(1, 24):02d}", "mono", MIN_TEXT, _WHITE, "lm")
    if layout == "panel":
        left, top, right, bottom = view[2] + 10, 52.0, w - 10.0, h - 14.0
    else:
        left, top, right, bottom = 14.0, h * 0.68, w - 14.0, h - 10.0
    facts = [*lines[1:], *found]
    end = canvas.fit((left, top, right, bottom - 44), facts, "sans", ink, largest=19, gap=0.35)
    share = float(score.split()[1]) / 100
    bar = min(end + 8, bottom - 40)
    if not blank:
        canvas.rect((left, bar, right, bar + 8), mix(back, ink, 0.2), radius=4)
        canvas.rect((left, bar, left + (right - left) * share, bar + 8), accent, radius=4)
    day_part, time_part = stamp.split()
    rows = [day_part, time_part] if layout == "panel" and right - left < 175 else [stamp]
    canvas.fit(
        (left, bar + 12, right, h - 4), rows, "mono", mix(ink, back, 0.25), largest=MIN_TEXT, leading=1.1
    )
    canvas.notes |= {"layout": layout}
    return canvas


def _still(canvas: Canvas, view: Box, rng: Random, accent: Color, who: Person | None) -> None:
    """What the camera sees: a room with a person and a frame around the face, or with a table only."""
    left, top, right, bottom = view
    wall = rng.choice(((150, 160, 170), (180, 170, 150), (120, 130, 150), (160, 175, 165)))
    w, h = right - left, bottom - top
    room = Canvas(w, h, gradient(round(w), round(h), mix(wall, _WHITE, 0.25), mix(wall, _DARK, 0.35)))
    for i in range(rng.randint(2, 4)):
        x = w * (i * 0.3 + rng.uniform(-0.05, 0.1))
        room.rect((x, h * 0.12, x + w * 0.16, h), mix(wall, _DARK, rng.uniform(0.05, 0.3)))
    head = None
    if who:
        head = draw_face(room, (w * 0.08, h * 0.02, w * 0.92, h + 1), rng, woman=who.woman)
    else:
        wood = mix((150, 104, 66), _DARK, 0.3)
        room.rect((0, h * 0.78, w, h), mix(wall, _DARK, 0.6))
        room.rect((w * 0.28, h * 0.64, w * 0.76, h * 0.68), wood)
        for x in (w * 0.31, w * 0.70):
            room.rect((x, h * 0.68, x + w * 0.03, h * 0.9), wood)
    y = 0.0
    while y < h:  # scan lines
        room.line([(0, y), (w, y)], mix(wall, _DARK, 0.35), 0.5)
        y += 7
    canvas.paste(room, (left, top))
    if head:
        pad = (head[2] - head[0]) * 0.24
        box = (left + head[0] - pad, top + head[1] - pad, left + head[2] + pad, top + head[3] + pad * 0.6)
        arm = (box[2] - box[0]) * 0.22
        for x, dx in ((box[0], arm), (box[2], -arm)):
            for y, dy in ((box[1], arm), (box[3], -arm)):
                canvas.line([(x + dx, y), (x, y), (x, y + dy)], accent, 3)
    canvas.rect((right - 68, top + 4, right - 6, top + 26), (20, 22, 26), radius=3)
    canvas.ellipse((right - 62, top + 10, right - 52, top + 20), (240, 50, 50))
    canvas.text(right - 46, top + 15, "REC", "mono", MIN_TEXT, _WHITE, "lm")


def chart(lines: Sequence[str], about: str, rng: Random, longest: int) -> Canvas:
    """A line, bar or candlestick chart.

    Args:
        lines: title, then remarks shown under it.
        about: caption and subject: "candlestick", "bar", "line", "rising" and "falling" are followed.
        rng: the drawing's source of chance.
        longest: length of the longer side.
    """
    words = about.lower()
    chosen = [
        k for k, stem in (("candles", "candle"), ("bars", "bar chart"), ("line", "line")) if stem in words
    ]
    layout = chosen[0] if chosen else rng.choice(("candles", "bars", "line"))
    dark = rng.random() < 0.5
    back: Color = (
        rng.choice(((20, 24, 34), (12, 16, 20), (28, 26, 40)))
        if dark
        else rng.choice(((252, 252, 250), (246, 248, 252), (252, 248, 238)))
    )
    ink: Color = (226, 230, 236) if dark else (40, 44, 52)
    up, down = rng.choice((((34, 170, 110), (220, 70, 70)), ((60, 140, 220), (236, 130, 50))))
    w, h = longest, round(longest * rng.uniform(0.66, 0.82))
    canvas = Canvas(w, h, back)
    y = canvas.fit((16, 10, w - 16, h * 0.24), lines[:1], "sans_bold", ink, largest=22)
    if len(lines) > 1:
        y = canvas.fit((16, y + 2, w - 16, h * 0.46), lines[1:], "sans", mix(ink, back, 0.25), largest=16)
    count = {"candles": 22, "bars": 9, "line": 36}[layout]
    drift = 0.0
    if re.search(r"\b(ris|climb|up\b|grow|gain|rall|soar)\w*", words):
        drift = 1.0
    elif re.search(r"\b(fall|drop|down|crash|declin|los|plung)\w*", words):
        drift = -1.0
    values = _walk(rng, count + 1, drift, 0.22 if layout == "bars" else 0.05)
    plot: Box = (16, y + 12, w - 62, h - 34)
    low, high = (0.0 if layout == "bars" else min(values) * 0.97), max(values) * 1.03
    year = re.search(r"\b(12 months|1 year|year)\b", " ".join(lines).lower()) is not None
    _axes(
        canvas,
        plot,
        (low, high),
        (rng.randrange(12), 2 if year else 1),
        mix(ink, back, 0.3),
        mix(ink, back, 0.82),
    )

    def height(value: float) -> float:
        return plot[3] - (value - low) / (high - low) * (plot[3] - plot[1])

    step = (plot[2] - plot[0]) / count
    if layout == "line":
        points = [(plot[0] + step * i, height(v)) for i, v in enumerate(values)]
        tone = up if values[-1] >= values[0] else down
        if rng.random() < 0.6:
            canvas.polygon([(plot[0], plot[3]), *points, (plot[2], plot[3])], mix(tone, back, 0.8))
        canvas.line(points, tone, 2.5)
        x, end = points[-1]
        canvas.ellipse((x - 4, end - 4, x + 4, end + 4), tone)
    else:
        for i, (a, b) in enumerate(pairwise(values)):
            x, tone = plot[0] + step * (i + 0.5), up if b >= a else down
            if layout == "bars":
                canvas.rect((x - step * 0.34, height(b), x + step * 0.34, plot[3]), tone, radius=2)
                continue
            reach = (high - low) * 0.05
            top, bottom = max(a, b) + reach * rng.random(), min(a, b) - reach * rng.random()
            canvas.line([(x, height(min(top, high))), (x, height(max(bottom, low)))], tone, 1.4)
            ends = sorted((height(a), height(b)))
            canvas.rect((x - step * 0.32, ends[0], x + step * 0.32, max(ends[1], ends[0] + 1.5)), tone)
    canvas.notes |= {"layout": layout, "ground": "dark" if dark else "light"}
    return canvas


def _walk(rng: Random, count: int, drift: float, swing: float) -> list[float]:
    start = rng.choice((24.0, 80.0, 160.0, 420.0, 1900.0))
    values = [start]
    for _ in range(count - 1):
        values.append(max(start * 0.2, values[-1] * (1 + rng.uniform(-swing, swing) + drift * 0.5 / count)))
    return values


def _axes(
    canvas: Canvas, plot: Box, span: tuple[float, float], start: tuple[int, int], ink: Color, grid: Color
) -> None:
    left, top, right, bottom = plot
    low, high = span
    digits = 0 if high > 50 else 1
    for i in range(5):
        y = bottom - (bottom - top) * i / 4
        canvas.line([(left, y), (right, y)], grid, 1)
        value = f"{low + (high - low) * i / 4:.{digits}f}"
        canvas.text(right + 6, min(max(y, top + 7), bottom - 4), value, "sans", MIN_TEXT, ink, "lm")
    months = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
    first, step = start
    count = 6 if step == 2 else 5
    for i in range(count):
        x = left + (right - left) * (i + 0.5) / count
        canvas.text(x, bottom + 16, months[(first + i * step) % 12], "sans", MIN_TEXT, ink, "mm")


def _woman(about: str) -> bool | None:
    words = set(re.findall(r"[a-z]+", about.lower()))
    if words & {"woman", "lady", "female", "her", "she"}:
        return True
    return False if words & {"man", "male", "his", "he"} else None
