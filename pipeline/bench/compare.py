"""Models side by side on the same rows, and judges side by side on the same responses."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.agreement import Figure
from pipeline.agreement.bootstrap import LEVEL, intervals
from pipeline.bench.judging import VERDICTS
from pipeline.bench.rates import UNSAFE
from pipeline.bench.scored import Scored, texts
from pipeline.bench.shares import ROUNDS, Drawn, Rate, Share, rate_of, shares
from pipeline.bench.table import NONE
from pipeline.store import sha256_text
from schemas.errors import InputError
from schemas.taxonomy import PAIR_TYPES

__all__ = [
    "FIGURES",
    "Comparison",
    "Correlation",
    "Difference",
    "Differences",
    "JudgePair",
    "Paired",
    "Standing",
    "compare",
    "difference",
    "mean_difference",
]

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FIGURES = ("avg_ASR", *UNSAFE, "RR")
"""The order of figures in all tables."""
MODELS = 4
"""So many models it takes for a correlation over models."""
SHOWN = 30
"""Rows of those that judges are divided on."""
CUT = 300
"""Letters that are shown of a text."""
DECIMALS = 6
_NON_REFUSAL = VERDICTS.index("non_refusal")
_WITHOUT = (VERDICTS.index("blocked"), VERDICTS.index("unscorable"))
_Z = NormalDist().inv_cdf((1 + LEVEL) / 2)


@dataclass(frozen=True, slots=True)
class Standing:
    """A model in the leaderboard of one judge.

    Attributes:
        model: its name.
        rates: by the names in `FIGURES`, as its own metrics have them.
        blocked: rows that the provider let it not answer.
        unscorable: rows without an answer to judge.
    """

    model: str
    rates: dict[str, Rate]
    blocked: int
    unscorable: int


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure of one model less that of another, on the rows that both have a verdict on.

    Attributes:
        value: -1..1; None with a `reason`.
        low: of the 95 % interval; None where there is none.
        high: its other end.
        n: rows.
        interval: `bootstrap` by image; `mover` where all rows of a share have one verdict, or resamples do
            not differ: both models' own intervals put together. None where there is none.
        reason: why there is no value or no interval; empty where there is.
        excludes_0: whether the interval does.
        excludes_0_of_all: whether it does when widened for all differences by this judge (Bonferroni).
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    interval: Literal["bootstrap", "mover"] | None
    reason: str
    excludes_0: bool = False
    excludes_0_of_all: bool = False


@dataclass(frozen=True, slots=True)
class Paired:
    """Two models by one judge.

    Attributes:
        a: the one.
        b: the other.
        common: rows that both have.
        n: rows of a known type that both have a verdict on.
        figures: of `a` less `b`, by the names in `FIGURES`.
    """

    a: str
    b: str
    common: int
    n: int
    figures: dict[str, Difference]


@dataclass(frozen=True, slots=True)
class Differences:
    """All differences by one judge.

    Attributes:
        pairs: models two by two.
        compared: differences with an interval, which Bonferroni counts.
        exclude_0: how many of them exclude 0, each looked at alone.
        exclude_0_of_all: how many still do when all are looked at.
    """

    pairs: list[Paired]
    compared: int
    exclude_0: int
    exclude_0_of_all: int


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
    table = _Table(models)
    differences = {judge: _differences(models, table, judge, rounds, seed) for judge in chosen}
    pairs = [_judge_pair(models, table, a, b, rounds, seed) for a, b in combinations(chosen, 2)]
    if not any(p.n for of in differences.values() for p in of.pairs) and not any(p.n for p in pairs):
        raise InputError(
            "nothing can be compared: no two models have a row in common that one judge has a verdict on, "
            "and no two judges a response; score predictions for the same dataset with the same judge"
        )
    divided, shown = _divided(models, table, chosen)
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
        differences=differences,
        judges=pairs,
        divided=divided,
        shown=shown,
    )


class _Table:
    """All rows of all models, each once: rows of one id, type and query are the same row."""

    def __init__(self, models: Sequence[Scored]) -> None:
        # A file of predictions may have no queries at all; then there is only id and type to go by.
        self.by_query = all(any(query is not None for query in model.queries) for model in models)
        numbers: dict[tuple[Any, ...], int] = {}
        self.place = [
            np.array([numbers.setdefault(key, len(numbers)) for key in self._keys(k, model)], np.int64)
            for k, model in enumerate(models)
        ]
        n = len(numbers)
        meanings: dict[str, int] = Counter(key[0] for key in numbers if key[0] is not None)
        self.several = sum(count > 1 for count in meanings.values())
        self.type = np.full(n, NONE)
        self.has = np.zeros((len(models), n), np.bool_)
        images: list[str | None] = [None] * n
        self.group: list[str | None] = [None] * n
        for k, (model, place) in enumerate(zip(models, self.place, strict=True)):
            self.type[place] = model.types
            self.has[k, place] = True
            for at, image, group in zip(place.tolist(), model.images, model.groups, strict=True):
                images[at] = images[at] or image
                self.group[at] = self.group[at] or group
        # A row without an image has one of its own. Numbers hang on names, not on the order of the rows.
        names = [
            image or f"\0{key[0]}\0{row}"
            for row, (image, key) in enumerate(zip(images, numbers, strict=True))
        ]
        rank = {name: number for number, name in enumerate(sorted(set(names)))}
        self.image = np.array([rank[name] for name in names], np.int64)
        self._verdict: dict[str, Ints] = {}
        for judge in {judge for model in models for judge in model.verdicts}:
            of = np.full((len(models), n), NONE)
            for k, (model, place) in enumerate(zip(models, self.place, strict=True)):
                if judge in model.verdicts:
                    of[k, place] = model.verdicts[judge]
            self._verdict[judge] = of

    def _keys(self, number: int, model: Scored) -> list[tuple[Any, ...]]:
        return [
            (id_, kind, query if self.by_query else None) if id_ is not None else (None, number, row)
            for row, (id_, kind, query) in enumerate(
                zip(model.ids, model.types.tolist(), model.queries, strict=True)
            )
        ]

    def judged(self, judge: str) -> Bools:
        """Of each model and row, whether there is a verdict."""
        of = self._verdict[judge]
        known: Bools = (of != NONE) & ~np.isin(of, _WITHOUT)
        return known

    def complied(self, judge: str) -> Bools:
        """Of each model and row, whether it did not refuse; says nothing where there is no verdict."""
        return np.asarray(self._verdict[judge] == _NON_REFUSAL)


def difference(a: Drawn, b: Drawn) -> Difference:
    """The share of `a` less that of `b`, which are of the same rows in the same resamples."""
    if not a.n:
        return Difference(None, None, None, 0, None, "no such row has a verdict of both")
    value = a.hits / a.n - b.hits / b.n
    if 2 * a.most > a.n:
        return Difference(_round(value), None, None, a.n, None, "no interval: most of it hangs on one image")
    low, high, how = _ends([(a, b)])
    return Difference(_round(value), low, high, a.n, how, "" if how else "no interval")


def mean_difference(some: Mapping[str, tuple[Drawn, Drawn]]) -> Difference:
    """The difference of unweighted means over types; every type needs a row.

    Args:
        some: both models' shares by type.
    """
    n = sum(a.n for a, _ in some.values())
    if lacking := [kind for kind, (a, _) in some.items() if not a.n]:
        why = f"no row of {', '.join(lacking)} has a verdict of both"
        return Difference(None, None, None, n, None, why)
    value = sum(a.hits / a.n - b.hits / b.n for a, b in some.values()) / len(some)
    if any(2 * a.most > a.n for a, _ in some.values()):
        why = "no interval: most of a type hangs on one image"
        return Difference(_round(value), None, None, n, None, why)
    low, high, how = _ends(list(some.values()))
    return Difference(_round(value), low, high, n, how, "" if how else "no interval")


def _ends(
    some: Sequence[tuple[Drawn, Drawn]],
) -> tuple[float | None, float | None, Literal["bootstrap", "mover"] | None]:
    """The interval of the mean of differences."""
    again = np.mean([a.again - b.again for a, b in some], axis=0)
    even = any(share.hits in (0, share.n) for both in some for share in both)
    known = again[~np.isnan(again)]
    if not even and len(known) and known.max() > known.min():
        found = intervals(again[:, None])[0]
        return _round(found.low), _round(found.high), None if found.low is None else "bootstrap"
    # Where a share is the same in all resamples they would leave too little doubt. Square and add (Newcombe
    # 1998) takes the models for independent, which is too wide where they are alike, and never too narrow.
    below, above = [], []
    for a, b in some:
        of_a, of_b = rate_of(a, ""), rate_of(b, "")
        if of_a.low is None or of_a.high is None or of_b.low is None or of_b.high is None:
            return None, None, None
        p_a, p_b = a.hits / a.n, b.hits / b.n
        below += [p_a - of_a.low, of_b.high - p_b]
        above += [of_a.high - p_a, p_b - of_b.low]
    value = sum(a.hits / a.n - b.hits / b.n for a, b in some) / len(some)
    low, high = value - math.hypot(*below) / len(some), value + math.hypot(*above) / len(some)
    return _round(max(-1.0, low)), _round(min(1.0, high)), "mover"


def _differences(models: Sequence[Scored], table: _Table, judge: str, rounds: int, seed: int) -> Differences:
    judged, complied = table.judged(judge), table.complied(judge)
    have = [k for k, model in enumerate(models) if judge in model.rates]
    some: list[Share] = []
    for a, b in combinations(have, 2):
        both = judged[a] & judged[b]
        for kind in PAIR_TYPES:
            rows = np.flatnonzero(both & (table.type == PAIR_TYPES.index(kind)))
            for k in (a, b):
                hit = complied[k, rows] if kind != "SSS" else ~complied[k, rows]
                some.append(_share(rows, hit))
    drawn = iter(_drawn(some, table.image, rounds, seed))
    pairs = []
    for a, b in combinations(have, 2):
        of = {kind: (next(drawn), next(drawn)) for kind in PAIR_TYPES}
        figures = {"avg_ASR": mean_difference({kind: of[kind] for kind in UNSAFE})}
        figures |= {kind: difference(*of[kind]) for kind in UNSAFE}
        figures["RR"] = difference(*of["SSS"])
        common = int((table.has[a] & table.has[b]).sum())
        n = sum(one.n for one, _ in of.values())
        pairs.append(Paired(models[a].name, models[b].name, common, n, figures))
    return _weighed(pairs)


def _weighed(pairs: Sequence[Paired]) -> Differences:
    """Which differences exclude 0, each alone and all together."""
    compared = sum(one.interval is not None for pair in pairs for one in pair.figures.values())
    # Resamples are too few for such far percentiles, so the interval is widened as a normal one would be.
    wider = NormalDist().inv_cdf(1 - (1 - LEVEL) / (2 * max(1, compared))) / _Z

    def said(one: Difference) -> Difference:
        if one.value is None or one.low is None or one.high is None:
            return one
        alone, of_all = (
            one.value - by * (one.value - one.low) > 0 or one.value + by * (one.high - one.value) < 0
            for by in (1.0, wider)
        )
        return replace(one, excludes_0=alone, excludes_0_of_all=of_all)

    told = [replace(p, figures={name: said(one) for name, one in p.figures.items()}) for p in pairs]
    every = [one for pair in told for one in pair.figures.values()]
    return Differences(
        told, compared, sum(one.excludes_0 for one in every), sum(one.excludes_0_of_all for one in every)
    )


def _judge_pair(models: Sequence[Scored], table: _Table, a: str, b: str, rounds: int, seed: int) -> JudgePair:
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
    some = [_share(row, ~apart), _share(row, by_a), _share(row, by_b)]
    some += [_share(row[which], apart[which]) for which in parts.values()]
    agreement, of_a, of_b, *rest = _drawn(some, table.image, rounds, seed)
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
    return Figure(_round(float(kappa[-1])), _round(found.low), _round(found.high), reason)


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
    of_a, of_b = (_ranks(np.array(values)) for values in zip(*both, strict=True))
    of_a, of_b = of_a - of_a.mean(), of_b - of_b.mean()
    spread = math.sqrt(float((of_a**2).sum() * (of_b**2).sum()))
    if not spread:
        return Correlation(None, len(both), "by one judge all models are alike")
    return Correlation(_round(float((of_a * of_b).sum()) / spread), len(both), "")


def _ranks(values: Floats) -> Floats:
    """Ranks; equal values share the mean of theirs."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return np.asarray((last - (count - 1) / 2)[place], np.float64)


def _leaderboard(models: Sequence[Scored], judge: str) -> list[Standing]:
    found = [
        Standing(model.name, {name: model.rates[judge][name] for name in FIGURES}, **model.without[judge])
        for model in models
        if judge in model.rates
    ]

    def place(one: Standing) -> tuple[bool, float, str]:
        value = one.rates["avg_ASR"].value
        return value is None, value or 0.0, one.model

    return sorted(found, key=place)


def _divided(
    models: Sequence[Scored], table: _Table, judges: Sequence[str]
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


def _notes(models: Sequence[Scored], table: _Table, judges: Sequence[str]) -> list[str]:
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


def _share(rows: Ints, hit: Bools) -> Share:
    return Share(rows, hit, np.ones(len(rows), np.bool_), False)


def _drawn(some: Sequence[Share], image: Ints, rounds: int, seed: int) -> list[Drawn]:
    return [drawn for drawn, _ in shares(some, image, rounds, seed)]


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, DECIMALS) + 0.0  # no -0.0
