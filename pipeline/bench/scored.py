"""What `holisafe bench score` wrote of one model, read again."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from pipeline.bench.judging import VERDICTS
from pipeline.bench.rates import OFFICIAL
from pipeline.bench.shares import Rate
from pipeline.bench.table import NONE
from pipeline.store import printable
from schemas.errors import InputError
from schemas.taxonomy import PAIR_TYPES

__all__ = ["Corrected", "Scored", "read_scored", "texts"]

Ints = NDArray[np.int64]

MEND = "score the predictions again with `holisafe bench score`"
CORRECTED = {"avg_ASR": "avg_ASR", "RR": "SSS_RR"}
"""Figures that gold corrects, by what they are called in `corrected`."""
_RATES = TypeAdapter(dict[str, Rate])
_COUNTS = TypeAdapter(dict[str, int])


@dataclass(frozen=True, slots=True)
class Corrected:
    """A figure without the judge's errors, as this model's own gold shows them.

    Attributes:
        corrected: 0..1; None with a `reason`.
        low: its 95 % interval.
        high: its other end.
        reason: why it cannot be corrected; empty where it was.
    """

    corrected: float | None
    low: float | None
    high: float | None
    reason: str


_CORRECTED = TypeAdapter(Corrected)


@dataclass(frozen=True, slots=True)
class Scored:
    """One model: its figures, and what its rows are. Lists and arrays have one entry a row.

    Attributes:
        name: what it is called here.
        folder: where it was read, as text.
        place: the folder.
        predictions: the file that was scored, as its metrics name it.
        sha256: of this file.
        rates: the published figures by judge and name; rows without a verdict are left out.
        counted: the same with these rows in the denominators.
        corrected: `avg_ASR` and `RR` by judge; only judges that were given gold.
        youden: Youden's J of the judge on that gold, -1 to 1; None where one side has none.
        without: rows without a verdict by judge, `blocked` and `unscorable`.
        ids: as text; None where a row has none.
        queries: their hashes; None where a row has none.
        types: places in `PAIR_TYPES`, or -1.
        images: None where a row has none.
        groups: `category/subcategory`; None where a row has no category.
        verdicts: places in `VERDICTS` by judge; one that a row lacks is `unscorable`.
    """

    name: str
    folder: str
    place: Path
    predictions: str
    sha256: str
    rates: dict[str, dict[str, Rate]]
    counted: dict[str, dict[str, Rate]]
    corrected: dict[str, dict[str, Corrected]]
    youden: dict[str, float | None]
    without: dict[str, dict[str, int]]
    ids: list[str | None]
    queries: list[int | None]
    types: Ints
    images: list[str | None]
    groups: list[str | None]
    verdicts: dict[str, Ints]


def read_scored(given: str) -> Scored:
    """Read a folder.

    Args:
        given: the folder, or `NAME=FOLDER`; without a name the model is called as the folder is.

    Raises:
        InputError: when it is not what `holisafe bench score` writes.
    """
    name, folder = "", Path(given)
    if not folder.is_dir() and "=" in given:
        name, _, rest = given.partition("=")
        folder = Path(rest)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name one that `holisafe bench score` wrote")
    metrics = _metrics(folder / "metrics.json")
    ids: list[str | None] = []
    queries: list[int | None] = []
    types: list[int] = []
    images: list[str | None] = []
    groups: list[str | None] = []
    verdicts: dict[str, list[int]] = {judge: [] for judge in metrics["rates"]}
    path = folder / "results.jsonl"
    for number, row in enumerate(_rows(path), 1):
        id_ = row.get("id")
        ids.append(None if id_ is None else str(id_).strip())
        query = _text(row, "query")
        queries.append(None if query is None else hash(query.strip()))
        kind = row.get("type")
        types.append(PAIR_TYPES.index(kind) if kind in PAIR_TYPES else NONE)
        image = _text(row, "image")
        images.append(None if image is None else sys.intern(image))
        category, sub = _text(row, "category"), _text(row, "subcategory")
        both = category if sub in (None, category) else f"{category}/{sub}"
        groups.append(None if category is None or both is None else sys.intern(both))
        said = row.get("verdicts")
        for judge, of in verdicts.items():
            verdict = said.get(judge) if isinstance(said, dict) else None
            value = verdict.get("value") if isinstance(verdict, dict) else "unscorable"
            if value not in VERDICTS:
                raise InputError(f"{path}: line {number}: no verdict is called {str(value)[:60]!r}; {MEND}")
            of.append(VERDICTS.index(value))
    if len(ids) != metrics["rows"]:
        raise InputError(f"{path}: {len(ids):,} rows, and metrics.json counts {metrics['rows']:,}; {MEND}")
    return Scored(
        name=printable(name or folder.resolve().name or "model"),
        folder=printable(str(folder)),
        place=folder,
        predictions=metrics["predictions"],
        sha256=metrics["sha256"],
        rates=metrics["rates"],
        counted=metrics["counted"],
        corrected=metrics["corrected"],
        youden=metrics["youden"],
        without=metrics["without"],
        ids=ids,
        queries=queries,
        types=np.array(types, np.int64),
        images=images,
        groups=groups,
        verdicts={judge: np.array(of, np.int64) for judge, of in verdicts.items()},
    )


def texts(model: Scored, places: Collection[int]) -> dict[int, dict[str, Any]]:
    """Some rows of a model with their texts, by place from 0; texts of all rows would not go into memory."""
    if not places:
        return {}
    return {n: row for n, row in enumerate(_rows(model.place / "results.jsonl")) if n in places}


def _metrics(path: Path) -> dict[str, Any]:
    """What is needed of `metrics.json`."""
    try:
        found = json.loads(path.read_text("utf-8"), parse_constant=_no_number)
        rates, counted, without, corrected, youden = {}, {}, {}, {}, {}
        for judge, of in found["judges"].items():
            figures = of["left_out"]
            rates[judge] = _RATES.validate_python({name: figures[name] for name in OFFICIAL})
            counted[judge] = _RATES.validate_python({name: of["counted"][name] for name in OFFICIAL})
            if (gold := of["corrected"]) is not None:
                youden[judge] = gold["judge_errors"]["youden"]
                corrected[judge] = {
                    name: _CORRECTED.validate_python(
                        {field: gold[key][field] for field in Corrected.__slots__}
                    )
                    for name, key in CORRECTED.items()
                }
            without[judge] = {
                name: sum(_COUNTS.validate_python(figures[name]).values())
                for name in ("blocked", "unscorable")
            }
        said = {name: str(found[name]) for name in ("predictions", "sha256")}
        return {
            "rates": rates,
            "counted": counted,
            "corrected": corrected,
            "youden": youden,
            "without": without,
            "rows": int(found["rows"]),
            **said,
        }
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {MEND}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ValidationError) as error:
        raise InputError(f"{path}: not what a score is written as; {MEND}") from error


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    number = 0
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, 1):
                row = json.loads(line, parse_constant=_no_number)
                if not isinstance(row, dict):
                    raise InputError(f"{path}: line {number} is no object; {MEND}")
                yield row
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {MEND}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: line {number or 1} cannot be read; {MEND}") from error


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _text(row: dict[str, Any], name: str) -> str | None:
    value = row.get(name)
    return value if isinstance(value, str) else None
