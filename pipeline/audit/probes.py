"""Blind baselines: how far a label can be guessed from what should tell nothing about it.

Everything is judged out of fold. An AUC of .5 is chance. Of few rows .60 is crossed by chance, and by one of
many probes sooner: a probe is named when its AUC is above .60 and above .5 by as many standard errors as one
set of probes in forty shows by chance (Bonferroni).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from statistics import NormalDist
from typing import Any

import numpy as np

from pipeline.audit.judging import FOLDS, Bools, Floats, Ints, auc, auc_draws, held_out, interval95
from pipeline.audit.logistic import Terms, TextModel
from pipeline.store import sha256_text

__all__ = [
    "LEAST",
    "NAMED",
    "SOURCE_PARTS",
    "Probe",
    "enough",
    "gives_away",
    "out_of_fold",
    "probes",
    "terms",
]

NAMED = 0.60
"""AUC above which a probe may be named in the report."""
LEAST = 20
"""Rows of each class below which nothing is fitted."""
TOP = 4
IMAGE = "image"
"""The grouping of what looks at images."""
_WORD = re.compile(r"\w+")
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
        named: whether `grouped`, or of texts `plain`, is above .60, and above .5 by more than chance. The
            words of SUU and UUU queries may tell, since these are unsafe by themselves: that probe is never
            named.
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


def probes(rows: Sequence[Row], seed: int = 0, only: Collection[str] | None = None) -> list[Probe]:
    """All probes.

    Args:
        rows: with `type`, `query`, `scene`, `contrast_square`, `image_id`, `image_safe`, and the parts of
            `SOURCE_PARTS`; `size` is width x height, `bytes` the size of the file received.
        seed: of folds and resampling.
        only: probes to make, by name; None: all. Which are named does not depend on it.
    """
    guesses = []
    for kinds in TEXT_SETS:
        some = [r for r in rows if r["type"] in kinds]
        labels = np.array([r["type"] != "SSS" for r in some], bool)
        target = f"unsafe in {kinds[0]} u {kinds[1]}"
        # A query template must not be learned in one fold and judged in another, nor a square's own query.
        groups = _joined([(r["contrast_square"], f"scene {r['scene']}" if r["scene"] else "") for r in some])
        square = "contrast square and template"
        alone = kinds[0][1] == "U"  # unsafe by its words
        guesses += [
            _Guess(name, target, partial(map, of, some), labels, groups, square, alone and name == "query")
            for name, of in OF_QUERIES.items()
        ]
        squares = _joined([(r["contrast_square"], "") for r in some])
        scene = partial(map, _template, some)
        guesses.append(_Guess("template", target, scene, labels, squares, "contrast square"))
    images = list({r["image_id"]: r for r in rows}.values())
    for target, some, unsafe in (
        ("unsafe image", images, [not r["image_safe"] for r in images]),
        ("unsafe pair", list(rows), [r["type"] != "SSS" for r in rows]),
    ):
        groups = _joined([(r["image_id"], "") for r in some])
        labels = np.array(unsafe, bool)
        for name, parts in [*((p, (p,)) for p in SOURCE_PARTS), ("source and format together", SOURCE_PARTS)]:
            of = partial(_source, parts)
            guesses.append(_Guess(name, target, partial(map, of, some), labels, groups, IMAGE))
    return [_probe(g, len(guesses), seed) for g in guesses if only is None or g.probe in only]


@dataclass(frozen=True)
class _Guess:
    """A probe to be made: what it looks at, what it guesses, and what is kept together.

    Features are made when they are looked at: those of all probes together would be many.
    """

    probe: str
    target: str
    features: Callable[[], Iterable[list[str]]]
    labels: Bools
    groups: Ints
    grouping: str
    may_tell: bool = False


def _probe(guess: _Guess, of: int, seed: int) -> Probe:
    labels, groups = guess.labels, guess.groups
    n, ones = len(labels), int(labels.sum())
    reason = enough(labels, groups)
    if reason:
        return Probe(
            guess.probe,
            guess.target,
            n,
            ones,
            None,
            None,
            guess.grouping,
            None,
            None,
            None,
            False,
            [],
            reason,
        )
    alone: list[str | None] = []

    def features() -> Iterator[list[str]]:
        for row in guess.features():
            alone.append(row[0] if len(row) == 1 else None)
            yield row

    counts = Terms(features())
    plain_scores = out_of_fold(counts, labels, np.arange(n), seed)
    scores = out_of_fold(counts, labels, groups, seed)
    plain, grouped = auc(labels, plain_scores), auc(labels, scores)
    draws = auc_draws(labels, scores, groups, seed)
    low, high = interval95(draws)
    # Two chances each. Rows of one image tell of one another, where folds split them.
    named = not guess.may_tell and (
        gives_away(grouped, draws, labels, 2 * of)
        or (
            guess.grouping != IMAGE
            and plain > NAMED
            and gives_away(plain, auc_draws(labels, plain_scores, groups, seed), labels, 2 * of)
        )
    )
    values = [value for value in alone if value is not None]
    return Probe(
        guess.probe,
        guess.target,
        n,
        ones,
        round(plain, 3),
        round(grouped, 3),
        guess.grouping,
        low,
        high,
        _information(values, labels) if len(values) == n else None,
        named,
        _top(counts, labels),
        "",
    )


def enough(labels: Bools, groups: Ints) -> str:
    """Why nothing can be guessed of so few rows; empty where they are enough."""
    ones = int(labels.sum())
    few = min(ones, len(labels) - ones)
    if few < LEAST:
        return f"{few} rows of the rarer class, {LEAST} are needed"
    if len(np.unique(groups[labels])) < FOLDS or len(np.unique(groups[~labels])) < FOLDS:
        return f"fewer than {FOLDS} groups of a class"
    return ""


def gives_away(value: float, draws: Floats, labels: Bools, of: int) -> bool:
    """Whether an AUC is to be named: above .60, and above .5 by more than chance.

    The standard error is that of the bootstrap, or of an AUC without ties where there is nothing to tell
    (Mann and Whitney 1947), whichever is larger: few rows that happen to be sorted well spread little when
    they are drawn again.

    Args:
        value: the AUC.
        draws: its bootstrap.
        labels: what was guessed.
        of: how many are looked at together, so that of a set without any leak one in forty names one.
    """
    if not draws.size:
        return False
    ones = int(labels.sum())
    chance = math.sqrt((len(labels) + 1) / (12 * ones * (len(labels) - ones)))
    error = max(float(draws.std()), chance)
    return value > NAMED and value - NormalDist().inv_cdf(1 - 0.025 / of) * error > 0.5


def out_of_fold(counts: Terms, labels: Bools, groups: Ints, seed: int) -> Floats:
    """P(unsafe) of each row by a logistic regression on TF-IDF that saw no row of its group.

    Args:
        counts: terms of each row.
        labels: whether each is unsafe.
        groups: rows of equal number stay in one fold.
        seed: of the folds.

    Returns:
        P(unsafe), 0..1; .5 where the other folds hold one label alone.
    """
    return held_out(
        labels, groups, seed, lambda train, known, test: TextModel(counts, train, known).predict(test)
    )


def _top(counts: Terms, labels: Bools) -> list[str]:
    # Rounded, so that words that weigh the same come by their names on any machine.
    weights = TextModel(counts, np.arange(len(labels)), labels).w.round(6)
    order = sorted(range(len(weights)), key=lambda i: (-weights[i], counts.names[i]))
    chosen = [i for i in order[:TOP] if weights[i] > 0] + [i for i in order[::-1][:TOP] if weights[i] < 0]
    return [f"{counts.names[i]} {weights[i]:+.2f}" for i in chosen]


def _information(values: Sequence[str], labels: Bools) -> float:
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


def terms(text: str) -> list[str]:
    """Its words and pairs of neighbours, in small letters."""
    words = _words(text)
    return words + [f"{a} {b}" for a, b in pairwise(words)]


def _query(row: Row) -> list[str]:
    return terms(row["query"])


def _length(row: Row) -> list[str]:
    return [f"length={_bucket(len(_words(row['query'])))}"]


def _opening(row: Row) -> list[str]:
    return ["opening=" + " ".join(_words(row["query"])[:2])]


def _template(row: Row) -> list[str]:
    return [f"template={row['scene']}"]


def _source(parts: Sequence[str], row: Row) -> list[str]:
    return [f"{part}={_part(row, part)}" for part in parts]


OF_QUERIES = {"query": _query, "query length": _length, "opening words": _opening}


def _bucket(n: int) -> str:
    return str(n) if n < 30 else "30 or more"


def _part(row: Row, part: str) -> str:
    value = row[part]
    if part == "bytes":
        # By doublings: the number itself would name the file.
        return str(int(value).bit_length())
    return sha256_text(value)[:12] if len(str(value)) > 80 else str(value)
