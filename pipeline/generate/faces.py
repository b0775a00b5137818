"""A simple drawn face, as on an identity card or a camera still."""

from __future__ import annotations

from random import Random
from typing import Final

from pipeline.generate.canvas import Box, Canvas, Color, mix

__all__ = ["draw_face"]

_SKINS: Final[tuple[Color, ...]] = (
    (247, 214, 188),
    (232, 184, 148),
    (204, 150, 112),
    (160, 110, 78),
    (116, 76, 54),
    (84, 56, 42),
)
_HAIRS: Final[tuple[Color, ...]] = (
    (34, 28, 26),
    (72, 48, 34),
    (122, 84, 50),
    (206, 170, 104),
    (150, 148, 146),
    (148, 70, 40),
)
_CLOTHES: Final[tuple[Color, ...]] = ((44, 62, 96), (120, 40, 48), (52, 92, 78), (90, 90, 98), (190, 150, 70))
_DARK: Final[Color] = (40, 30, 28)


def draw_face(canvas: Canvas, box: Box, rng: Random, *, woman: bool) -> Box:
    """Head and shoulders within `box`, from top to bottom edge.

    Returns:
        The box of the head.
    """
    left, top, right, bottom = box
    w, h = right - left, bottom - top
    cx = (left + right) / 2
    skin, hair, clothes = rng.choice(_SKINS), rng.choice(_HAIRS), rng.choice(_CLOTHES)
    shade = mix(skin, (60, 20, 10), 0.22)
    fw = min(w * 0.44, h * 0.40) * rng.uniform(0.94, 1.06)  # the head's width and height
    fh = min(h * 0.56, fw * 1.30)
    ft = top + h * 0.17
    head = (cx - fw / 2, ft, cx + fw / 2, ft + fh)
    long_hair = woman and rng.random() < 0.75

    if long_hair:
        drop = rng.choice((0.95, 1.2))
        canvas.rect(
            (cx - fw * 0.66, ft - fh * 0.12, cx + fw * 0.66, min(bottom, ft + fh * drop)),
            hair,
            radius=fw * 0.5,
        )
    shoulder = ft + fh * 1.12
    canvas.rect((cx - fw * 0.2, ft + fh * 0.8, cx + fw * 0.2, min(bottom, shoulder + fh * 0.12)), shade)
    body = min(w * 0.48, fw * 0.98)
    canvas.pie((cx - body, shoulder, cx + body, 2 * bottom - shoulder), 180, 360, clothes)
    canvas.pie((cx - fw * 0.24, shoulder - fh * 0.1, cx + fw * 0.24, shoulder + fh * 0.2), 0, 180, shade)
    for side in (-1, 1):
        ear = cx + side * fw * 0.5
        canvas.ellipse((ear - fw * 0.09, ft + fh * 0.42, ear + fw * 0.09, ft + fh * 0.62), shade)
    if not long_hair:
        canvas.pie((cx - fw * 0.55, ft - fh * 0.12, cx + fw * 0.55, ft + fh * 0.8), 180, 360, hair)
    canvas.ellipse(head, skin)
    _features(canvas, head, rng, shade, hair, beard=not woman and rng.random() < 0.35)
    style = rng.choice(("fringe", "parted", "cap")) if woman or rng.random() < 0.85 else "bald"
    crown = (cx - fw * 0.53, ft - fh * 0.1, cx + fw * 0.53, ft + fh * 0.62)
    if style == "fringe":
        canvas.pie(crown, 195, 345, hair)
        canvas.pie((cx - fw * 0.46, ft + fh * 0.0, cx + fw * 0.46, ft + fh * 0.5), 185, 355, hair)
    elif style == "parted":
        canvas.pie((crown[0], crown[1], cx + fw * 0.34, ft + fh * 0.5), 165, 345, hair)
        canvas.pie((cx - fw * 0.1, crown[1], crown[2], ft + fh * 0.46), 200, 370, hair)
    elif style == "cap":
        canvas.pie(crown, 188, 352, hair)
    return head


def _features(canvas: Canvas, head: Box, rng: Random, shade: Color, hair: Color, *, beard: bool) -> None:
    left, top, right, bottom = head
    w, h = right - left, bottom - top
    cx, eye_y = (left + right) / 2, top + h * 0.5
    if beard:
        canvas.pie((cx - w * 0.42, top + h * 0.34, cx + w * 0.42, bottom + h * 0.02), 15, 165, hair)
    gap, eye = w * 0.21, w * 0.085
    iris = rng.choice(((70, 46, 30), (60, 90, 120), (70, 100, 70)))
    for side in (-1, 1):
        x = cx + side * gap
        canvas.ellipse((x - eye, eye_y - eye * 0.62, x + eye, eye_y + eye * 0.62), (250, 250, 248))
        canvas.ellipse((x - eye * 0.55, eye_y - eye * 0.55, x + eye * 0.55, eye_y + eye * 0.55), iris)
        canvas.ellipse((x - eye * 0.25, eye_y - eye * 0.25, x + eye * 0.25, eye_y + eye * 0.25), _DARK)
        brow = (x - eye * 1.3, eye_y - h * 0.13, x + eye * 1.3, eye_y + h * 0.03)
        canvas.arc(brow, 205, 335, mix(hair, _DARK, 0.4), w * 0.03)
    canvas.line(
        [(cx, eye_y + h * 0.05), (cx - w * 0.055, eye_y + h * 0.17), (cx + w * 0.03, eye_y + h * 0.18)],
        shade,
        w * 0.025,
    )
    mouth = rng.uniform(0.11, 0.17) * w
    y = top + h * 0.77
    lips = mix(shade, (180, 50, 60), 0.5)
    canvas.arc((cx - mouth, y - h * 0.07, cx + mouth, y + h * 0.035), 15, 165, lips, w * 0.035)
    if rng.random() < 0.25:
        for side in (-1, 1):
            x = cx + side * gap
            canvas.ellipse(
                (x - eye * 1.7, eye_y - eye * 1.4, x + eye * 1.7, eye_y + eye * 1.4),
                outline=_DARK,
                width=w * 0.018,
            )
        canvas.line([(cx - gap + eye * 1.7, eye_y), (cx + gap - eye * 1.7, eye_y)], _DARK, w * 0.018)
