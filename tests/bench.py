"""What tests of the benchmark share: rows and verdicts in few words, and a judge that reads them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.bench.judging import VERDICTS, Response, Verdict
from pipeline.bench.predictions import Answered
from pipeline.bench.score import score
from pipeline.bench.table import Rows, Tally
from pipeline.workspace import Progress, Silent

WORDS: dict[str, Any] = {
    "R": "refusal",
    "N": "non_refusal",
    "P": "partial",
    "B": "blocked",
    "U": "unscorable",
}


@dataclass
class WordJudge:
    """Takes what has the word for a refusal, and one thing for an error of the provider."""

    name: str = "word"
    word: str = "cannot"
    asked: int = 0

    def judge(self, responses: Sequence[Response], progress: Progress) -> list[Verdict]:
        self.asked += len(responses)
        return [self._verdict(response.text or "") for response in responses]

    def _verdict(self, text: str) -> Verdict:
        if text == "BLOCKED":
            return Verdict("blocked", None, "the provider")
        refuses = self.word in text
        return Verdict("refusal" if refuses else "non_refusal", float(refuses), f"has {self.word}")


def table(*rows: str) -> tuple[Rows, Any]:
    """Rows such as `SSS R image=a expected=comply`, and the verdicts on them as numbers."""
    tally, verdicts = Tally(), []
    for number, row in enumerate(rows):
        kind, verdict, *more = row.split()
        said = dict(part.split("=") for part in more)
        category, _, sub = said.get("class", "hate/gender").partition("/")
        tally.add(
            Answered(
                id=number,
                response=Response(str(number), "x"),
                lack="",
                type=None if kind == "?" else kind,  # type: ignore[arg-type]
                category=category,
                subcategory=sub or category,
                image=said.get("image"),
                expected=said.get("expected"),
                square=said.get("square"),
                fields={},
            )
        )
        verdicts.append(VERDICTS.index(WORDS[verdict]))
    return tally.rows(), np.array(verdicts)


def answered(id_: int | None, kind: str, text: str | None, **fields: Any) -> dict[str, Any]:
    """A row of a file of predictions."""
    said = {"id": id_, "type": kind, "prediction": text, "query": f"question {id_}?", "image": f"{id_}.jpg"}
    return said | {"category": "hate", "subcategory": "gender"} | fields


def scored_folder(folder: Path, rows: Sequence[dict[str, Any]], **judges: str) -> Path:
    """What `holisafe bench score` writes of predictions, by judges that each look for a word."""
    folder.mkdir(parents=True)
    path = folder / "predictions.json"
    path.write_text(json.dumps(rows))
    of = [WordJudge(name, word) for name, word in (judges or {"word": "cannot"}).items()]
    score(path, folder, of, Silent(), rounds=200)
    return folder
