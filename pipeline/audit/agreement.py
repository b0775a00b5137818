"""Agreement between annotators, always with raw agreement and prevalence beside the coefficient."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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
        ac1: Gwet's AC1 (Gwet 2008, formula 4 for two raters); None where it is not defined.
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
    names = sorted(given)
    return [_pair(a, b, given[a], given[b]) for i, a in enumerate(names) for b in names[i + 1 :]]


def _pair(a: str, b: str, of_a: Mapping[str, str], of_b: Mapping[str, str]) -> PairwiseAgreement:
    items = sorted(of_a.keys() & of_b.keys())
    n = len(items)
    if n == 0:
        return PairwiseAgreement(a, b, 0, None, None, None, None, None, None)
    equal = sum(of_a[i] == of_b[i] for i in items)
    low, high = wilson(equal, n)
    counts_a, counts_b = Counter(of_a[i] for i in items), Counter(of_b[i] for i in items)
    values = sorted(counts_a.keys() | counts_b.keys())
    raw = equal / n
    shares = {v: (counts_a[v] + counts_b[v]) / (2 * n) for v in values}
    by_chance_ac1 = sum(p * (1 - p) for p in shares.values()) / (len(values) - 1) if len(values) > 1 else 0.0
    by_chance_kappa = sum(counts_a[v] * counts_b[v] for v in values) / (n * n)
    return PairwiseAgreement(
        a,
        b,
        n,
        round(raw, 4),
        round(low, 4),
        round(high, 4),
        round((raw - by_chance_ac1) / (1 - by_chance_ac1), 4),
        None if by_chance_kappa == 1 else round((raw - by_chance_kappa) / (1 - by_chance_kappa), 4),
        round(1 - shares.get("safe", 0.0), 4),
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
