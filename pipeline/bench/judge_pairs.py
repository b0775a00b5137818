"""Judges side by side on the same responses, and where they are divided."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.agreement import Figure
from pipeline.agreement.bootstrap import intervals
from pipeline.bench.scored import Scored, texts
from pipeline.bench.shares import Drawn, Rate, rate_of, rounded
from pipeline.bench.side_by_side import SideBySide, drawn_of, share_of
from pipeline.store import sha256_text
from schemas.taxonomy import PAIR_TYPES

__all__ = ["CUT", "MODELS", "Correlation", "JudgePair", "divided", "judge_pair"]

Bools = NDArray[np.bool_]

MODELS = 4
"""So many models it takes for a correlation over models."""
SHOWN = 30
"""Rows of those that judges are divided on."""
CUT = 300
"""Letters that are shown of a text."""


@dataclass(frozen=True, slots=True)
class Correlation:
    """Spearman's rank correlation of two judges over models.

    Attributes:
        value: -1..1; None with a `reason`.
        n: models that have the figure by both.
        reason: why there is no value; empty where there is.
    """

    value: float | None
    n: int
    reason: str


@dataclass(frozen=True, slots=True)
class JudgePair:
    """Two judges on the responses of all models that both have a verdict on; a partial refusal is one.

    Attributes:
        a: the one.
        b: the other.
        n: responses.
        only_a: those in which only `a` found a refusal.
        only_b: those in which only `b` did.
        agreement: share on which they agree.
        kappa: Cohen's kappa.
        spearman: over models, by `avg_ASR` and `RR`.
        by_model: share on which they disagree.
        by_type: as well; where the lower end of the interval is highest comes first.
        by_subcategory: as well.
    """

    a: str
    b: str
    n: int
    only_a: int
    only_b: int
    agreement: Rate
    kappa: Figure
    spearman: dict[str, Correlation]
    by_model: dict[str, Rate]
    by_type: dict[str, Rate]
    by_subcategory: dict[str, Rate]


def judge_pair(
    models: Sequence[Scored], table: SideBySide, a: str, b: str, rounds: int, seed: int
) -> JudgePair:
    """Two judges on all responses that both have a verdict on.

    Args:
        models: in the order of the table.
        table: their rows.
        a: the one judge.
        b: the other.
        rounds: resamples behind an interval.
        seed: of the resamples.
    """
    model, row = np.nonzero(table.judged(a) & table.judged(b))
    by_a, by_b = ~table.complied(a)[model, row], ~table.complied(b)[model, row]
    apart = by_a != by_b
    numbers: dict[str | None, int] = {}
    group = np.array([numbers.setdefault(table.group[at], len(numbers)) for at in row.tolist()], np.int64)
    parts: dict[tuple[str, str], Bools] = {}
    for k, one in enumerate(models):
        parts["model", one.name] = model == k
    for k, kind in enumerate(PAIR_TYPES):
        parts["type", kind] = table.type[row] == k
    for name, number in numbers.items():
        if name is not None:
            parts["subcategory", name] = group == number
    parts = {key: which for key, which in parts.items() if which.any()}
    some = [share_of(row, ~apart), share_of(row, by_a), share_of(row, by_b)]
    some += [share_of(row[which], apart[which]) for which in parts.values()]
    agreement, of_a, of_b, *rest = drawn_of(some, table.image, rounds, seed)
    rates: dict[str, dict[str, Rate]] = defaultdict(dict)
    for (level, name), drawn in zip(parts, rest, strict=True):
        rates[level][name] = rate_of(drawn, "")
    for level in ("type", "subcategory"):
        order = sorted(rates[level].items(), key=lambda named: (-(named[1].low or 0.0), named[0]))
        rates[level] = dict(order)
    return JudgePair(
        a,
        b,
        n=len(row),
        only_a=int((by_a & ~by_b).sum()),
        only_b=int((by_b & ~by_a).sum()),
        agreement=rate_of(agreement, "no response has a verdict of both"),
        kappa=_kappa(agreement, of_a, of_b),
        spearman={name: _spearman(models, a, b, name) for name in ("avg_ASR", "RR")},
        by_model=rates["model"],
        by_type=rates["type"],
        by_subcategory=rates["subcategory"],
    )


def _kappa(agreement: Drawn, a: Drawn, b: Drawn) -> Figure:
    """Cohen's kappa, and by image what it is in resamples."""
    if not agreement.n:
        return Figure(None, None, None, "no response has a verdict of both")
    if a.hits == b.hits and a.hits in (0, a.n):
        return Figure(None, None, None, "both always gave one and the same verdict")
    observed = np.append(agreement.again, agreement.hits / agreement.n)
    one, other = np.append(a.again, a.hits / a.n), np.append(b.again, b.hits / b.n)
    chance = one * other + (1 - one) * (1 - other)
    with np.errstate(invalid="ignore", divide="ignore"):
        kappa = np.where(chance < 1, (observed - chance) / (1 - chance), np.nan)
    found = intervals(kappa[:-1, None])[0]
    reason = None
    if found.low is None:
        reason = "no interval: not defined in most resamples"
    elif found.low == found.high:
        reason = "every resample gives this value: the interval does not tell how sure it is"
    return Figure(rounded(float(kappa[-1])), rounded(found.low), rounded(found.high), reason)


def _spearman(models: Sequence[Scored], a: str, b: str, figure: str) -> Correlation:
    both = [
        (x, y)
        for model in models
        if a in model.rates and b in model.rates
        if (x := model.rates[a][figure].value) is not None
        if (y := model.rates[b][figure].value) is not None
    ]
    if len(both) < MODELS:
        why = f"{len(both)} models have it by both judges, and it takes {MODELS}"
        return Correlation(None, len(both), why)
    # Spearman's is Pearson's of the ranks, equal values sharing the mean of theirs.
    ranks = pd.DataFrame(both).rank()
    value = float(ranks[0].corr(ranks[1]))
    if np.isnan(value):
        return Correlation(None, len(both), "by one judge all models are alike")
    return Correlation(rounded(value), len(both), "")


def divided(
    models: Sequence[Scored], table: SideBySide, judges: Sequence[str]
) -> tuple[int, list[dict[str, Any]]]:
    """How many responses judges are divided on, and some of them."""
    refused, voted = np.zeros_like(table.has, np.int64), np.zeros_like(table.has, np.int64)
    for judge in judges:
        judged = table.judged(judge)
        voted += judged
        refused += judged & ~table.complied(judge)
    fewer = np.minimum(refused, voted - refused)
    # The order of a hash is none of the dataset's, so that not only its first class is seen.
    order = sorted(
        zip(*(part.tolist() for part in np.nonzero(fewer)), strict=True),
        key=lambda at: (-fewer[at], sha256_text(f"{models[at[0]].name} {at[1]}")),
    )
    seen: Counter[int] = Counter()
    turns = []
    for model, row in order:
        turns.append((seen[row], model, row))
        seen[row] += 1
    chosen = [(model, row) for _, model, row in sorted(turns, key=lambda turn: turn[0])[:SHOWN]]
    shown = []
    for k, one in enumerate(models):
        wanted = {row for model, row in chosen if model == k}
        lines = {n: row for n, row in enumerate(table.place[k].tolist()) if row in wanted}
        for n, found in texts(one, lines).items():
            shown.append((chosen.index((k, lines[n])), _shown(one.name, found, judges)))
    return len(order), [row for _, row in sorted(shown, key=lambda at: at[0])]


def _shown(model: str, row: Mapping[str, Any], judges: Sequence[str]) -> dict[str, Any]:
    kept = {name: row.get(name) for name in ("id", "type", "category", "subcategory", "image")}
    verdicts = {
        judge: {
            "value": said.get("value"),
            "score": score if isinstance(score := said.get("score"), int | float) else None,
            "why": _cut(said.get("why")),
        }
        for judge in judges
        if (said := (row.get("verdicts") or {}).get(judge))
    }
    said = {"query": _cut(row.get("query")), "response": _cut(row.get("prediction"))}
    return {"model": model, **kept, **said, "verdicts": verdicts}


def _cut(text: object) -> str:
    words = text if isinstance(text, str) else ""
    return words if len(words) <= CUT else words[:CUT] + "…"
