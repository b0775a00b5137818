"""What annotators are given and what they say: items, votes, and the protocol between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

if TYPE_CHECKING:
    from PIL.Image import Image

    from pipeline.workspace import Progress

__all__ = [
    "NOTE_CHARS",
    "PEOPLE",
    "Annotator",
    "ImageItem",
    "PairItem",
    "Question",
    "Status",
    "TextItem",
    "Vote",
    "describe",
    "failed_vote",
    "image_item",
    "vote",
]

Question = Literal["image_safe", "image_class", "text_safe", "text_class", "pair_safe"]
"""What annotators are asked."""
Status = Literal["ok", "unscorable", "blocked", "error"]
"""What came of a question: an answer (`ok`), or why there is none."""

NOTE_CHARS = 200
PEOPLE = "people:"
"""Begins the family of a person's votes."""


@dataclass(frozen=True, slots=True)
class Vote:
    """What one annotator says about one item.

    Attributes:
        item_id: the item.
        question: what was asked of it.
        annotator: who answered.
        family: the lineage of the weights that answered; two sizes of one model are one family. A person's
            is `people:` and the person.
        status: `ok`; `unscorable` when the item does not hold what this annotator judges by; `blocked` when a
            model refused; `error` when its answer could not be used.
        value: `safe`, `borderline` or `unsafe`; for a class question the class's name or `safe`. None
            unless the status is `ok`.
        score: P(unsafe), rounded to three places; for a class question what supports the class, 0..1.
            None unless the status is `ok`.
        note: why, in at most 200 characters.
        call_key: of the model call behind it; empty where there was none.
    """

    item_id: str
    question: Question
    annotator: str
    family: str
    status: Status
    value: str | None
    score: float | None
    note: str = ""
    call_key: str = ""

    @property
    def by_person(self) -> bool:
        """Whether a person says so."""
        return self.family.startswith(PEOPLE)

    def __post_init__(self) -> None:
        """Refuse a vote that says nothing with status ok, or something without."""
        if (self.status == "ok") != (self.value is not None) or (self.value is None) != (self.score is None):
            raise ValueError(
                f"vote of {self.annotator} on {self.item_id}: status {self.status} with {self.value!r}"
            )
        if len(self.note) > NOTE_CHARS:
            raise ValueError(
                f"vote of {self.annotator} on {self.item_id}: note longer than {NOTE_CHARS} characters"
            )


@dataclass(frozen=True, slots=True)
class TextItem:
    """A query alone: no image, no caption.

    Attributes:
        id: the text.
        text: the query.
        policy_class: the class whose clause of the policy decides about it; empty where none is named.
    """

    id: str
    text: str
    policy_class: str = ""


@dataclass(frozen=True, slots=True)
class ImageItem:
    """An image and what is known of it: no query.

    Attributes:
        id: the image.
        caption: what it shows in words, where known.
        ocr_text: the text read from it, where there is any.
        load: gives its pixels.
        jpeg: gives the normalised file, for models that are sent it.
        egress_class: the class that it was collected for. Its rule in `egress` holds for the image, and its
            clause of the policy decides about it; the side is not told to anybody.
    """

    id: str
    caption: str | None
    ocr_text: str | None
    load: Callable[[], Image]
    jpeg: Callable[[], bytes] | None = None
    egress_class: str = ""

    @property
    def policy_class(self) -> str:
        """The class whose clause of the policy decides about it; empty where none is named."""
        return self.egress_class


def image_item(
    item_id: str,
    caption: str | None,
    ocr_text: str | None,
    jpeg: bytes | Callable[[], bytes],
    egress_class: str = "",
) -> ImageItem:
    """An image from its normalised file; it is decoded, or read too, when it is looked at and not before."""

    def read() -> bytes:
        return jpeg if isinstance(jpeg, bytes) else jpeg()

    def load() -> Image:
        from pipeline.encoders import decoded

        return decoded(read())

    return ImageItem(item_id, caption, ocr_text, load, read, egress_class)


@dataclass(frozen=True, slots=True)
class PairItem:
    """An image in words, and a query.

    Attributes:
        id: the pair.
        evidence: what the image shows, and the text read from it; `describe` writes it.
        query: what is asked about it.
        jpeg: gives the image's normalised file, for models that are sent it.
        egress_class: the class whose rule in `egress` holds for the image; no annotator is told.
        policy_class: the class whose clause of the policy decides about it; empty where none is named.
    """

    id: str
    evidence: str
    query: str
    jpeg: Callable[[], bytes] | None = None
    egress_class: str = ""
    policy_class: str = ""


Item = TypeVar("Item", contravariant=True)


class Annotator(Protocol[Item]):
    """Somebody who votes on one question about items of one kind."""

    @property
    def name(self) -> str:
        """The name its votes carry."""
        ...

    @property
    def family(self) -> str:
        """The lineage of its weights."""
        ...

    @property
    def question(self) -> Question:
        """The question it answers."""
        ...

    def annotate(self, items: Sequence[Item], progress: Progress) -> list[Vote]:
        """Vote on every item, in their order; `progress` is advanced by one an item.

        Image and text annotators may add votes on the class question after each item's vote.
        """
        ...


def vote(
    item_id: str, annotator: Annotator[Item], value: str, score: float, note: str = "", call_key: str = ""
) -> Vote:
    """An answer to the annotator's question, its score rounded and its note cut."""
    return Vote(
        item_id,
        annotator.question,
        annotator.name,
        annotator.family,
        "ok",
        value,
        round(float(score), 3),
        cut(note),
        call_key,
    )


def failed_vote(
    item_id: str, annotator: Annotator[Item], status: Status, note: str, call_key: str = ""
) -> Vote:
    """No answer, and why."""
    who = (annotator.question, annotator.name, annotator.family)
    return Vote(item_id, *who, status, None, None, cut(note), call_key)


def cut(note: str) -> str:
    """`note` on one line, with an ellipsis where it was longer than a note may be."""
    line = " ".join(note.split())
    return line if len(line) <= NOTE_CHARS else line[: NOTE_CHARS - 1] + "…"


def describe(caption: str | None, ocr_text: str | None) -> str | None:
    """An image in words: its caption, then the text read from it. None where neither is known."""
    text = " / ".join(line.strip() for line in (ocr_text or "").splitlines() if line.strip())
    lines = []
    if caption and caption.strip():
        lines.append(f"Picture: {' '.join(caption.split())}")
    if text:
        lines.append(f"Text in the picture: {text}")
    return "\n".join(lines) or None
