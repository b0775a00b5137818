"""Blind baselines: how far a label can be guessed from what should tell nothing about it.

Everything is judged out of fold. An AUC of .5 is chance.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.store import sha256_text

__all__ = ["NAMED", "Probe", "auc", "out_of_fold", "probes"]

NAMED = 0.60
"""AUC above which a probe is named in the report."""
FOLDS = 5
LEAST = 20
"""Rows of each class below which nothing is fitted."""
RESAMPLES = 300
STEPS = 150
"""Steps of accelerated gradient descent on a convex loss."""
RIDGE = 1.0
TOP = 4
LEAST_ROWS_OF_A_WORD = 2
_WORD = re.compile(r"\w+")
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Row = Mapping[str, Any]
TEXT_SETS = (("USU", "SSS"), ("SSU", "SSS"), ("SUU", "SSS"), ("UUU", "SSS"))
SOURCE_PARTS = ("source_kind", "generator", "licence", "source_package", "extension", "size", "bytes")


@dataclass(frozen=True, slots=True)
class Probe:
    """One guess at one label.

    Attributes:
        probe: what it looks at.
        target: what it guesses, and among which rows.
        n: rows.
        positive: rows that are unsafe.
        plain: AUC where folds split rows one by one; None with a `reason`.
        grouped: AUC where folds keep rows of a `grouping` together; None with a `reason`.
        grouping: what is kept together.
        low: 95 % interval of `grouped`, by resampling the groups.
        high: its other end.
        mutual_information: of the value and the label, in bits, where the value is one of few.
        named: whether `grouped` or `plain` is above .60.
        top: features that speak most for unsafe, then most for safe, of a model of all rows.
        reason: why there is no figure; empty where there is one.
    """

    probe: str
    target: str
    n: int
    positive: int
    plain: float | None
    grouped: float | None
    grouping: str
    low: float | None
    high: float | None
    mutual_information: float | None
    named: bool
    top: list[str]
    reason: str


def auc(labels: NDArray[np.bool_], scores: Floats) -> float:
    """Area under the ROC curve, ties counted half (Mann and Whitney 1947); NaN where one class is missing."""
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    ends = np.cumsum(count)
    ranks = (ends - (count - 1) / 2)[place]
    ones = int(labels.sum())
    zeros = len(labels) - ones
    if not ones or not zeros:
        return math.nan
    return float((ranks[labels].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def probes(rows: Sequence[Row], seed: int = 0) -> list[Probe]:
    """All probes.

    Args:
        rows: with `type`, `query`, `scene`, `contrast_square`, `image_id`, `image_safe`, and the parts of
            `SOURCE_PARTS`; `size` is width x height, `bytes` the size of the file received.
        seed: of folds and resampling.
    """
    found = []
    for kinds in TEXT_SETS:
        some = [r for r in rows if r["type"] in kinds]
        labels = np.array([r["type"] != "SSS" for r in some], bool)
        target = f"unsafe in {kinds[0]} u {kinds[1]}"
        # A query template must not be learned in one fold and judged in another, nor a square's own query.
        groups = _joined([(r["contrast_square"], f"scene {r['scene']}" if r["scene"] else "") for r in some])
        square = "contrast square and template"
        features = {
            "query": [_terms(r["query"]) for r in some],
            "query length": [[f"length={_bucket(len(_words(r['query'])))}"] for r in some],
            "opening words": [["opening=" + " ".join(_words(r["query"])[:2])] for r in some],
        }
        found += [_probe(name, target, f, labels, groups, square, seed) for name, f in features.items()]
        squares = _joined([(r["contrast_square"], "") for r in some])
        scene = [[f"template={r['scene']}"] for r in some]
        found.append(_probe("template", target, scene, labels, squares, "contrast square", seed))
    images = list({r["image_id"]: r for r in rows}.values())
    for target, some, label in (
        ("unsafe image", images, [not r["image_safe"] for r in images]),
        ("unsafe pair", list(rows), [r["type"] != "SSS" for r in rows]),
    ):
        groups = _joined([(r["image_id"], "") for r in some])
        parts = {p: [[f"{p}={_part(r, p)}"] for r in some] for p in SOURCE_PARTS}
        joint = [[word for p in SOURCE_PARTS for word in parts[p][i]] for i in range(len(some))]
        for name, f in [*parts.items(), ("source and format together", joint)]:
            found.append(_probe(name, target, f, np.array(label, bool), groups, "image", seed))
    return found


def _probe(
    name: str,
    target: str,
    features: list[list[str]],
    labels: NDArray[np.bool_],
    groups: Ints,
    grouping: str,
    seed: int,
) -> Probe:
    n, ones = len(labels), int(labels.sum())
    few = min(ones, n - ones)
    reason = ""
    if few < LEAST:
        reason = f"{few} rows of the rarer class, {LEAST} are needed"
    elif len(set(groups[labels])) < FOLDS or len(set(groups[~labels])) < FOLDS:
        reason = f"fewer than {FOLDS} groups of a class"
    if reason:
        return Probe(name, target, n, ones, None, None, grouping, None, None, None, False, [], reason)
    counts = _Counts(features)
    plain = auc(labels, _scores(counts, labels, np.arange(n), seed))
    scores = _scores(counts, labels, groups, seed)
    grouped = auc(labels, scores)
    low, high = _interval(labels, scores, groups, seed)
    single = all(len(f) == 1 for f in features)
    return Probe(
        name,
        target,
        n,
        ones,
        round(plain, 3),
        round(grouped, 3),
        grouping,
        low,
        high,
        _information([f[0] for f in features], labels) if single else None,
        max(plain, grouped) > NAMED,
        _top(counts, labels),
        "",
    )


def out_of_fold(
    features: Sequence[Sequence[str]], labels: NDArray[np.bool_], groups: Ints, seed: int
) -> Floats:
    """P(unsafe) of each row by a logistic regression on TF-IDF that saw no row of its group.

    Args:
        features: terms of each row.
        labels: whether each is unsafe.
        groups: rows of equal number stay in one fold.
        seed: of the folds.

    Returns:
        P(unsafe), 0..1; .5 where the other folds hold one label alone.
    """
    return _scores(_Counts(features), labels, groups, seed)


def _scores(counts: _Counts, labels: NDArray[np.bool_], groups: Ints, seed: int) -> Floats:
    names = np.unique(groups)
    order = np.random.default_rng(seed).permutation(len(names))
    fold_of = np.empty(len(names), np.int64)
    # Largest first to the emptiest fold, so that a group of many rows leaves the folds even.
    sizes = np.bincount(np.searchsorted(names, groups), minlength=len(names))
    filled = np.zeros(FOLDS)
    for at in sorted(order.tolist(), key=lambda i: -sizes[i]):
        fold = int(filled.argmin())
        fold_of[at] = fold
        filled[fold] += sizes[at]
    folds = fold_of[np.searchsorted(names, groups)]
    scores = np.full(len(labels), 0.5)
    for fold in range(FOLDS):
        test = np.flatnonzero(folds == fold)
        train = np.flatnonzero(folds != fold)
        if not len(test) or labels[train].all() or not labels[train].any():
            continue
        scores[test] = _Model(counts, train, labels[train]).predict(test)
    return scores


class _Counts:
    """How often each term stands in each row; rows of the same terms are of one kind and kept once."""

    def __init__(self, features: Sequence[Sequence[str]]) -> None:
        kinds: dict[tuple[str, ...], int] = {}
        self.kind = np.array([kinds.setdefault(tuple(row), len(kinds)) for row in features], np.int64)
        self.names = sorted({term for row in kinds for term in row})
        places = {term: i for i, term in enumerate(self.names)}
        counted = [Counter(row) for row in kinds]
        self._ends = np.cumsum([0, *map(len, counted)])
        self._terms = np.array([places[term] for row in counted for term in row], np.int64)
        self._counts = np.array([count for row in counted for count in row.values()], np.float64)

    def of(self, kinds: Ints) -> tuple[Ints, Ints, Floats]:
        """The entries of some kinds: the place of each one's kind among them, its term and its count."""
        starts, sizes = self._ends[kinds], self._ends[kinds + 1] - self._ends[kinds]
        row = np.repeat(np.arange(len(kinds)), sizes)
        at = np.arange(len(row)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + np.repeat(starts, sizes)
        return row, self._terms[at], self._counts[at]


class _Model:
    """Logistic regression with an L2 penalty on TF-IDF rows of length 1, classes weighted evenly."""

    def __init__(self, counts: _Counts, rows: Ints, labels: NDArray[np.bool_]) -> None:
        self._counts = counts
        kinds, place = np.unique(counts.kind[rows], return_inverse=True)
        ones, all_ = np.bincount(place, labels), np.bincount(place)
        n, width = len(kinds), len(counts.names)
        row, column, _ = counts.of(kinds)
        seen = np.bincount(column, all_[row], width)
        # A word of too few rows weighs nothing.
        self._idf = np.where(seen >= LEAST_ROWS_OF_A_WORD, np.log((1 + len(rows)) / (1 + seen)) + 1, 0)
        row, column, value = self._matrix(kinds)
        share = labels.mean()
        unsafe = ones * 0.5 / share
        weight = unsafe + (all_ - ones) * 0.5 / (1 - share)
        self.w, self._b = np.zeros(width), 0.0
        before_w, before_b = self.w, self._b
        # A row has length 1 and a constant beside: the loss curves by no more than weight / 2 for each.
        step = 1 / (0.5 * weight.sum() + RIDGE)
        for turn in range(STEPS):
            ahead = turn / (turn + 3)
            w, b = self.w + ahead * (self.w - before_w), self._b + ahead * (self._b - before_b)
            z = np.bincount(row, value * w[column], n) + b
            error = weight / (1 + np.exp(-np.clip(z, -30, 30))) - unsafe
            before_w, before_b = self.w, self._b
            self.w = w - step * (np.bincount(column, value * error[row], width) + RIDGE * w)
            self._b = b - step * float(error.sum())

    def _matrix(self, kinds: Ints) -> tuple[Ints, Ints, Floats]:
        row, column, count = self._counts.of(kinds)
        known = self._idf[column] > 0
        row, column = row[known], column[known]
        value = count[known] * self._idf[column]
        length = np.sqrt(np.bincount(row, value * value, len(kinds)))
        return row, column, value / length[row]

    def predict(self, rows: Ints) -> Floats:
        kinds, place = np.unique(self._counts.kind[rows], return_inverse=True)
        row, column, value = self._matrix(kinds)
        z = np.bincount(row, value * self.w[column], len(kinds)) + self._b
        return np.asarray(1 / (1 + np.exp(-np.clip(z, -30, 30))), np.float64)[place]


def _top(counts: _Counts, labels: NDArray[np.bool_]) -> list[str]:
    # Rounded, so that words that weigh the same come by their names on any machine.
    weights = _Model(counts, np.arange(len(labels)), labels).w.round(6)
    order = sorted(range(len(weights)), key=lambda i: (-weights[i], counts.names[i]))
    chosen = [i for i in order[:TOP] if weights[i] > 0] + [i for i in order[::-1][:TOP] if weights[i] < 0]
    return [f"{counts.names[i]} {weights[i]:+.2f}" for i in chosen]


def _interval(
    labels: NDArray[np.bool_], scores: Floats, groups: Ints, seed: int
) -> tuple[float | None, float | None]:
    """The 95 % interval of the AUC when whole groups are drawn again (cluster bootstrap)."""
    _, group = np.unique(groups, return_inverse=True)
    number = int(group.max()) + 1
    _, place = np.unique(scores, return_inverse=True)
    ones, others = labels.astype(np.float64), 1.0 - labels
    random = np.random.default_rng(seed)
    values = []
    for _ in range(RESAMPLES):
        times = np.bincount(random.integers(0, number, number), minlength=number)[group]
        above, below = np.bincount(place, times * ones), np.bincount(place, times * others)
        pairs = above.sum() * below.sum()
        if pairs:
            # Each unsafe row against the safe rows below it, and half of those level with it.
            values.append(float((above * (np.cumsum(below) - below / 2)).sum() / pairs))
    if not values:
        return None, None
    low, high = np.quantile(values, [0.025, 0.975])
    return round(float(low), 3), round(float(high), 3)


def _information(values: Sequence[str], labels: NDArray[np.bool_]) -> float:
    """Mutual information of a value and the label in bits, as counted; rare values flatter it."""
    n = len(values)
    both = Counter(zip(values, labels.tolist(), strict=True))
    left, right = Counter(values), Counter(labels.tolist())
    total = sum(c / n * math.log2(c * n / (left[v] * right[y])) for (v, y), c in sorted(both.items()))
    return round(total, 3)


def _joined(keys: Sequence[tuple[str, str]]) -> Ints:
    """A number for each row; rows that share a key, directly or through others, share it."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    own = []
    for i, pair in enumerate(keys):
        known = [k for k in pair if k] or [f"row {i}"]
        own.append(known[0])
        for other in known[1:]:
            parent[root(other)] = root(known[0])
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(root(k), len(numbers)) for k in own], np.int64)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _terms(text: str) -> list[str]:
    words = _words(text)
    return words + [f"{a} {b}" for a, b in pairwise(words)]


def _bucket(n: int) -> str:
    return str(n) if n < 30 else "30 or more"


def _part(row: Row, part: str) -> str:
    value = row[part]
    if part == "bytes":
        # By doublings: the number itself would name the file.
        return str(int(value).bit_length())
    return sha256_text(value)[:12] if len(str(value)) > 80 else str(value)
