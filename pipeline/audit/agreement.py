"""Agreement between annotators, always with raw agreement and prevalence beside the coefficient."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from pipeline.intervals import wilson

__all__ = ["PairwiseAgreement", "pairwise"]


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
