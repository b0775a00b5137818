from __future__ import annotations

import ast
import inspect
import itertools
import re
from dataclasses import replace
from datetime import date
from importlib import import_module
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pipeline.generate
from pipeline.generate import DrawingError, documents, draw, drawings_of, screens
from pipeline.generate.canvas import MIN_TEXT, Canvas, DoesNotFitError, TextBox, place, wrap
from pipeline.generate.draw import LONGEST, SHORTEST
from pipeline.generate.fonts import FACES, UndrawableTextError, face_for, load
from pipeline.generate.people import Person, person
from schemas.taxonomy import DOCUMENT_KINDS, PERSONAL_KINDS, Drawing, load_taxonomy

TEXTS: dict[str, list[str]] = {
    "poster": ["SPRING FAIR", "Saturday, ten to four, in the town hall"],
    "chat": ["Are you coming tonight?", "Yes! I'll bring the cake.", "Ana: Wait for me, please."],
    "note": ["Please water the plants", "while I am away.", "Thank you!"],
    "letter": ["Dear neighbours,", "the lift will be mended on Tuesday.", "We are sorry for the noise."],
}

# What shows that data stand on a document, and what stands on a blank one instead.
VALUES = {
    "id_card": (r"\d", ["SPECIMEN"]),
    "bank_card": (r"[1-9]", ["SPECIMEN", "0000 0000 0000 0000", "CARDHOLDER NAME"]),
    "prescription": (r"\d", ["Patient:", "Born:"]),
    "lab_report": (r"(?m)^[\d.]+( [LH])?$", ["Name:", "Born:", "Result"]),
    "face_screen": (r"Match|ID", ["No person in view"]),
    "payslip": (r"\d", ["Employee", "Net pay"]),
}
FORMS = [(kind, False) for kind in DOCUMENT_KINDS] + [(kind, True) for kind in PERSONAL_KINDS]

every_form = pytest.mark.parametrize(("kind", "blank"), FORMS)


def drawing(
    kind: str, text: list[str] | None = None, *, blank: bool = False, caption: str = "a drawing"
) -> Drawing:
    return Drawing.model_validate(
        {
            "id": "sample",
            "kind": kind,
            "safe": blank,
            "blank": blank,
            "text": text or TEXTS.get(kind, ["Sample title"]),
            "subject": "a drawing",
            "caption": caption,
            "objects": ["paper"],
        }
    )


def apart(a: TextBox, b: TextBox) -> bool:
    """Whether the inner parts of two boxes do not overlap; boxes of turned text are a little too large."""
    slack = 5
    return (
        a.box[2] - slack <= b.box[0] + slack
        or b.box[2] - slack <= a.box[0] + slack
        or a.box[3] - slack <= b.box[1] + slack
        or b.box[3] - slack <= a.box[1] + slack
    )


@every_form
def test_every_kind_is_whole_and_readable(kind: str, blank: bool) -> None:
    for seed in range(12):
        drawn = draw(drawing(kind, blank=blank), seed)
        width, height = drawn.image.size
        assert drawn.image.mode == "RGB"
        assert SHORTEST <= max(width, height) <= LONGEST
        assert drawn.recipe["size"] == [width, height]
        for item in drawn.boxes:
            left, top, right, bottom = item.box
            assert 0 <= left < right <= width, item
            assert 0 <= top < bottom <= height, item
            assert item.size >= MIN_TEXT
        for a, b in itertools.combinations(drawn.boxes, 2):
            assert apart(a, b), (kind, seed, a, b)


@every_form
def test_all_words_are_on_it(kind: str, blank: bool) -> None:
    lines = drawing(kind).text
    for seed in range(4):
        shown = " ".join(draw(drawing(kind, blank=blank), seed).text.split())
        for line in lines:
            for word in re.sub(r"^Ana:", "", line).split():
                assert word in shown


@every_form
def test_same_seed_same_bytes_whatever_the_side(kind: str, blank: bool) -> None:
    wanted = drawing(kind, blank=blank)
    other = wanted.model_copy(update={"safe": not wanted.safe})  # unchecked
    one, again = draw(wanted, 5), draw(other, 5)
    assert one.image.tobytes() == again.image.tobytes()
    assert (one.recipe, one.text, one.boxes) == (again.recipe, again.text, again.boxes)
    assert draw(wanted, 6).image.tobytes() != one.image.tobytes()


@pytest.mark.parametrize("kind", PERSONAL_KINDS)
def test_blank_documents_know_nobody(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def somebody_else(rng: Random, *, woman: bool | None = None) -> Person:
        real = person(rng, woman=woman)
        names = {"first": "Zoe", "last": "Quux", "doctor": "Dr. Q. Quux", "company": "Quux Ltd"}
        return replace(
            real, woman=not real.woman, born=date(1949, 9, 9), street="9 Quux Way", phone="9", **names
        )

    def pixels(*, blank: bool) -> list[bytes]:
        return [draw(drawing(kind, blank=blank), seed).image.tobytes() for seed in range(4)]

    blank, filled = pixels(blank=True), pixels(blank=False)
    for module in (documents, screens):
        monkeypatch.setattr(module, "person", somebody_else)
    assert pixels(blank=True) == blank
    assert all(a != b for a, b in zip(pixels(blank=False), filled, strict=True))


@pytest.mark.parametrize("kind", PERSONAL_KINDS)
def test_blank_documents_show_no_values(kind: str) -> None:
    value, instead = VALUES[kind]
    for seed in range(12):
        assert re.search(value, draw(drawing(kind), seed).text)
        blank = draw(drawing(kind, blank=True), seed).text
        assert not re.search(value, blank), blank
        assert all(words in blank.replace("\n", " ") for words in instead), blank


@pytest.mark.parametrize("kind", ["id_card", "face_screen"])
def test_blank_documents_show_no_face(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_face(*args: object, **kwargs: object) -> None:
        raise AssertionError("a face")

    for module in (documents, screens):
        monkeypatch.setattr(module, "draw_face", no_face)
    draw(drawing(kind, blank=True), 1)
    with pytest.raises(AssertionError, match="a face"):
        draw(drawing(kind), 1)


def test_no_code_of_drawings_reads_the_side() -> None:
    folder = Path(pipeline.generate.__file__).parent
    for name in (
        "canvas",
        "documents",
        "draw",
        "faces",
        "fonts",
        "people",
        "screens",
        "surfaces",
        "typography",
    ):
        tree = ast.parse((folder / f"{name}.py").read_text(encoding="utf-8"))
        assert not [n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr == "safe"], name


def test_sizes_and_styles_vary() -> None:
    drawn = [draw(drawing("poster"), seed) for seed in range(30)]
    assert len({d.image.size for d in drawn}) > 15
    layouts = {str(d.recipe["style"]) for d in drawn}
    assert len(layouts) > 20


def test_every_drawing_of_the_taxonomy_fits() -> None:
    taxonomy = load_taxonomy(Path(inspect.getfile(load_taxonomy)).with_name("taxonomy.yaml"))
    drawn = [(d, draw(d, seed)) for _, d, seed in drawings_of(taxonomy, 1)]
    assert drawn
    for d, image in drawn:
        shown = image.text.split()
        for line in d.text:
            assert set(line.split()) <= set(shown), d.id


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    form=st.sampled_from(FORMS),
    text=st.lists(
        st.text(
            st.characters(codec="latin-1", categories=["L", "N", "P", "Zs"]), min_size=1, max_size=70
        ).filter(lambda t: t.strip()),
        min_size=1,
        max_size=4,
    ),
    seed=st.integers(0, 2**48),
)
def test_any_text_is_whole_or_refused(form: tuple[str, bool], text: list[str], seed: int) -> None:
    kind, blank = form
    try:
        drawn = draw(drawing(kind, text, blank=blank), seed)
    except DrawingError:
        return
    width, height = drawn.image.size
    assert max(width, height) <= LONGEST
    for item in drawn.boxes:
        assert item.box[0] >= 0
        assert item.box[1] >= 0
        assert item.box[2] <= width
        assert item.box[3] <= height
        assert item.size >= MIN_TEXT


def test_long_texts_are_refused_by_name() -> None:
    for kind in ("chat", "note", "letter"):
        with pytest.raises(DrawingError, match=r"drawing sample: .*shorten"):
            draw(drawing(kind, ["word " * 400]), 1)


def test_characters_without_a_glyph_are_refused_by_name() -> None:
    with pytest.raises(DrawingError, match=r"U\+1F9FF"):
        draw(drawing("note", ["look \U0001f9ff"]), 1)


def test_captions_decide_what_charts_and_faces_show() -> None:
    for seed in range(6):
        chart = draw(drawing("chart", caption="a candlestick chart of a price"), seed)
        assert chart.recipe["style"]["layout"] == "candles"  # type: ignore[index, call-overload]
        line = draw(drawing("chart", caption="a falling line chart"), seed)
        assert line.recipe["style"]["layout"] == "line"  # type: ignore[index, call-overload]
    sign = draw(drawing("poster", caption="a black and white sign"), 3)
    assert {sign.recipe["style"]["board"], sign.recipe["style"]["ink"]} == {"#18181a", "#fcfbf7"}  # type: ignore[index, call-overload]


def test_speakers_of_a_chat() -> None:
    drawn = draw(drawing("chat", ["Ana: Hello there", "Ben: Good morning", "Me: Hi both"]), 2)
    pieces = drawn.text.split("\n")
    assert {"Group chat", "Ana", "Ben", "Hello there", "Hi both"} <= set(pieces)
    assert "Me" not in pieces


def test_a_title_decides_the_tests_of_a_report() -> None:
    assert "Hemoglobin" not in draw(drawing("lab_report", ["Liver panel"]), 4).text
    assert "Period\nMarch" in draw(drawing("payslip", ["ACME payslip, March"]), 4).text


def test_wrap() -> None:
    assert wrap("one two three", "sans", 14, 1000) == ["one two three"]
    assert wrap("one two", "sans", 14, 40) == ["one", "two"]
    assert wrap("unbreakable", "sans", 14, 40) is None
    cut = wrap("unbreakable", "sans", 14, 40, force=True)
    assert cut is not None
    assert "".join(cut) == "unbreakable"


def test_a_page_must_fit_on_its_table() -> None:
    page, table = Canvas(100, 100, (255, 255, 255)), Canvas(90, 90, (0, 0, 0))
    with pytest.raises(DoesNotFitError):
        place(page, table, 0)


def test_an_empty_text_leaves_nothing() -> None:
    canvas = Canvas(100, 40, (255, 255, 255))
    canvas.text(10, 20, "", "sans", 16, (0, 0, 0), "lm")
    assert (canvas.texts, canvas.faces) == ([], set())
    assert canvas.finish().getcolors() == [(4000, (255, 255, 255))]


def test_text_out_of_its_place_is_refused() -> None:
    canvas = Canvas(100, 40, (255, 255, 255))
    with pytest.raises(DoesNotFitError):
        canvas.text(60, 20, "too long for it", "sans", 16, (0, 0, 0), "lm")
    assert canvas.texts == []


@pytest.mark.parametrize("face", FACES)
def test_every_font_is_there(face: str) -> None:
    assert face_for(face, "Ink & paper, 5 %") == face
    assert load(face, 20).getlength("word") > 0


def test_fonts_fall_back_and_refuse() -> None:
    assert face_for("hand", "up ↑") == "sans"
    with pytest.raises(UndrawableTextError):
        face_for("hand", "\U0001f9ff")
    module = import_module("pipeline.generate.fonts")
    with pytest.raises(KeyError):
        module.load("no such font", 12)
