"""Labels from votes, with how far each family can be trusted: Dawid and Skene (1979) for two values.

Everybody's sensitivity and specificity and every item's P(unsafe) are estimated together, by expectation and
maximisation, from the votes alone. A family counts once: the scores of its members on an item are averaged,
and its vote is the side that the mean is on. Two pseudo-votes a side, right in four of five, keep few votes
from proving much and break the tie between a panel and its mirror image.

An annotator that says the same of everything, or anything of anything, is found to tell nothing and then
counts for nothing: its likelihoods are the same on both sides.

It takes three families: where two differ, votes do not tell who is right. Of two families the calibrated
scores are averaged: on the votes of a build by two, no way to estimate their reliability from the votes gave
better labels of images or texts than the mean did (docs/quality.md).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.annotators.base import PEOPLE, Vote
from pipeline.annotators.dawid_skene import estimate
from pipeline.intervals import Z95

__all__ = ["Posterior", "Reliability", "effective_number", "left_out", "posteriors"]

Floats = NDArray[np.float64]
Finding = Literal["", "always safe", "always unsafe", "tells nothing", "mostly fails"]
"""`tells nothing`: sensitivity + specificity - 1 is not above 0, by its 95 % interval."""

SAME = 0.98
"""Share of one value from which a family says the same of everything."""
FEW = 20
"""Votes below which nobody is judged."""
FAMILIES = 3
"""Families below which votes do not tell who is right."""


@dataclass(frozen=True, slots=True)
class Posterior:
    """What the votes on one item say together.

    Attributes:
        p_unsafe: P(unsafe), 0..1, rounded to three places; None where nobody could score the item.
        agreement: share of the families that voted whose own vote is on that side; None as above.
        n: how many families voted.
    """

    p_unsafe: float | None
    agreement: float | None
    n: int


@dataclass(frozen=True, slots=True)
class Reliability:
    """How far the votes of one family can be trusted.

    Attributes:
        family: the lineage of weights.
        annotators: the names under which it voted.
        n: items it scored.
        failed: items that it was asked about and gave no answer for, or none that could be used. An item
            that does not hold what it judges by is no failure.
        sensitivity: how often it says unsafe of what is unsafe; None where votes cannot tell.
        specificity: how often it says safe of what is safe; None where votes cannot tell.
        finding: what is wrong with it; empty where nothing is.
    """

    family: str
    annotators: tuple[str, ...]
    n: int
    failed: int
    sensitivity: float | None
    specificity: float | None
    finding: Finding

    @property
    def informedness(self) -> float | None:
        """Youden's J: sensitivity + specificity - 1; 0 where votes tell nothing."""
        if self.sensitivity is None or self.specificity is None:
            return None
        return round(self.sensitivity + self.specificity - 1, 3)


def posteriors(
    votes: Iterable[Vote], threshold: float = 0.5
) -> tuple[dict[str, Posterior], list[Reliability]]:
    """Every item's posterior, and every family's reliability.

    Args:
        votes: all votes on one `…_safe` question, whatever their status.
        threshold: P(unsafe) from which a family's vote, or an item, counts as unsafe.

    Returns:
        Posteriors by item, in the order in which items first came; reliabilities by family, in order.

    Raises:
        ValueError: when votes are on several questions.
    """
    table = _Table.of(votes, threshold)
    answered = table.answered
    model = _fit(table) if table.enough else None
    found = {}
    for row, item in enumerate(table.items):
        own = table.scores[row][answered[row]]
        if own.size:
            p = round(float(own.mean() if model is None else model.truth[row]), 3)
            agreement = float(((own >= threshold) == (p >= threshold)).mean())
            found[item] = Posterior(p, round(agreement, 3), own.size)
        else:
            found[item] = Posterior(None, None, 0)
    told = []
    for column, family in enumerate(table.families):
        n = int(answered[:, column].sum())
        sides = [round(float(r), 3) for r in model.right[column]] if model and n else [None, None]
        names, failed = table.annotators[family], table.failed[family]
        finding = _finding(table, model, column)
        told.append(Reliability(family, names, n, failed, sides[0], sides[1], finding))
    return found, told


def left_out(votes: Iterable[Vote], threshold: float = 0.5) -> dict[str, tuple[float, float]]:
    """Between what P(unsafe) of each item moves when one family, whichever, is not heard.

    Args:
        votes: all votes on one `…_safe` question, whatever their status.
        threshold: P(unsafe) from which a family's vote counts as unsafe.

    Returns:
        The lowest and the highest, by item; items that fewer than two families scored are not in it.

    Raises:
        ValueError: when votes are on several questions.
    """
    table = _Table.of(votes, threshold)
    answered = table.answered
    count = answered.sum(1)
    if table.enough:
        model = _fit(table)
        without = _probability(model.odds[:, None] - model.parts)
    else:
        known = np.nan_to_num(table.scores)
        without = (known.sum(1, keepdims=True) - known) / np.maximum(count - 1, 1)[:, None]
    low, high = np.where(answered, without, 1.0).min(1), np.where(answered, without, 0.0).max(1)
    return {
        item: (float(low[row]), float(high[row])) for row, item in enumerate(table.items) if count[row] > 1
    }


def effective_number(votes: Iterable[Vote]) -> float | None:
    """How many independent families the panel is worth: n / (1 + (n - 1) r).

    r is the mean correlation of two families' errors, that is of what their votes leave unexplained by the
    posterior (the design effect of Kish 1965, section 5.4). Families without spread take no part. It is an
    upper bound: errors that most families share look like the truth.

    Returns:
        None where fewer than three families have voted on enough items.
    """
    table = _Table.of(votes)
    if not table.enough:
        return None
    model, answered = _fit(table), table.answered
    truth, right = model.truth[:, None], model.right
    errors = table.votes - (truth * right[:, 0] + (1 - truth) * (1 - right[:, 1]))
    found = []
    for a in range(errors.shape[1]):
        for b in range(a + 1, errors.shape[1]):
            both = answered[:, a] & answered[:, b]
            if both.sum() >= FEW and errors[both, a].std() > 0 and errors[both, b].std() > 0:
                found.append(float(np.corrcoef(errors[both, a], errors[both, b])[0, 1]))
    if not found:
        return None
    families = int((answered.sum(0) >= FEW).sum())
    shared = max(0.0, sum(found) / len(found))
    return float(round(families / (1 + (families - 1) * shared), 2))


@dataclass(frozen=True)
class _Table:
    """Votes as a table: NaN where a family gave no score."""

    items: list[str]
    families: list[str]
    scores: Floats
    failed: dict[str, int]
    annotators: dict[str, tuple[str, ...]]
    threshold: float

    @property
    def answered(self) -> NDArray[np.bool_]:
        return ~np.isnan(self.scores)

    @property
    def votes(self) -> Floats:
        """1 for unsafe, 0 for safe."""
        return np.where(self.answered, (self.scores >= self.threshold).astype(float), np.nan)

    @property
    def enough(self) -> bool:
        """Whether votes can tell who is right."""
        return int((self.answered.sum(0) >= FEW).sum()) >= FAMILIES

    @classmethod
    def of(cls, votes: Iterable[Vote], threshold: float = 0.5) -> _Table:
        given: dict[tuple[str, str], list[float]] = defaultdict(list)
        broken: dict[tuple[str, str], None] = {}
        names: dict[str, set[str]] = defaultdict(set)
        items: dict[str, int] = {}
        questions = set()
        for v in votes:
            questions.add(v.question)
            items.setdefault(v.item_id, len(items))
            if v.status in ("error", "blocked"):
                broken[v.item_id, v.family] = None
            names[v.family].add(v.annotator)
            if v.status == "ok" and v.score is not None:
                given[v.item_id, v.family].append(v.score)
        if len(questions) > 1:
            raise ValueError(f"votes on {', '.join(sorted(questions))}: aggregate one question at a time")
        families = sorted(names)
        scores = np.full((len(items), len(families)), np.nan)
        for (item, family), values in given.items():
            scores[items[item], families.index(family)] = sum(values) / len(values)
        failed = dict.fromkeys(families, 0)
        for item, family in broken:
            failed[family] += (item, family) not in given
        named = {f: tuple(sorted(names[f])) for f in families}
        return cls(list(items), families, scores, failed, named, threshold)


@dataclass(frozen=True)
class _Model:
    """What was estimated: log odds of each item, what each family's vote adds to them, and reliabilities."""

    odds: Floats
    parts: Floats
    right: Floats

    @property
    def truth(self) -> Floats:
        return _probability(self.odds)


def _probability(odds: Floats) -> Floats:
    probability: Floats = 1 / (1 + np.exp(-odds))
    return probability


def _fit(table: _Table) -> _Model:
    answered, votes = table.answered, np.nan_to_num(table.votes)
    item, family = np.nonzero(answered)
    value = votes[item, family].astype(np.int64)
    items, families = answered.shape
    found = estimate(item, family, value, items, families, 2)
    right = np.stack([found.matrices[:, 1, 1], found.matrices[:, 0, 0]], axis=1)
    speaks = np.log(found.matrices[:, 1] / found.matrices[:, 0])
    parts = answered * (votes * speaks[:, 1] + (1 - votes) * speaks[:, 0])
    return _Model(found.odds[:, 1], parts, right)


def _finding(table: _Table, model: _Model | None, column: int) -> Finding:
    """What is wrong with a family, by the votes of the others: its own would vouch for it.

    People are not judged: they look at the items that somebody picked for them.
    """
    if table.families[column].startswith(PEOPLE):
        return ""
    votes, answered = table.votes, table.answered
    mine = answered[:, column]
    own, failed = votes[mine, column], table.failed[table.families[column]]
    if own.size + failed >= FEW and failed > own.size:
        return "mostly fails"
    if own.size < FEW:
        return ""
    unsafe, of_all = float(own.mean()), float(votes[answered].mean())
    if unsafe <= 1 - SAME < of_all:
        return "always safe"
    if unsafe >= SAME > of_all:
        return "always unsafe"
    judged = mine & (answered.sum(1) >= FAMILIES)
    if model is None or judged.sum() < FEW:
        return ""
    own = votes[judged, column]
    truth = _probability((model.odds - model.parts[:, column])[judged])
    counts = float(truth.sum()) + 1, float((1 - truth).sum()) + 1
    right = float((truth * own).sum()) + 0.5, float(((1 - truth) * (1 - own)).sum()) + 0.5
    rates = right[0] / counts[0], right[1] / counts[1]
    spread = sum(p * (1 - p) / n for p, n in zip(rates, counts, strict=True))
    return "tells nothing" if sum(rates) - 1 <= Z95 * spread**0.5 else ""
