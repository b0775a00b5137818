"""Pictures from programs: the same drawing and seed give the same picture, byte for byte.

The intended side (`Drawing.safe`) is never read here, so that nothing in a picture's style can give it away;
`Drawing.blank` is, and leaves out somebody's data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from random import Random
from typing import Final, TypeAlias

from PIL import Image

from pipeline.generate.canvas import Canvas, DoesNotFitError, TextBox, rng_of
from pipeline.generate.documents import bank_card, id_card, lab_report, payslip, prescription
from pipeline.generate.fonts import UndrawableTextError
from pipeline.generate.screens import chart, chat, face_screen
from pipeline.generate.typography import letter, note, poster
from schemas.taxonomy import Drawing

__all__ = ["LONGEST", "SHORTEST", "DrawingError", "DrawnImage", "draw"]

JSON: TypeAlias = "dict[str, JSON] | list[JSON] | str | int | float | bool | None"
_Painter: TypeAlias = Callable[[Sequence[str], str, Random, int], Canvas]

SHORTEST: Final = 320
LONGEST: Final = 512
_PAINTERS: Final[dict[str, _Painter]] = {
    "poster": poster,
    "chat": chat,
    "note": note,
    "letter": letter,
    "id_card": id_card,
    "bank_card": bank_card,
    "prescription": prescription,
    "chart": chart,
    "lab_report": lab_report,
    "face_screen": face_screen,
    "payslip": payslip,
}
_BLANK_PAINTERS: Final[dict[str, _Painter]] = {
    paint.__name__: partial(paint, blank=True)
    for paint in (id_card, bank_card, prescription, lab_report, face_screen, payslip)
}


class DrawingError(ValueError):
    """A drawing whose text can not be shown whole and readable."""


@dataclass(frozen=True, slots=True)
class DrawnImage:
    """A drawn picture.

    Attributes:
        image: the picture, RGB.
        recipe: all that it takes to draw it again.
        text: every piece of text on it, one a line, in the order of drawing.
        boxes: the same pieces with their places.
    """

    image: Image.Image
    recipe: dict[str, JSON]
    text: str
    boxes: tuple[TextBox, ...]


def draw(drawing: Drawing, seed: int) -> DrawnImage:
    """Draw a document, a screen or a piece of typography.

    Args:
        drawing: what to draw; `safe` has no influence.
        seed: decides size, layout, colours, background, and the invented person.

    Returns:
        The picture, the same for the same drawing, seed and versions of Pillow and Faker.

    Raises:
        DrawingError: when a text is too long, or holds characters that no font has.
    """
    about = f"{drawing.subject}. {drawing.caption}"
    paint = (_BLANK_PAINTERS if drawing.blank else _PAINTERS)[drawing.kind]
    # Room for long texts: first as large as the seed says, then as large as allowed.
    for attempt in range(2):
        rng = rng_of(seed)
        longest = rng.randint(SHORTEST, LONGEST)
        try:
            canvas = paint(drawing.text, about, rng, longest if attempt == 0 else LONGEST)
        except DoesNotFitError as error:
            if attempt:
                raise DrawingError(f"drawing {drawing.id}: {error}; shorten its text") from error
            continue
        except UndrawableTextError as error:
            raise DrawingError(f"drawing {drawing.id}: {error}; write it with other characters") from error
        break
    recipe: dict[str, JSON] = {
        "method": "drawn",
        "drawing": drawing.id,
        "kind": drawing.kind,
        "seed": seed,
        "size": [canvas.width, canvas.height],
        "style": dict(sorted(canvas.notes.items())),
        "fonts": [*sorted(canvas.faces)],
        "versions": {name: version(name) for name in ("pillow", "faker")},
    }
    return DrawnImage(canvas.finish(), recipe, "\n".join(t.text for t in canvas.texts), tuple(canvas.texts))
