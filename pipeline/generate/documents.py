"""Drawings of documents with somebody's data, or blank: cards, a prescription, a lab report, a payslip."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import date
from random import Random
from typing import Final

from pipeline.generate.canvas import MIN_TEXT, Box, Canvas, Color, mix, place, width_of
from pipeline.generate.faces import draw_face
from pipeline.generate.people import Person, card_number, day, person
from pipeline.generate.surfaces import gradient, paper, surface

__all__ = ["bank_card", "id_card", "lab_report", "payslip", "prescription"]

_WHITE: Final[Color] = (255, 255, 255)
_INK: Final[Color] = (32, 34, 42)
_GREY: Final[Color] = (104, 108, 118)
_BRANDS: Final[tuple[Color, ...]] = (
    (24, 62, 120),
    (20, 100, 88),
    (130, 34, 50),
    (88, 54, 130),
    (52, 60, 72),
    (160, 90, 24),
    (16, 90, 150),
)
_DRUGS: Final = (
    ("Amoxicillin 500 mg", "1 capsule three times a day for 7 days"),
    ("Metformin 850 mg", "1 tablet with breakfast and dinner"),
    ("Lisinopril 10 mg", "1 tablet every morning"),
    ("Cetirizine 10 mg", "1 tablet in the evening"),
    ("Omeprazole 20 mg", "1 capsule before breakfast"),
    ("Ibuprofen 400 mg", "1 tablet with food when needed"),
    ("Atorvastatin 20 mg", "1 tablet at bedtime"),
    ("Salbutamol inhaler", "2 puffs when needed"),
)
# Name, unit, lowest and highest usual value, decimals.
_TESTS: Final = (
    ("Hemoglobin", "g/dL", 12.0, 16.0, 1),
    ("White cells", "10^9/L", 4.0, 10.0, 1),
    ("Platelets", "10^9/L", 150.0, 400.0, 0),
    ("Glucose", "mg/dL", 70.0, 100.0, 0),
    ("Creatinine", "mg/dL", 0.6, 1.2, 2),
    ("Cholesterol", "mg/dL", 120.0, 200.0, 0),
    ("Sodium", "mmol/L", 135.0, 145.0, 0),
    ("Potassium", "mmol/L", 3.5, 5.1, 1),
    ("ALT", "U/L", 7.0, 40.0, 0),
    ("TSH", "mIU/L", 0.4, 4.0, 2),
    ("Ferritin", "ng/mL", 30.0, 300.0, 0),
)

_LIVER_AND_KIDNEYS: Final = (
    ("ALT", "U/L", 7.0, 40.0, 0),
    ("AST", "U/L", 8.0, 38.0, 0),
    ("GGT", "U/L", 8.0, 55.0, 0),
    ("ALP", "U/L", 40.0, 120.0, 0),
    ("Bilirubin", "mg/dL", 0.2, 1.2, 1),
    ("Albumin", "g/dL", 3.5, 5.2, 1),
    ("Creatinine", "mg/dL", 0.6, 1.2, 2),
    ("Urea", "mg/dL", 15.0, 45.0, 0),
)


def id_card(lines: Sequence[str], _about: str, rng: Random, longest: int, *, blank: bool = False) -> Canvas:
    """An identity card with a drawn portrait.

    Args:
        lines: title, then further lines printed at the foot.
        _about: caption and subject; nothing here depends on them.
        rng: the drawing's source of chance.
        longest: length of the longer side.
        blank: whether it is drawn without anybody's data.
    """
    longest = max(longest, 440)
    brand = rng.choice(_BRANDS)
    light = mix(brand, _WHITE, rng.uniform(0.80, 0.88))
    page_w, page_h = round(longest * 0.91), round(longest * (0.60 if len(lines) == 1 else 0.68))
    page = Canvas(page_w, page_h, gradient(page_w, page_h, mix(light, _WHITE, 0.5), light))
    _waves(page, rng, mix(light, brand, 0.16), top=44)
    who = person(rng)
    page.rect((0, 0, page_w, 44), brand)
    page.fit(
        (14, 5, page_w - 14, 41),
        lines[:1],
        rng.choice(("sans_bold", "caladea_bold")),
        _WHITE,
        largest=24,
        valign="middle",
    )
    foot = page_h - (34 if len(lines) == 1 else 62)
    right_photo = rng.random() < 0.3
    photo_w = min(page_w * 0.30, (foot - 56) * 0.80)
    x = page_w - 14 - photo_w if right_photo else 14.0
    photo: Box = (x, 56, x + photo_w, foot - 8)
    if blank:
        inner: Box = (x + 8, 56, photo[2] - 8, foot - 8)
        page.fit(inner, ["SPECIMEN"], "sans_bold", _GREY, largest=24, align="center", valign="middle")
    else:
        _portrait(page, photo, rng, who)
    page.rect((x - 1, 55, photo[2] + 1, photo[3] + 1), outline=_GREY, width=1)
    left = 14.0 if right_photo else photo[2] + 14
    right = photo[0] - 12 if right_photo else page_w - 12.0
    number = f"{rng.choice('ABCDEFGHKLMNPRTXYZ')}{rng.randint(0, 9)}{rng.randint(1000000, 9999999)}"
    issued = day(rng, 2019, 2024)
    fields = [
        ("Surname", who.last),
        ("Given name", who.first),
        ("Date of birth", f"{who.born:%d.%m.%Y}"),
        ("Number", number),
    ]
    if rng.random() < 0.5:
        fields.insert(3, ("Sex", "F" if who.woman else "M"))
    if blank:
        fields = [(label, "") for label, _ in fields]
    _fields(page, (left, 54, right, foot - 4), fields, brand)
    expires = date(issued.year + 10, issued.month, min(issued.day, 28))
    valid = "Valid until" if blank else f"Valid until {expires:%d.%m.%Y}"
    page.text(14, foot + 14, valid, "sans", MIN_TEXT, _INK, "lm")
    signature = width_of(who.last, "hand", 20)
    if not blank and signature + 14 < page_w - 28 - width_of(valid, "sans", MIN_TEXT):
        page.text(page_w - 16, foot + 12, who.last, "hand", 20, (28, 44, 104), "rm")
    if len(lines) > 1:
        page.fit((14, foot + 26, page_w - 14, page_h - 4), lines[1:], "sans", _INK, largest=16)
    return _on_table(page, rng, (longest, round(page_h + longest * 0.14)), {"layout": "card"}, radius=14)


def bank_card(lines: Sequence[str], _about: str, rng: Random, longest: int, *, blank: bool = False) -> Canvas:
    """A bank card; its number fails the Luhn check or is all noughts, so no real card has it.

    Args:
        lines: the bank's name, then further words on the card.
        _about: caption and subject; nothing here depends on them.
        rng: the drawing's source of chance.
        longest: length of the longer side.
        blank: whether it is drawn without anybody's data.
    """
    longest = max(longest, 360)
    brand = rng.choice(_BRANDS)
    w, h = round(longest * 0.9), round(longest * 0.9 / 1.586)
    ends = [mix(brand, _WHITE, 0.12), mix(brand, (0, 0, 0), 0.35)]
    rng.shuffle(ends)
    page = Canvas(w, h, gradient(w, h, ends[0], ends[1]))
    for _ in range(rng.randint(1, 3)):
        r, x, y = w * rng.uniform(0.3, 0.7), w * rng.random(), h * rng.random()
        page.arc((x - r, y - r, x + r, y + r), 0, 360, mix(brand, _WHITE, 0.16), rng.choice((2, 10, 26)))
    pale: Color = (248, 246, 238)
    who = person(rng)
    face = rng.choice(("sans_bold", "round", "caladea_bold"))
    page.fit((18, 12, w * 0.78, h * 0.26), lines[:1], face, pale, largest=24, valign="middle")
    if further := [*lines[1:], "SPECIMEN"] if blank else lines[1:]:
        page.fit(
            (w * 0.36, h * 0.30, w - 18, h * 0.53),
            further,
            "sans",
            pale,
            largest=16,
            align="right",
            valign="middle",
        )
    chip: Box = (22, h * 0.31, 22 + w * 0.13, h * 0.31 + w * 0.10)
    gold: Color = (222, 190, 110)
    page.rect(chip, gold, mix(gold, _INK, 0.4), 1, radius=5)
    for i in (1, 2):
        y = chip[1] + (chip[3] - chip[1]) * i / 3
        page.line([(chip[0], y), (chip[2], y)], mix(gold, _INK, 0.4), 1)
    middle = (chip[0] + chip[2]) / 2
    page.line([(middle, chip[1]), (middle, chip[3])], mix(gold, _INK, 0.4), 1)
    for i in range(3):
        r = 5 + 5 * i
        y = (chip[1] + chip[3]) / 2
        page.arc((chip[2] + 6 - r, y - r, chip[2] + 6 + r, y + r), -45, 45, pale, 2)
    size = 30
    number = "0000 0000 0000 0000" if blank else card_number(rng)
    while width_of(number, "mono_bold", size) > w - 40:
        size -= 1
    page.text(20, h * 0.645, number, "mono_bold", size, pale, "lm")
    valid = "00/00" if blank else f"{rng.randint(1, 12):02d}/{rng.randint(27, 31)}"
    page.text(20, h * 0.795, f"VALID THRU {valid}", "sans", MIN_TEXT, pale, "lm")
    holder = "CARDHOLDER NAME" if blank else who.name.upper()
    page.fit((20, h * 0.84, w * 0.72, h * 0.98), [holder], "mono", pale, largest=18, valign="middle")
    marks = rng.choice(
        (
            ((150, 110, 230), (240, 130, 180)),
            ((90, 170, 240), (60, 220, 190)),
            ((240, 240, 240), (190, 190, 196)),
        )
    )
    r, y = h * 0.11, h * 0.85
    page.ellipse((w - 18 - 3.2 * r, y - r, w - 18 - 1.2 * r, y + r), marks[0])
    page.ellipse((w - 18 - 2 * r, y - r, w - 18, y + r), marks[1])
    return _on_table(page, rng, (longest, round(h + longest * 0.16)), {"layout": "card"}, radius=16, turn=5)


def prescription(
    lines: Sequence[str], _about: str, rng: Random, longest: int, *, blank: bool = False
) -> Canvas:
    """A doctor's prescription.

    Args:
        lines: title, then what is prescribed; ordinary medicines when nothing is and it is not blank.
        _about: caption and subject; nothing here depends on them.
        rng: the drawing's source of chance.
        longest: length of the longer side.
        blank: whether it is drawn without anybody's data.
    """
    longest = max(longest, 420)
    w, h = round(longest * rng.uniform(0.76, 0.86)), longest
    page_w, page_h = round(w * 0.9), round(h * 0.92)
    tone: Color = rng.choice(((252, 252, 250), (240, 248, 244), (250, 244, 236), (242, 246, 252)))
    page = Canvas(page_w, page_h, paper(page_w, page_h, tone, rng))
    brand, who = rng.choice(_BRANDS), person(rng)
    left, right = 18.0, page_w - 18.0
    y = page.fit((left, 12, right, 62), lines[:1], "caladea_bold", brand, largest=24, align="center")
    doctor, phone = ("", "") if blank else (who.doctor, who.phone)
    page.text(page_w / 2, y + 10, doctor, "caladea", 16, _INK, "mm")
    page.text(page_w / 2, y + 29, phone, "caladea", MIN_TEXT, _GREY, "mm")
    y += 42
    page.line([(left, y), (right, y)], brand, 2)
    y += 6
    for label, value in (
        ("Patient", who.name),
        ("Born", f"{who.born:%d.%m.%Y}"),
        ("Date", f"{day(rng, 2023, 2025):%d.%m.%Y}"),
    ):
        page.text(left, y + 9, f"{label}:", "sans", MIN_TEXT, _GREY, "lm")
        shown = "" if blank else value
        page.fit((left + 66, y, right, y + 19), [shown], "sans", _INK, largest=15, valign="middle")
        y += 20
    page.line([(left, y + 3), (right, y + 3)], mix(brand, tone, 0.6), 1)
    page.text(left, y + 8, "Rx", "caladea_bold", 40, brand, "la")
    by_hand = rng.random() < 0.5
    items = list(lines[1:])
    if not items and not blank:
        for name, use in rng.sample(_DRUGS, rng.randint(1, 2)):
            items += [name, use]
    page.fit(
        (left + 58, y + 14, right, page_h - 50),
        items,
        "hand" if by_hand else "mono",
        (28, 44, 104) if by_hand else _INK,
        largest=24 if by_hand else 17,
        smallest=16 if by_hand else MIN_TEXT,
        gap=0.25,
    )
    page.text(right, page_h - 24, doctor, "hand", 22, (28, 44, 104), "rm")
    page.line([(right - 150, page_h - 10), (right, page_h - 10)], _GREY, 1)
    page.text(left, page_h - 18, "Signature", "sans", MIN_TEXT, _GREY, "lm")
    return _on_table(page, rng, (w, h), {"layout": "handwritten" if by_hand else "typed"})


def lab_report(
    lines: Sequence[str], _about: str, rng: Random, longest: int, *, blank: bool = False
) -> Canvas:
    """A laboratory report with a table.

    Args:
        lines: title, then remarks shown under the table.
        _about: caption and subject; nothing here depends on them.
        rng: the drawing's source of chance.
        longest: length of the longer side.
        blank: whether it is drawn without anybody's data.
    """
    longest = max(longest, 480)
    w, h = round(longest * rng.uniform(0.86, 0.94)), longest
    page_w, page_h = round(w * 0.92), round(h * 0.93)
    brand, who = rng.choice(_BRANDS), person(rng)
    page = Canvas(page_w, page_h, paper(page_w, page_h, (253, 253, 252), rng))
    left, right = 14.0, page_w - 14.0
    page.rect((0, 0, page_w, 40), brand)
    page.fit((left, 4, right, 37), lines[:1], "sans_bold", _WHITE, largest=21, valign="middle")
    half = (left + right) / 2
    name, born, taken = who.name, f"{who.born:%d.%m.%Y}", f"{day(rng, 2023, 2025):%d.%m.%Y}"
    if blank:
        name = born = taken = ""
    page.fit((left, 46, half - 4, 82), [f"Name: {name}"], "sans", _INK, largest=15, leading=1.2)
    page.text(half, 55, f"Born: {born}".strip(), "sans", MIN_TEXT, _INK, "lm")
    page.text(half, 73, f"Date: {taken}".strip(), "sans", MIN_TEXT, _INK, "lm")
    tests = _LIVER_AND_KIDNEYS if re.search(r"liver|kidney", lines[0], re.IGNORECASE) else _TESTS
    rows = []
    for name, unit, low, high, digits in rng.sample(tests, rng.randint(6, 8)):
        value = rng.uniform(low, high)
        if rng.random() < 0.3:
            value = rng.choice((low * rng.uniform(0.84, 0.97), high * rng.uniform(1.04, 1.3)))
        mark = "L" if value < low else "H" if value > high else ""
        result = "" if blank else f"{value:.{digits}f} {mark}".strip()
        rows.append((name, result, unit, f"{low:g}-{high:g}"))
    y = 92.0
    notes = lines[1:]
    room = page_h - y - 12 - (44 + 20 * len(notes) if notes else 0)
    step = min(34.0, room / (len(rows) + 1))
    edges = [left, left + (right - left) * 0.33, left + (right - left) * 0.54, left + (right - left) * 0.76]
    page.rect((left, y, right, y + step), mix(brand, _WHITE, 0.78))
    for x, head in zip(edges, ("Test", "Result", "Unit", "Range"), strict=True):
        page.text(x + 5, y + step / 2, head, "sans_bold", MIN_TEXT, _INK, "lm")
    for i, row in enumerate(rows):
        top = y + step * (i + 1)
        if i % 2:
            page.rect((left, top, right, top + step), mix(brand, _WHITE, 0.93))
        flagged = row[1].endswith(("L", "H"))
        for j, (x, cell) in enumerate(zip(edges, row, strict=True)):
            strong = flagged and j == 1
            page.text(
                x + 5,
                top + step / 2,
                cell,
                "sans_bold" if strong else "sans",
                MIN_TEXT,
                (180, 30, 40) if strong else _INK,
                "lm",
            )
    end = y + step * (len(rows) + 1)
    page.rect((left, y, right, end), outline=mix(brand, _WHITE, 0.4), width=1)
    if notes:
        page.fit((left, end + 8, right, page_h - 8), notes, "sans", _INK, largest=16)
    return _on_table(page, rng, (w, h), {"layout": "table"}, turn=2)


def payslip(lines: Sequence[str], _about: str, rng: Random, longest: int, *, blank: bool = False) -> Canvas:
    """A payslip.

    Args:
        lines: title, then remarks shown under the sum.
        _about: caption and subject; nothing here depends on them.
        rng: the drawing's source of chance.
        longest: length of the longer side.
        blank: whether it is drawn without anybody's data.
    """
    longest = max(longest, 460)
    w, h = round(longest * rng.uniform(0.84, 0.94)), longest
    page_w, page_h = round(w * 0.92), round(h * 0.93)
    brand, who = rng.choice(_BRANDS), person(rng)
    page = Canvas(
        page_w,
        page_h,
        paper(page_w, page_h, rng.choice(((253, 253, 252), (246, 250, 246), (250, 248, 240))), rng),
    )
    left, right = 16.0, page_w - 16.0
    y = page.fit((left, 12, right, 46), lines[:1], "sans_bold", brand, largest=24)
    page.line([(left, y + 4), (right, y + 4)], brand, 3)
    y += 12
    months = [date(2024, m, 1).strftime("%B") for m in range(1, 13)]
    month = next((m for m in months if m.lower() in lines[0].lower()), rng.choice(months))
    # A title of more than a word or two names the employer itself.
    employer = [("Employer", who.company)] if len(lines[0].split()) < 3 else []
    for label, value in (
        *employer,
        ("Employee", who.name),
        ("Address", who.street),
        ("Period", f"{month} {rng.randint(2023, 2025)}"),
        ("Staff no.", f"{rng.randint(10000, 99999)}"),
    ):
        page.text(left, y + 9, label, "sans", MIN_TEXT, _GREY, "lm")
        shown = "" if blank else value
        page.fit((left + 84, y, right, y + 18), [shown], "sans", _INK, largest=MIN_TEXT, valign="middle")
        y += 19
    gross = rng.randint(2200, 6400) + rng.choice((0.0, 0.5, 0.25))
    extra = rng.choice((0, 120, 240, 310))
    pay = [("Basic pay", gross), ("Overtime", float(extra))] if extra else [("Basic pay", gross)]
    less = [
        ("Income tax", -round(gross * rng.uniform(0.12, 0.22), 2)),
        ("Insurance", -round(gross * rng.uniform(0.06, 0.1), 2)),
        ("Pension", -round(gross * 0.05, 2)),
    ]
    rows = [*pay, *less]
    notes = lines[1:]
    y += 8
    room = page_h - y - 16 - (24 + 20 * len(notes) if notes else 0)
    step = min(30.0, room / (len(rows) + 2))
    page.rect((left, y, right, y + step), mix(brand, _WHITE, 0.8))
    page.text(left + 8, y + step / 2, "Item", "sans_bold", MIN_TEXT, _INK, "lm")
    page.text(right - 8, y + step / 2, "Amount ($)", "sans_bold", MIN_TEXT, _INK, "rm")
    for i, (name, amount) in enumerate(rows):
        middle = y + step * (i + 1.5)
        page.text(left + 8, middle, name, "sans", MIN_TEXT, _INK, "lm")
        shown = "" if blank else f"{amount:,.2f}"
        page.text(right - 8, middle, shown, "mono", MIN_TEXT, _INK, "rm")
        page.line([(left, middle + step / 2), (right, middle + step / 2)], mix(brand, _WHITE, 0.75), 0.8)
    end = y + step * (len(rows) + 1)
    page.rect((left, end, right, end + step), brand)
    page.text(left + 8, end + step / 2, "Net pay", "sans_bold", 16, _WHITE, "lm")
    net = "" if blank else f"{sum(a for _, a in rows):,.2f}"
    page.text(right - 8, end + step / 2, net, "mono_bold", 16, _WHITE, "rm")
    if notes:
        page.fit((left, end + step + 6, right, page_h - 6), notes, "sans", _INK, largest=16)
    return _on_table(page, rng, (w, h), {"layout": "table"}, turn=2)


def _on_table(
    page: Canvas,
    rng: Random,
    size: tuple[int, int],
    notes: dict[str, str],
    *,
    turn: float = 3,
    radius: float = 0,
) -> Canvas:
    background, table = surface(*size, rng)
    canvas = Canvas(*size, background)
    place(page, canvas, rng.uniform(-turn, turn), radius=radius)
    canvas.notes |= notes | {"background": table}
    return canvas


def _fields(page: Canvas, box: Box, fields: Sequence[tuple[str, str]], brand: Color) -> None:
    """Small labels with their values under them."""
    left, top, right, bottom = box
    step = (bottom - top) / len(fields)
    stacked = step >= 38
    for i, (label, value) in enumerate(fields):
        y = top + step * i
        if stacked:
            page.text(left, y + 9, label, "sans", MIN_TEXT, mix(brand, _GREY, 0.5), "lm")
            page.fit(
                (left, y + 16, right, y + 37),
                [value],
                "sans_bold",
                _INK,
                largest=17,
                valign="middle",
                leading=1.2,
            )
        else:
            page.text(left, y + step / 2, label, "sans", MIN_TEXT, mix(brand, _GREY, 0.5), "lm")
            page.fit(
                (left + 100, y, right, y + step),
                [value],
                "sans_bold",
                _INK,
                largest=16,
                valign="middle",
                leading=1.2,
            )


def _portrait(page: Canvas, box: Box, rng: Random, who: Person) -> None:
    left, top, right, bottom = box
    tint: Color = rng.choice(((214, 224, 234), (226, 220, 208), (210, 226, 214)))
    photo = Canvas(right - left, bottom - top, gradient(64, 64, mix(tint, _WHITE, 0.4), tint))
    draw_face(photo, (0, 0, photo.width, photo.height + 1), rng, woman=who.woman)
    page.paste(photo, (left, top))


def _waves(page: Canvas, rng: Random, color: Color, top: float) -> None:
    """Fine waves, as on printed cards."""
    phase, length = rng.uniform(0, 6.28), rng.uniform(50, 120)
    for i in range(14):
        y = top + (page.height - top) * i / 13
        points = [
            (x, y + 9 * math.sin(x / length * 6.28 + phase + i * 0.35)) for x in range(0, page.width + 6, 6)
        ]
        page.line(points, color, 0.8)
