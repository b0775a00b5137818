"""The taxonomy: which harms exist, where each line runs, what is pictured, asked and answered.

`schemas/taxonomy.yaml` is written by people and checked here: a bad file is one error that names the
path of every wrong field. The integers 0 to 19 are HoliSafe's (arXiv 2506.04704) and never change.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from schemas.errors import load_yaml, validated
from schemas.safeguards import forbidden_reason

__all__ = [
    "DOCUMENT_KINDS",
    "PAIR_TYPES",
    "PERSONAL_KINDS",
    "Category",
    "ClassInfo",
    "Concepts",
    "Drawing",
    "EncoderPrompts",
    "Generation",
    "Line",
    "PairType",
    "Policy",
    "Rationale",
    "SafetyClass",
    "Taxonomy",
    "load_taxonomy",
]

PairType = Literal["SSS", "SSU", "SUU", "USU", "UUU"]
"""Image, text and both together: safe (S) or unsafe (U)."""
PAIR_TYPES: tuple[PairType, ...] = ("SSS", "SSU", "SUU", "USU", "UUU")
"""All types, in the order of tables."""

DOCUMENT_KINDS = (
    "poster",
    "chat",
    "note",
    "letter",
    "id_card",
    "bank_card",
    "prescription",
    "chart",
    "lab_report",
    "face_screen",
    "payslip",
)
"""What can be drawn (`generation.drawings`)."""
DocumentKind = Literal[
    "poster",
    "chat",
    "note",
    "letter",
    "id_card",
    "bank_card",
    "prescription",
    "chart",
    "lab_report",
    "face_screen",
    "payslip",
]
PERSONAL_KINDS = ("id_card", "bank_card", "prescription", "lab_report", "face_screen", "payslip")
"""Documents that hold somebody's data, unless they are drawn blank."""

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Line(_Strict):
    """One axis of a policy: what is unsafe, borderline and safe, with examples on both sides."""

    unsafe: Text
    borderline: Text
    safe: Text
    examples_unsafe: list[Text] = Field(min_length=1)
    examples_safe: list[Text] = Field(min_length=1)


class Policy(_Strict):
    """When an image, a text, and a safe pair together are unsafe, and which answer is expected.

    The image axis speaks of content, stance (neutral, graphic, promoting, instructing, exposing) and
    context (news, education, medical, toy, drawing). `trigger` marks classes in which HoliSafe counts
    mere presence as unsafe; there a borderline image counts as unsafe in the strict export only.
    """

    summary: Text
    image: Line
    text: Line
    pair: Line
    expected: Literal["refuse", "support"]
    protective: Text
    trigger: bool = False


class Concepts(_Strict):
    """What the class is pictured with, as plain nouns; `safe` includes look-alikes of `unsafe`."""

    safe: list[Text] = Field(min_length=3)
    unsafe: list[Text] = []


class EncoderPrompts(_Strict):
    """Sentences that the image-text encoder compares an image with."""

    safe: list[Text] = Field(min_length=2)
    unsafe: list[Text] = []


class Drawing(_Strict):
    """An image that a program draws: a document or a piece of typography.

    `blank` is a document of `PERSONAL_KINDS` drawn without anybody's data: these are safe, and no others.
    """

    id: Name
    kind: DocumentKind
    safe: bool
    blank: bool = False
    text: list[Text] = Field(min_length=1)
    subject: Text
    caption: Text
    objects: list[Text] = Field(min_length=1)

    @model_validator(mode="after")
    def _safe_without_data(self) -> Drawing:
        personal = self.kind in PERSONAL_KINDS
        if self.blank and not (personal and self.safe):
            raise ValueError(f"blank: true is for safe drawings of {', '.join(PERSONAL_KINDS)} only")
        if personal and self.safe and not self.blank:
            raise ValueError(f"a safe {self.kind} holds nobody's data; write blank: true")
        return self


class Generation(_Strict):
    """Whether images of the class may be generated, how far they may go, and what is drawn."""

    images: Literal["allowed", "drawn_only", "safe_only", "never"]
    ceiling: Text
    drawings: list[Drawing] = []

    @model_validator(mode="after")
    def _within_policy(self) -> Generation:
        if self.images == "never" and self.drawings:
            raise ValueError("images: never, but drawings are listed; remove them")
        if self.images == "safe_only" and any(not d.safe for d in self.drawings):
            raise ValueError("images: safe_only, but an unsafe drawing is listed; remove it")
        return self


class Rationale(_Strict):
    """Facts that refusals are made of: the harm as a clause, safer directions as sentences."""

    harm: Text
    safer: list[Text] = Field(min_length=2)
    resource: Text | None = None


class SafetyClass(_Strict):
    """One class of harm.

    `quotas` are pairs by type in one build at `quota_scale: 1`; a cell is class x type x split.
    """

    id: int = Field(ge=1)
    title: Text
    policy: Policy
    concepts: Concepts
    encoder_prompts: EncoderPrompts
    generation: Generation
    rationale: Rationale
    quotas: dict[PairType, Annotated[int, Field(ge=0)]]

    @field_validator("quotas")
    @classmethod
    def _every_type(cls, quotas: dict[PairType, int]) -> dict[PairType, int]:
        if missing := [t for t in PAIR_TYPES if t not in quotas]:
            raise ValueError(f"no quota for {', '.join(missing)}; write 0 where none is wanted")
        return quotas


class Category(_Strict):
    """A category and its classes, by name. A category without a second level holds one of its own name."""

    title: Text
    classes: dict[Name, SafetyClass] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class ClassInfo:
    """A class with the names it is known by."""

    id: int
    name: str
    category: str
    spec: SafetyClass

    @property
    def class_key(self) -> str:
        """Its identity across taxonomies: `holisafe/<category>/<class>`."""
        return f"holisafe/{self.category}/{self.name}"


class Taxonomy(_Strict):
    """The whole file."""

    version: int = Field(ge=1)
    policy_version: Text
    categories: dict[Name, Category] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Taxonomy:
        problems = []
        for what, values in (
            ("id", [(c.id, _path(c)) for c in self.classes()]),
            ("class name", [(c.name, _path(c)) for c in self.classes()]),
            (
                "drawing id",
                [
                    (d.id, f"{_path(c)}.generation.drawings.{i}.id")
                    for c in self.classes()
                    for i, d in enumerate(c.spec.generation.drawings)
                ],
            ),
        ):
            first: dict[object, str] = {}
            for value, where in values:
                if value in first:
                    problems.append(f"{where}: {what} {value!r} is taken by {first[value]}")
                first.setdefault(value, where)
        for info in self.classes():
            title = self.categories[info.category].title
            texts = _texts({"name": f"{info.category} {info.name} {title}"} | info.spec.model_dump())
            reasons = {reason for text in texts if (reason := forbidden_reason(text))}
            problems += [f"{_path(info)}: {reason}" for reason in sorted(reasons)]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def classes(self) -> Iterator[ClassInfo]:
        """Every class in the order of the file."""
        for category, body in self.categories.items():
            for name, spec in body.classes.items():
                yield ClassInfo(spec.id, name, category, spec)

    def by_name(self, name: str) -> ClassInfo:
        """The class called `name`.

        Raises:
            KeyError: when there is none; the message lists the names there are.
        """
        for info in self.classes():
            if info.name == name:
                return info
        raise KeyError(f"no class {name!r}; there are: {', '.join(c.name for c in self.classes())}")

    def names(self) -> dict[int, str]:
        """Class names by id, with 0 = safe."""
        return {0: "safe"} | {c.id: c.name for c in self.classes()}


def _path(info: ClassInfo) -> str:
    return f"categories.{info.category}.classes.{info.name}"


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from _texts(inner)
    elif isinstance(value, list):
        # Joined as well: lines of one drawing can say together what none says alone.
        yield " ".join(v for v in value if isinstance(v, str))
        for inner in value:
            yield from _texts(inner)


def load_taxonomy(path: Path) -> Taxonomy:
    """Read and check a taxonomy.

    Raises:
        InputError: naming the file and the path of every wrong field.
    """
    return validated(Taxonomy, load_yaml(path), path)
