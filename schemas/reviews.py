"""Votes of people: `data/reviews/votes.jsonl`, one JSON object a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    ValidationError,
    model_validator,
)

from schemas.errors import InputError

__all__ = ["REVIEWS", "HumanVote", "load_reviews"]

REVIEWS = Path("data/reviews/votes.jsonl")
"""Where the votes of people stand, below a workspace."""


class HumanVote(BaseModel):
    """What one person says of one item.

    Attributes:
        item_id: the image's or the pair's id, or the SHA-256 of the text, as in the tables of the stages.
        question: what was asked of it.
        value: `safe` or `unsafe`; for a class question the name of a class.
        annotator: who says so. It goes out with the dataset, so write no name that you would not publish.
        note: why; it goes out too.
        time: when, with its zone.
        gold: whether it may measure others: of an item drawn at random, the first of its annotator, blind.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    item_id: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    question: Literal["image_safe", "text_safe", "pair_safe", "image_class", "text_class"]
    value: str = Field(min_length=1)
    annotator: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    note: str = Field(default="", max_length=200)
    time: AwareDatetime | None = None
    gold: StrictBool = False

    @model_validator(mode="after")
    def _known_value(self) -> HumanVote:
        if self.question.endswith("_safe") and self.value not in ("safe", "unsafe"):
            raise ValueError(f"value: {self.value!r} answers no {self.question}; write safe or unsafe")
        if self.question.endswith("_class") and self.value == "safe":
            question = self.question.replace("class", "safe")
            raise ValueError(f"value: 'safe' is no class; say so by a vote on {question}")
        return self


def load_reviews(root: Path, classes: frozenset[str]) -> list[HumanVote]:
    """The votes of people in a workspace, in the order of their lines; none where there is no file.

    Args:
        root: the workspace.
        classes: the classes that may be named.

    Raises:
        InputError: naming the file and the line that cannot be used.
    """
    path = root / REVIEWS
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    votes = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            vote = HumanVote.model_validate(_object(line))
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, problem["loc"]))
            what = f"{where}: {problem['msg']}" if where else problem["msg"].removeprefix("Value error, ")
            raise InputError(f"{path}: line {number}: {what}") from error
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}: line {number}: not a JSON object: {error}") from error
        if vote.question.endswith("_class") and vote.value not in classes:
            raise InputError(
                f"{path}: line {number}: value: the taxonomy has no class {vote.value!r}; "
                "`holisafe taxonomy show` lists them"
            )
        votes.append(vote)
    return votes


def _object(line: bytes) -> dict[str, Any]:
    """One line; a key that stands twice is an error, not an overwrite."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a key stands twice")
        return found

    value = json.loads(line.decode("utf-8"), object_pairs_hook=unique)
    if not isinstance(value, dict):
        raise ValueError(f"it is {type(value).__name__}")  # noqa: TRY004 - told as a wrong line
    return value
