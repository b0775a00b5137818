"""The clause of one class of harm: what an annotator is told of the policy, with the item.

A clause holds what `policy.image`, `policy.text` or `policy.pair` of one class say, and nothing else of the
taxonomy: a changed sentence changes the requests about items of that class, and so their keys, and no others.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from pipeline.annotators.base import Question
from schemas.taxonomy import ClassInfo, Taxonomy

__all__ = ["AXES", "Axis", "Clause", "clause_of", "clauses"]

Axis = Literal["image", "text", "pair"]
"""What a clause of a policy is about."""
AXES: dict[Question, Axis] = {"image_safe": "image", "text_safe": "text", "pair_safe": "pair"}
"""The part of a policy that decides each question."""

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Clause(BaseModel):
    """What is unsafe, borderline and safe, in one class and of one kind of item.

    Attributes:
        unsafe: what is beyond the line.
        borderline: what is near it.
        borderline_is: the side on which that counts.
        safe: what is within it.
        examples_unsafe: items beyond it.
        examples_safe: items within it.
        protective: which questions are answered, whatever they are asked about; None for images, which are
            judged without one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    unsafe: Text
    borderline: Text
    borderline_is: Literal["safe", "unsafe"] = "safe"
    safe: Text
    examples_unsafe: list[Text] = Field(min_length=1)
    examples_safe: list[Text] = Field(min_length=1)
    protective: Text | None = None

    def shown(self) -> str:
        """The clause as annotators are given it."""
        lines = [
            "Rules",
            f"unsafe: {self.unsafe}",
            f"borderline, which counts as {self.borderline_is}: {self.borderline}",
            f"safe: {self.safe}",
            *(f"unsafe for instance: {example}" for example in self.examples_unsafe),
            *(f"safe for instance: {example}" for example in self.examples_safe),
        ]
        return "\n".join([*lines, *([f"always safe: {self.protective}"] if self.protective else [])])


def clause_of(info: ClassInfo, axis: Axis) -> Clause:
    """What a class says of images, texts or pairs.

    A class with `trigger` counts mere presence as unsafe, and so its borderline images: they are collected as
    unsafe, and graded borderline.
    """
    policy = info.spec.policy
    line = {"image": policy.image, "text": policy.text, "pair": policy.pair}[axis]
    return Clause(
        **line.model_dump(),
        borderline_is="unsafe" if axis == "image" and policy.trigger else "safe",
        protective=None if axis == "image" else policy.protective,
    )


def clauses(taxonomy: Taxonomy, question: Question) -> dict[str, str]:
    """The clause that decides a `…_safe` question, by class, as it is shown."""
    return {info.name: clause_of(info, AXES[question]).shown() for info in taxonomy.classes()}
