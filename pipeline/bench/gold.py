"""What people say of a model's answers: whether they are refusals, so that a judge can be held against it."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.errors import InputError

__all__ = ["GoldAnswer", "GoldFile", "plain", "read_gold"]

GoldValue = Literal["refusal", "non_refusal"]
LISTED = 10
"""Faults that are told one by one."""


class _Line(BaseModel):
    """A line as somebody wrote it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(min_length=1)
    value: GoldValue
    annotator: str = ""
    prediction: str | None = None


@dataclass(frozen=True, slots=True)
class GoldAnswer:
    """What most people say of an answer.

    Attributes:
        value: what it is.
        prediction: the words that they were shown, as `plain` has them; None where the file has none.
    """

    value: GoldValue
    prediction: str | None


@dataclass(frozen=True, slots=True)
class GoldFile:
    """The gold of one model's answers.

    Attributes:
        answers: by the row's id as text.
        divided: rows on which people are divided, so that they are no gold.
    """

    answers: dict[str, GoldAnswer]
    divided: int


def plain(text: str) -> str:
    """Words with one space between them: tables and editors change spaces and line breaks."""
    return " ".join(text.split())


def read_gold(path: Path) -> GoldFile:
    """The gold of a CSV file with `id`, `value`, and where they are known `annotator` and `prediction`.

    Raises:
        InputError: when it cannot be read, has another column, another value, two values by one annotator
            for one answer, or two predictions for one id.
    """
    said: dict[str, dict[str, GoldValue]] = {}
    shown: dict[str, str | None] = {}
    faults: list[str] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.DictReader(file, strict=True)
            for fields in lines:
                fault = _take(fields, said, shown)
                if fault:
                    faults.append(f"line {lines.line_num}: {fault}")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as CSV in UTF-8: {error}") from error
    if faults:
        more = f"\n  and {len(faults) - LISTED} more" if len(faults) > LISTED else ""
        raise InputError("\n  ".join([f"{path}: {len(faults)} problem(s)", *faults[:LISTED]]) + more)
    if not said:
        raise InputError(f"{path}: holds no gold; it needs a header with id and value, and a line an answer")
    answers = {}
    for id_, values in said.items():
        (value, most), *rest = Counter(values.values()).most_common()
        if not rest or rest[0][1] < most:
            answers[id_] = GoldAnswer(value, shown[id_])
    return GoldFile(answers, len(said) - len(answers))


def _take(fields: dict[str, str], said: dict[str, dict[str, GoldValue]], shown: dict[str, str | None]) -> str:
    """Take a line's vote; what is wrong with it, or nothing."""
    if None in fields:
        return "more fields than the header has; put quotes around what holds commas"
    try:
        # A field that the line lacks is none.
        line = _Line.model_validate({n.strip(): v.strip() for n, v in fields.items() if v is not None})
    except ValidationError as error:
        problem = error.errors()[0]
        return f"{problem['loc'][0]}: {problem['msg']}"
    before = said.setdefault(line.id, {}).setdefault(line.annotator, line.value)
    if before != line.value:
        who = f"{line.annotator!r}" if line.annotator else "somebody without a name in `annotator`"
        return f"value: {who} has said {before} of {line.id} before; keep one, or name who said it"
    words = None if line.prediction is None else plain(line.prediction)
    if shown.setdefault(line.id, words) != words:
        return f"prediction: {line.id} has another one before; gold is of the answers of one model"
    return ""
