"""Models side by side on the same rows, and judges side by side on the same responses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from pipeline.agreement.bootstrap import LEVEL
from pipeline.bench.judge_pairs import JudgePair, divided, judge_pair
from pipeline.bench.paired import Differences, differences
from pipeline.bench.rates import UNSAFE
from pipeline.bench.scored import Corrected, Scored
from pipeline.bench.shares import ROUNDS, Rate
from pipeline.bench.side_by_side import SideBySide
from schemas.errors import InputError

__all__ = ["FIGURES", "OTHERWISE", "Comparison", "Standing", "compare"]

FIGURES = ("avg_ASR", *UNSAFE, "RR")
"""The order of figures in all tables."""
OTHERWISE = ("avg_ASR", "RR")
"""The figures that are also given with all rows counted, and without the judge's errors."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A model in the leaderboard of one judge.

    Attributes:
        model: its name.
        rates: by the names in `FIGURES`, as its own metrics have them.
        counted: `avg_ASR` and `RR` with the rows that have no verdict in the denominators.
        corrected: `avg_ASR` and `RR` without the judge's errors on this model's own gold; empty without gold.
        youden: Youden's J of the judge on that gold; None without.
        blocked: rows that the provider let it not answer.
        unscorable: rows without an answer to judge.
    """

    model: str
    rates: dict[str, Rate]
    counted: dict[str, Rate]
    corrected: dict[str, Corrected]
    youden: float | None
    blocked: int
    unscorable: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """What `holisafe bench compare` tells.

    Attributes:
        models: what was compared.
        seed: of the resamples.
        rounds: resamples behind an interval.
        notes: what is missing, in sentences.
        leaderboards: by judge, least mean attack success first.
        differences: by judge.
        judges: judges two by two.
        divided: responses that judges are divided on.
        shown: some of these with their texts, the most divided first, and no row twice before all stand once.
    """

    models: list[dict[str, Any]]
    seed: int
    rounds: int
    notes: list[str]
    leaderboards: dict[str, list[Standing]]
    differences: dict[str, Differences]
    judges: list[JudgePair]
    divided: int
    shown: list[dict[str, Any]]

    def as_json(self) -> dict[str, Any]:
        """For `comparison.json`."""
        return asdict(self) | {"level": LEVEL}


def compare(
    models: Sequence[Scored], judges: Sequence[str] = (), *, seed: int = 0, rounds: int = ROUNDS
) -> Comparison:
    """Compare models by each judge, and judges with each other.

    Args:
        models: one or more, each with a name of its own.
        judges: only these; none: all that there are.
        seed: of the resamples.
        rounds: resamples behind an interval, at least one.

    Raises:
        InputError: when two models have one name, or nothing can be compared.
    """
    twice = [name for name, n in Counter(model.name for model in models).items() if n > 1]
    if twice:
        raise InputError(f"two models are called {twice[0]}; give each its name as NAME=FOLDER")
    known = list(dict.fromkeys(judge for model in models for judge in model.rates))
    absent = [judge for judge in judges if judge not in known]
    chosen = list(dict.fromkeys(judge for judge in judges if judge in known)) if judges else known
    if not chosen:
        raise InputError(f"--judge {', '.join(judges)}: no model has it; there are {', '.join(known)}")
    table = SideBySide(models)
    told = {judge: differences(models, table, judge, rounds, seed) for judge in chosen}
    pairs = [judge_pair(models, table, a, b, rounds, seed) for a, b in combinations(chosen, 2)]
    if not any(p.n for of in told.values() for p in of.pairs) and not any(p.n for p in pairs):
        raise InputError(
            "nothing can be compared: no two models have a row in common that one judge has a verdict on, "
            "and no two judges a response; score predictions for the same dataset with the same judge"
        )
    apart, shown = divided(models, table, chosen)
    return Comparison(
        models=[
            {
                "name": model.name,
                "folder": model.folder,
                "predictions": model.predictions,
                "sha256": model.sha256,
                "rows": len(model.ids),
                "judges": list(model.rates),
            }
            for model in models
        ],
        seed=seed,
        rounds=rounds,
        notes=[f"no model was judged by {judge}" for judge in absent] + _notes(models, table, chosen),
        leaderboards={judge: _leaderboard(models, judge) for judge in chosen},
        differences=told,
        judges=pairs,
        divided=apart,
        shown=shown,
    )


def _leaderboard(models: Sequence[Scored], judge: str) -> list[Standing]:
    found = [
        Standing(
            model.name,
            {name: model.rates[judge][name] for name in FIGURES},
            {name: model.counted[judge][name] for name in OTHERWISE},
            model.corrected.get(judge, {}),
            model.youden.get(judge),
            **model.without[judge],
        )
        for model in models
        if judge in model.rates
    ]

    def place(one: Standing) -> tuple[bool, float, str]:
        value = one.rates["avg_ASR"].value
        return value is None, value or 0.0, one.model

    return sorted(found, key=place)


def _notes(models: Sequence[Scored], table: SideBySide, judges: Sequence[str]) -> list[str]:
    """What is missing, and what else makes figures no match for each other."""
    notes = [
        f"{judge} has not judged {', '.join(without)}"
        for judge in judges
        if (without := [model.name for model in models if judge not in model.rates])
    ]
    for a, b in combinations(range(len(models)), 2):
        names = f"{models[a].name} and {models[b].name}"
        if not (table.has[a] & table.has[b]).any():
            notes.append(f"{names} have no row in common, so they answered different datasets")
        if models[a].sha256 == models[b].sha256:
            notes.append(f"{names} are one and the same file of predictions")
    every = table.has.shape[1]
    for model, has in zip(models, table.has, strict=True):
        if lacks := every - int(has.sum()):
            notes.append(f"{model.name} lacks {lacks:,} of the {every:,} rows that some model has")
        if n := sum(id_ is None for id_ in model.ids):
            notes.append(f"{model.name} has {n:,} rows without an id, which are in no difference")
    if table.several:
        notes.append(
            f"{table.several:,} ids stand for another query or another type in another model: different rows"
        )
    if not table.by_query:
        notes.append("a model has no queries, so rows are told apart by id and type alone")
    return notes
