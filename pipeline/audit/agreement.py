"""Agreement between annotators, always with raw agreement and prevalence beside the coefficient."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from pipeline.intervals import wilson

__all__ = ["PairwiseAgreement", "confusion", "pairwise"]


@dataclass(frozen=True, slots=True)
class PairwiseAgreement:
    """How two annotators agree on the items that both answered.

    Attributes:
        a: one annotator.
        b: the other.
        n: items both answered.
        raw: share of equal answers, with its 95 % Wilson interval `low` to `high`; None without items.
        ac1: Gwet's AC1; None without items.
        kappa: Cohen's kappa; None where both always gave one and the same answer.
        prevalence: mean share of answers other than "safe".
    """

    a: str
    b: str
    n: int
    raw: float | None
    low: float | None
    high: float | None
    ac1: float | None
    kappa: float | None
    prevalence: float | None


def pairwise(votes: Iterable[Mapping[str, Any]], question: str) -> list[PairwiseAgreement]:
    """Agreement of each two annotators on `question`."""
    given: dict[str, dict[str, str]] = defaultdict(dict)
    for vote in votes:
        if vote["question"] == question and vote["status"] == "ok":
            given[vote["annotator"]][vote["item_id"]] = vote["value"]
    return [_pair(a, b, given[a], given[b]) for a, b in combinations(sorted(given), 2)]


def _pair(a: str, b: str, of_a: Mapping[str, str], of_b: Mapping[str, str]) -> PairwiseAgreement:
    import numpy as np

    from pipeline.agreement import Seen, cells_of, cohen, gwet, patterns_of, raw, sums

    items = sorted(of_a.keys() & of_b.keys())
    n = len(items)
    if n == 0:
        return PairwiseAgreement(a, b, 0, None, None, None, None, None, None)
    said = [of[i] for of in (of_a, of_b) for i in items]
    values, code = np.unique(said, return_inverse=True)
    cells = cells_of(code[:n], code[n:], len(values))
    (kappa,) = cohen(cells, cells.items[None, :].astype(np.float64))
    patterns = patterns_of(np.tile(np.arange(n), 2), code, len(values))
    found = sums(Seen(patterns), patterns.items[None, :].astype(np.float64))
    low, high = wilson(sum(of_a[i] == of_b[i] for i in items), n)
    # A question has two answers or more, though only one may have been given.
    (ac1,) = gwet(found, max(len(values), 2))
    return PairwiseAgreement(
        a,
        b,
        n,
        round(float(raw(found)[0]), 4),
        round(low, 4),
        round(high, 4),
        round(float(ac1), 4),
        None if np.isnan(kappa) else round(float(kappa), 4),
        round(1 - said.count("safe") / len(said), 4),
    )


def confusion(
    votes: Iterable[Mapping[str, Any]], question: str, outcome: Mapping[str, str], order: Sequence[str]
) -> dict[str, dict[str, dict[str, int]]]:
    """For each annotator of `question`: how often it said what, by the label that was given in the end.

    Args:
        votes: vote rows.
        question: the question.
        outcome: label by item id.
        order: values in the order to show; further ones and statuses come after.

    Returns:
        annotator -> label -> answer (or status, where it gave none) -> count.
    """
    table: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for vote in votes:
        if vote["question"] == question and vote["item_id"] in outcome:
            answer = vote["value"] if vote["status"] == "ok" else vote["status"]
            table[vote["annotator"]][outcome[vote["item_id"]]][answer] += 1

    def rank(value: str) -> tuple[int, str]:
        return (order.index(value) if value in order else len(order)), value

    return {
        name: {
            label: {answer: counts[answer] for answer in sorted(counts, key=rank)}
            for label, counts in sorted(by_label.items(), key=lambda kv: rank(kv[0]))
        }
        for name, by_label in sorted(table.items())
    }
