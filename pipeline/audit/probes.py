"""Blind baselines: how far a label can be guessed from what should tell nothing about it.

Everything is judged out of fold. An AUC of .5 is chance.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
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
    plain = auc(labels, out_of_fold(features, labels, np.arange(n), seed))
    scores = out_of_fold(features, labels, groups, seed)
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
        _top(features, labels),
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
        model = _Model([features[i] for i in train.tolist()], labels[train])
        scores[test] = model.predict([features[i] for i in test.tolist()])
    return scores


class _Model:
    """Logistic regression with an L2 penalty on TF-IDF rows of length 1, classes weighted evenly."""

    def __init__(self, features: Sequence[Sequence[str]], labels: NDArray[np.bool_]) -> None:
        seen = Counter(term for row in features for term in set(row))
        self.places = {
            t: i for i, t in enumerate(sorted(t for t, n in seen.items() if n >= LEAST_ROWS_OF_A_WORD))
        }
        self.idf = np.array([math.log((1 + len(features)) / (1 + seen[t])) + 1 for t in self.places])
        row, column, value = self._matrix(features)
        n, width = len(features), len(self.places)
        share = labels.mean()
        weight = np.where(labels, 0.5 / share, 0.5 / (1 - share))
        self.w, self.b = np.zeros(width), 0.0
        before_w, before_b = self.w, self.b
        # A row has length 1 and a constant beside: the loss curves by no more than weight / 2 for each.
        step = 1 / (0.5 * weight.sum() + RIDGE)
        for turn in range(STEPS):
            ahead = turn / (turn + 3)
            w, b = self.w + ahead * (self.w - before_w), self.b + ahead * (self.b - before_b)
            z = np.bincount(row, value * w[column], n) + b
            error = weight * (1 / (1 + np.exp(-np.clip(z, -30, 30))) - labels)
            before_w, before_b = self.w, self.b
            self.w = w - step * (np.bincount(column, value * error[row], width) + RIDGE * w)
            self.b = b - step * float(error.sum())

    def _matrix(self, features: Sequence[Sequence[str]]) -> tuple[Ints, Ints, Floats]:
        rows: list[int] = []
        columns: list[int] = []
        values: list[float] = []
        for i, terms in enumerate(features):
            counts = Counter(t for t in terms if t in self.places)
            weights = {t: c * self.idf[self.places[t]] for t, c in counts.items()}
            length = math.sqrt(sum(x * x for x in weights.values())) or 1.0
            for t, x in weights.items():
                rows.append(i)
                columns.append(self.places[t])
                values.append(x / length)
        return np.array(rows, np.int64), np.array(columns, np.int64), np.array(values, np.float64)

    def predict(self, features: Sequence[Sequence[str]]) -> Floats:
        row, column, value = self._matrix(features)
        z = np.bincount(row, value * self.w[column], len(features)) + self.b
        return np.asarray(1 / (1 + np.exp(-np.clip(z, -30, 30))), np.float64)


def _top(features: Sequence[Sequence[str]], labels: NDArray[np.bool_]) -> list[str]:
    model = _Model(features, labels)
    names = list(model.places)
    order = sorted(range(len(names)), key=lambda i: (-model.w[i], names[i]))
    chosen = [i for i in order[:TOP] if model.w[i] > 0] + [i for i in order[::-1][:TOP] if model.w[i] < 0]
    return [f"{names[i]} {model.w[i]:+.2f}" for i in chosen]


def _interval(
    labels: NDArray[np.bool_], scores: Floats, groups: Ints, seed: int
) -> tuple[float | None, float | None]:
    """The 95 % interval of the AUC when whole groups are drawn again (cluster bootstrap)."""
    members: dict[int, list[int]] = defaultdict(list)
    for i, group in enumerate(groups.tolist()):
        members[group].append(i)
    parts = [np.array(m) for m in members.values()]
    random = np.random.default_rng(seed)
    values = []
    for _ in range(RESAMPLES):
        at = np.concatenate([parts[i] for i in random.integers(0, len(parts), len(parts))])
        value = auc(labels[at], scores[at])
        if not math.isnan(value):
            values.append(value)
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
