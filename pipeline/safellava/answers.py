"""Answers to rows, and where they are kept until all are there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.store import write_text
from schemas.errors import InputError

__all__ = ["Answer", "KeptAnswers"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a row.

    Attributes:
        text: the model's words.
        status: `ok`, `empty`, `cut off` at the most tokens; `no image` that decodes, or `not sent`, since its
            query holds a token that steers the model: nothing was asked.
        detail: the reason of what is not ok.
        probs: of each class; None where nothing was asked.
    """

    text: str
    status: str
    detail: str = ""
    probs: tuple[float, ...] | None = None


class KeptAnswers:
    """Answers in a file, a line a batch, so that who was stopped goes on.

    Whole batches, since what a row is answered may hang on those beside it by a rounding.
    """

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        """Read what there is.

        Args:
            path: the file.
            about: what the answers hang on, in short values.

        Raises:
            InputError: when the file is of other answers.
        """
        self._path = path
        self._batches: dict[int, list[Answer]] = {}
        lines = path.read_text("utf-8").splitlines() if path.is_file() else []
        if lines:
            was = _object(lines[0])
            differs = [key for key in {**was, **about} if was.get(key) != about.get(key)]
            if differs:
                told = ", ".join(f"{key} was {was.get(key)}, is {about.get(key)}" for key in sorted(differs))
                raise InputError(
                    f"{path}: answers of another run ({told}); run it as before to go on, name another "
                    "--out, or delete the file to begin anew"
                )
        whole = [line for line in lines[1:] if self._take(_object(line))]  # the last one may be cut off
        write_text(path, "".join(f"{line}\n" for line in [json.dumps(dict(about)), *whole]))

    def get(self, start: int) -> list[Answer] | None:
        """The answers of the batch that begins at this place; None where there are none yet."""
        return self._batches.get(start)

    def add(self, start: int, answers: Sequence[Answer]) -> None:
        """Keep the answers of a batch."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"start": start, "answers": [asdict(a) for a in answers]}) + "\n")

    def _take(self, line: Mapping[str, Any]) -> bool:
        if line:
            self._batches[line["start"]] = [
                Answer(a["text"], a["status"], a["detail"], tuple(a["probs"])) for a in line["answers"]
            ]
        return bool(line)


def _object(line: str) -> Mapping[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
