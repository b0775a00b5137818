"""Label noise: how many labels are wrong, and which ones most likely.

Both come from what a label does not know of itself: probabilities by models that did not see the row, and
votes. Confident learning (Northcutt, Jiang and Chuang 2021, section 3.1) counts rows whose probability of
another label is as high as that of the rows that have it. That finds suspects, but as an estimate of how many
labels are wrong it counts the features' own mistakes too: with 5 % of wrong labels and features of an AUC of
.85 it says 18 %. The rate is therefore read where the features are sure (asymptotes.py), and where they are
sure of too little there is none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from pipeline.annotators.base import Vote
from pipeline.annotators.reliability import left_out, posteriors
from pipeline.audit.asymptotes import Binned, Curves, binned, fitted
from pipeline.audit.judging import Bools, Floats, Ints, auc, auc_draws

__all__ = [
    "ClassNoise",
    "NoiseRate",
    "Suspect",
    "both",
    "confident_joint",
    "evidence",
    "ideal_recall",
    "noise_rate",
    "ranked",
    "recall_at_top",
    "suspects",
    "vote_evidence",
]

LEAST = 50
"""Rows of each label below which no rate is estimated."""
VALUES = 10
"""Different scores below which no curve is fitted."""
TELLS = 0.60
"""The lower end of the AUC's interval, up to which features tell too little of a label."""
SURE = 0.025
"""P of being the other label, times the share of rows that are sure, up to which the features are sure of a
row: what doubt is left adds no more than this to the rate."""
SURE_SHARE = 0.15
"""Share of a label's rows that the features must be sure of."""
DRAWS = 200
LEVELS_OFF = 4.23
"""Twice the gain in log likelihood above which a floor or ceiling is proven: the 95 % point where two
parameters are at the edge, a quarter of chi-squared with two degrees of freedom and half of one with one
(Self and Liang 1987, case 7)."""
TIGHT = 1e-6
"""Probabilities are kept this far from 0 and 1, and ranked to as many places."""


@dataclass(frozen=True, slots=True)
class ClassNoise:
    """How many of the rows that are given one label are wrong.

    Attributes:
        given: the label.
        n: rows that have it.
        wrong: share of them that should not, 0..1.
        low: its 95 % interval.
        high: its other end.
    """

    given: int
    n: int
    wrong: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class NoiseRate:
    """How many labels are wrong.

    Attributes:
        n: rows.
        rate: share of the labels that is wrong, 0..1; None with a `reason`.
        low: its 95 % interval, by drawing groups of rows again; None as above.
        high: its other end; None as above.
        confident: what confident learning says; it counts the features' mistakes too. None without rows.
        auc: of the features, of the label that they tell worst against the rest, as given; None where one
            label is alone.
        by_class: by given label; empty where there is no rate.
        reason: why there is no rate; empty where there is one.
    """

    n: int
    rate: float | None
    low: float | None
    high: float | None
    confident: float | None
    auc: float | None
    by_class: tuple[ClassNoise, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Suspect:
    """A label that may be wrong.

    Attributes:
        index: the row's place in what was given.
        given: its label.
        likely: the label that the evidence speaks for most, of the others.
        p_given: P(the given label is right), by the evidence, 0..1.
        margin: the normalised margin, (p_given - P(likely) + 1) / 2; suspects come by it, smallest first.
        confident: whether confident learning calls it wrong.
    """

    index: int
    given: int
    likely: int
    p_given: float
    margin: float
    confident: bool


def confident_joint(labels: Bools | Ints, probabilities: Floats) -> tuple[Ints, Ints]:
    """Count given against confident labels (Northcutt, Jiang and Chuang 2021, equation 1).

    A row counts for a label when its probability is at least the mean over the rows that are given it; of
    several such labels, for the likeliest.

    Args:
        labels: given labels, from 0.
        probabilities: out of fold, rows x labels.

    Returns:
        Counts, given x confident, at least 1 on the diagonal, and the places of the rows off the diagonal.
    """
    given, p = _checked(labels, probabilities)
    k = p.shape[1]
    count = np.bincount(given, minlength=k)
    own = np.bincount(given, p[np.arange(len(p)), given], k)
    # Nobody is confident of a label that no row has.
    thresholds = np.where(count > 0, np.maximum(own / np.maximum(count, 1), 2e-6), 2.0)
    above = p >= thresholds - 1e-6
    guess = np.where(above.sum(1) > 1, p.argmax(1), above.argmax(1))
    sure = above.any(1)
    joint = np.bincount(given[sure] * k + guess[sure], minlength=k * k).reshape(k, k)
    np.fill_diagonal(joint, np.maximum(joint.diagonal(), 1))
    return joint.astype(np.int64), np.flatnonzero(sure & (guess != given))


def noise_rate(
    labels: Bools | Ints, probabilities: Floats, groups: Ints | None = None, seed: int = 0
) -> NoiseRate:
    """Estimate how many labels are wrong.

    It assumes that whether a label is wrong depends on the true label alone, that some rows of each label are
    such that the features are sure of them, and that P(true label) is a logistic function of the logit of
    the probability given, which mends their scale: they need not be calibrated. Labels that are wrong just
    where the features err, as those of a model with the same blind spot are, are not found. Of more than two
    labels each is set against the rest.

    On simulated rows (5,000, two normal classes) with 5 % flipped, the estimate is within .02 of that and the
    interval holds it some 95 times of a hundred, from an AUC of .90 on; below about .85 there is none, and
    between the two the estimate leans to the high side, by .01 to .02. Features with heavy tails level off by
    themselves and are taken for noise (of Student's t with five degrees of freedom, .08 in place of .05).

    Args:
        labels: given labels, from 0.
        probabilities: out of fold, rows x labels.
        groups: rows of equal number are drawn together; None: each by itself.
        seed: of the draws.
    """
    given, p = _checked(labels, probabilities)
    n, k = p.shape
    if not n:
        return NoiseRate(0, None, None, None, None, None, (), "no rows")
    joint, _ = confident_joint(given, p)
    confident = round(_off_diagonal(joint, np.bincount(given, minlength=k)), 4)
    named = np.arange(n) if groups is None else groups
    sides = [1] if k == 2 else list(range(k))
    fits, told, reason = [], [], ""
    for c in sides:
        side = given == c
        few = int(min(side.sum(), n - side.sum()))
        if few:
            told.append(auc(side, p[:, c]))
        reason = reason or _too_little(side, p[:, c], named, seed)
        if not reason:
            fits.append(_fit(side, p[:, c]))
            reason = _unsure(fits[-1], both_ends=k == 2)
        if reason and k > 2:
            reason = f"label {c}: {reason}"
        if reason:
            break
    worst = round(min(told), 3) if told else None
    if reason:
        return NoiseRate(n, None, None, None, confident, worst, (), reason)
    found = _wrong([(f.curve, f.side.mean(keepdims=True)) for f in fits])
    draws = _drawn(fits, named, seed)
    proven = any(f.gain > LEVELS_OFF for f in fits)
    count = np.bincount(given, minlength=k)
    by_class = []
    for c in range(k):
        share = count[c] / n
        low, high = np.quantile(np.minimum(draws[:, c] / share, 1), [0.025, 0.975])
        wrong = min(float(found[0, c] / share), 1.0)
        by_class.append(
            ClassNoise(c, int(count[c]), *(round(float(v), 4) for v in (wrong, low if proven else 0.0, high)))
        )
    low, high = np.quantile(draws.sum(1), [0.025, 0.975])
    rate = float(found.sum())
    return NoiseRate(
        n,
        round(rate, 4),
        round(min(float(low), rate), 4) if proven else 0.0,
        round(max(float(high), rate), 4),
        confident,
        worst,
        tuple(by_class),
        "",
    )


@dataclass(frozen=True)
class _Fit:
    """A curve of one label against the rest; `gain` is twice what levelling off gains in log likelihood."""

    side: Bools
    bins: Binned
    curve: Curves
    gain: float


def _fit(side: Bools, p: Floats) -> _Fit:
    bins = binned(_logit(p))
    ones, zeros = (c[None] for c in bins.counts(side))
    curve = fitted(bins.x, ones, zeros)
    plain = fitted(bins.x, ones, zeros, level=False)
    gain = 2 * float(curve.log_likelihood[0] - plain.log_likelihood[0])
    return _Fit(side, bins, curve, gain)


def _too_little(side: Bools, p: Floats, groups: Ints, seed: int) -> str:
    """Why no curve can be fitted; empty where one can."""
    few = int(min(side.sum(), len(side) - side.sum()))
    if few < LEAST:
        return f"{few} rows of the rarer label, {LEAST} are needed"
    if len(np.unique(p.round(6))) < VALUES:
        return f"the features give fewer than {VALUES} different probabilities"
    draws = auc_draws(side, p, groups, seed)
    low = float(np.quantile(draws, 0.025)) if draws.size else 0.0
    if low <= TELLS:
        return f"the features tell too little of the label: an AUC of {auc(side, p):.2f}"
    return ""


def _unsure(fit: _Fit, both_ends: bool) -> str:
    """Why the curve does not show where it levels off; empty where it does."""
    truth = fit.curve.truth(fit.bins.x)
    ends = [(1 - truth, truth)]
    if both_ends:
        ends.append((truth, 1 - truth))
    for rows, other in ends:
        sure = rows[other <= min(SURE / rows.mean(), other.mean() / 4)].sum() / rows.sum()
        if sure < SURE_SHARE:
            return (
                f"the features are sure of {sure:.0%} of the rows of a label, {SURE_SHARE:.0%} are needed "
                "to tell noise from doubt"
            )
    return ""


def _wrong(sides: Sequence[tuple[Curves, Floats]]) -> Floats:
    """Share of all rows that is wrongly given each label, samples x labels.

    Args:
        sides: of each label against the rest, or of the second of two: curves, and shares given it.
    """
    found = []
    for curve, given in sides:
        e0, e1 = curve.floor, curve.ceiling
        true = np.clip((given - e0) / (1 - e0 - e1), 0, 1)
        if len(sides) == 1:
            found.append(true * e1)
        found.append((1 - true) * e0)
    return np.stack(found, 1)


def _drawn(fits: Sequence[_Fit], groups: Ints, seed: int) -> Floats:
    """What `_wrong` says when groups are drawn again."""
    _, group = np.unique(groups, return_inverse=True)
    number = int(group.max()) + 1
    random = np.random.default_rng(seed)
    counts: list[list[tuple[Floats, Floats]]] = [[] for _ in fits]
    for _ in range(DRAWS):
        times = np.bincount(random.integers(0, number, number), minlength=number)[group].astype(np.float64)
        for kept, fit in zip(counts, fits, strict=True):
            kept.append(fit.bins.counts(fit.side, times))
    sides = []
    for kept, fit in zip(counts, fits, strict=True):
        ones, zeros = (np.stack([c[i] for c in kept]) for i in (0, 1))
        sides.append((fitted(fit.bins.x, ones, zeros, start=fit.curve), ones.sum(1) / (ones + zeros).sum(1)))
    return _wrong(sides)


def _off_diagonal(joint: Ints, count: Ints) -> float:
    """Share off the diagonal when each label counts as often as it is given (equation 3 there)."""
    shares = joint / joint.sum(1, keepdims=True) * count[:, None] / count.sum()
    return float(shares.sum() - shares.trace())


def evidence(labels: Bools | Ints, features: Floats | None = None, votes: Floats | None = None) -> Floats:
    """P(true label) of each row by all that speaks of it but its label.

    Features and votes are taken to err independently: odds against the prior multiply. What the features
    give is put right by the curve of `noise_rate`, which takes the noise out that they learned.

    Args:
        labels: given labels, from 0.
        features: out of fold, rows x labels; NaN in a row of which nothing is seen.
        votes: P by the votes, rows x labels; NaN in a row without any.

    Returns:
        Rows x labels; the shares of the labels in a row of which nothing is known.
    """
    known = [m for m in (features, votes) if m is not None]
    k = known[0].shape[1] if known else max(2, int(np.max(labels, initial=0)) + 1)
    given = np.asarray(labels, np.int64)
    prior = (np.bincount(given, minlength=k) + 1) / (len(given) + k)
    log_odds = np.tile(np.log(prior), (len(given), 1))
    if features is not None:
        seen = np.isfinite(features).all(1)
        log_odds[seen] += np.log(_calibrated(*_checked(given[seen], features[seen]))) - np.log(prior)
    if votes is not None:
        told = np.isfinite(votes).all(1)
        p = np.clip(votes[told], 5e-4, None)
        log_odds[told] += np.log(p / p.sum(1, keepdims=True)) - np.log(prior)
    found = np.exp(log_odds - log_odds.max(1, keepdims=True))
    return np.asarray(found / found.sum(1, keepdims=True), np.float64)


def _calibrated(given: Ints, p: Floats) -> Floats:
    """P(true label) by the features: each label's curve without its floor and ceiling, where it has them."""
    k = p.shape[1]
    found = np.empty_like(p)
    for c in [1] if k == 2 else range(k):
        side = given == c
        if not side.any() or side.all():
            found[:, c] = side
            continue
        scores = _logit(p[:, c])
        bins = binned(scores)
        ones, zeros = (counts[None] for counts in bins.counts(side))
        curve = fitted(bins.x, ones, zeros)
        if _unsure(_Fit(side, bins, curve, 0.0), both_ends=k == 2):
            curve = fitted(bins.x, ones, zeros, level=False)
        spread = float(scores.std())
        found[:, c] = curve.truth((scores - scores.mean()) / (spread if spread > 0 else 1.0))
    if k == 2:
        found[:, 0] = 1 - found[:, 1]
    found = np.clip(found, TIGHT, 1 - TIGHT)
    return np.asarray(found / found.sum(1, keepdims=True), np.float64)


def vote_evidence(
    votes: Iterable[Vote], items: Sequence[str], made: Bools | None = None, threshold: float = 0.5
) -> Floats:
    """P(safe), P(unsafe) of items by the votes, as `evidence` takes it.

    Args:
        votes: on one `…_safe` question.
        items: the item of each row.
        made: where the votes made the label: whether it is unsafe. The votes then speak for it as far as they
            do without the family that speaks for it most: one family's error is not to vouch for itself.
        threshold: P(unsafe) from which a vote counts as unsafe.

    Returns:
        Rows x 2; NaN where nobody voted, or, where votes made the label, nobody else.
    """
    kept = list(votes)
    found = np.full(len(items), np.nan)
    if made is None:
        by_item, _ = posteriors(kept, threshold)
        for i, item in enumerate(items):
            p = by_item[item].p_unsafe if item in by_item else None
            found[i] = np.nan if p is None else p
    else:
        ranges = left_out(kept, threshold)
        for i, item in enumerate(items):
            ends = ranges.get(item)
            found[i] = np.nan if ends is None else ends[0] if made[i] else ends[1]
    return both(found)


def both(p_unsafe: Floats) -> Floats:
    """P(safe), P(unsafe)."""
    return np.column_stack([1 - p_unsafe, p_unsafe])


def suspects(
    labels: Bools | Ints,
    features: Floats | None = None,
    votes: Floats | None = None,
    limit: int | None = None,
) -> list[Suspect]:
    """Labels that may be wrong by features and votes (`evidence`), the likeliest first.

    A row of which nothing is known is none, however rare its label is.
    """
    if features is None and votes is None:
        return []
    known = np.any([np.isfinite(told).all(1) for told in (features, votes) if told is not None], axis=0)
    found = ranked(labels, evidence(labels, features, votes))
    return [suspect for suspect in found if known[suspect.index]][:limit]


def ranked(labels: Bools | Ints, probabilities: Floats, limit: int | None = None) -> list[Suspect]:
    """Labels by how little the probabilities speak for them, least first; equal ones in their order.

    Args:
        labels: given labels, from 0.
        probabilities: rows x labels.
        limit: how many to give; None: all.
    """
    given, p = _checked(labels, probabilities)
    rows = np.arange(len(p))
    own = p[rows, given]
    others = p.copy()
    others[rows, given] = -1
    likely = others.argmax(1)
    margin = ((own - others[rows, likely] + 1) / 2).round(6)
    _, off = confident_joint(given, p)
    wrong = np.zeros(len(p), bool)
    wrong[off] = True
    order = np.argsort(margin, kind="stable")[:limit]
    return [
        Suspect(
            int(i), int(given[i]), int(likely[i]), round(float(own[i]), 6), float(margin[i]), bool(wrong[i])
        )
        for i in order
    ]


def recall_at_top(found: Sequence[Suspect], wrong: Bools, top: float = 0.10) -> float | None:
    """Share of the wrong labels that is among the first `top` of all rows; None where none is wrong."""
    if not wrong.any():
        return None
    first = [s.index for s in found[: math.ceil(top * len(wrong))]]
    return float(wrong[first].sum() / wrong.sum())


def ideal_recall(
    value: float,
    flips: float = 0.05,
    top: float = 0.10,
    share: float = 0.5,
    n: int = 200_000,
    seed: int = 0,
) -> float:
    """How many flipped labels can be found with features of an AUC, at best, by simulation.

    The features of the two labels are normal with variance 1 and the distance that gives the AUC; rows are
    ranked by their true P(given label is wrong): nobody who knows the features alone does better.

    Args:
        value: the AUC, .5 to 1.
        flips: share of labels flipped, whichever they are.
        top: share of rows looked at.
        share: of unsafe rows.
        n: rows simulated.
        seed: of the simulation.
    """
    distance = math.sqrt(2) * NormalDist().inv_cdf(min(max(value, 0.5), 1 - 1e-9))
    random = np.random.default_rng(seed)
    unsafe = random.random(n) < share
    x = random.standard_normal(n) + np.where(unsafe, distance / 2, -distance / 2)
    wrong = random.random(n) < flips
    log_odds = distance * x + math.log(share / (1 - share))
    support = np.where(unsafe ^ wrong, log_odds, -log_odds)
    first = np.argsort(support, kind="stable")[: math.ceil(top * n)]
    return float(wrong[first].sum() / max(1, wrong.sum()))


def _logit(p: Floats) -> Floats:
    kept = np.clip(p, TIGHT, 1 - TIGHT)
    return np.asarray(np.log(kept / (1 - kept)), np.float64)


def _checked(labels: Bools | Ints, probabilities: Floats) -> tuple[Ints, Floats]:
    given, p = np.asarray(labels, np.int64), np.asarray(probabilities, np.float64)
    if p.ndim != 2 or len(p) != len(given) or p.shape[1] < 2:
        raise ValueError(
            f"probabilities of shape {p.shape} for {len(given)} labels; rows x labels are needed"
        )
    if len(given) and (given.min() < 0 or given.max() >= p.shape[1]):
        raise ValueError(f"labels {given.min()} to {given.max()}, with {p.shape[1]} columns of probabilities")
    if not np.isfinite(p).all():
        raise ValueError("probabilities that are no numbers")
    return given, p
