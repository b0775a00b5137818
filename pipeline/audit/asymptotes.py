"""Label noise from where a curve levels off: a logistic curve with a floor and a ceiling.

Of rows whose true label the features tell for sure, the share that is labelled the other way is noise. The
share labelled unsafe is fitted as a curve of the features' score x,

    P(given unsafe | x) = e0 + (1 - e0 - e1) / (1 + exp(-(a x + b))),

whose floor e0 is how often what is safe is given as unsafe and whose ceiling 1 - e1 leaves how often what
is unsafe is given as safe; between them the curve is the true label's probability. As the psychometric
function with guesses and lapses it is an old model (Wichmann and Hill 2001); that noise can be told where
some rows are sure, and only there, is shown by Scott, Blanchard and Handy (2013) and by Liu and Tao (2016).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.audit.judging import Bools, Floats, Ints

__all__ = ["Binned", "Curves", "binned", "fitted"]

BINS = 100
ROUNDS = 60
CLOSE = 1e-5
"""Gain in log likelihood below which a round counts for nothing."""
IDLE = 3
"""Such rounds that end the fit."""
EDGE = 0.5
"""Pseudo-counts that keep floor and ceiling off their ends, 0 and .5."""
SLOPE = (1.0, 1.0)
"""Mean and deviation of the slope's logarithm, x having variance 1: of scores that sort two classes with an
AUC of .85 to .98 it is 0.6 to 1.6."""
MIDDLE = 3.0
"""Deviation of the constant."""
START = (-2.2, -2.2, 1.0, 0.0)


@dataclass(frozen=True)
class Binned:
    """Rows in bins of equal size by score.

    Attributes:
        place: the bin of each row.
        x: the mean score of each bin; the rows' scores have mean 0 and variance 1.
    """

    place: Ints
    x: Floats

    def counts(self, unsafe: Bools, times: Floats | None = None) -> tuple[Floats, Floats]:
        """Of each bin, how many rows are given as unsafe and as safe, each counted so many `times`."""
        size = len(self.x)
        all_ = np.bincount(self.place, times, size)
        ones = np.bincount(self.place, unsafe if times is None else unsafe * times, size)
        return ones.astype(np.float64), (all_ - ones).astype(np.float64)


def binned(scores: Floats) -> Binned:
    """Sort rows into bins."""
    spread = float(scores.std())
    x = (scores - scores.mean()) / (spread if spread > 0 else 1.0)
    size = min(BINS, len(x))
    place = np.empty(len(x), np.int64)
    place[np.argsort(x, kind="stable")] = np.arange(len(x)) * size // max(1, len(x))
    return Binned(place, np.bincount(place, x, size) / np.bincount(place, minlength=size))


@dataclass(frozen=True)
class Curves:
    """Curves that were fitted, one a sample.

    Attributes:
        floor: e0, 0...5.
        ceiling: e1, 0...5.
        log_likelihood: of the counts.
    """

    floor: Floats
    ceiling: Floats
    log_likelihood: Floats
    parameters: Floats

    def truth(self, x: Floats) -> Floats:
        """P(truly unsafe) at scores, by the first curve."""
        return _sigmoid(np.exp(self.parameters[0, 2]) * x + self.parameters[0, 3])


def fitted(
    x: Floats, ones: Floats, zeros: Floats, *, level: bool = True, start: Curves | None = None
) -> Curves:
    """Fit a curve to each sample, by penalised likelihood (Fisher scoring, damped as by Levenberg).

    Args:
        x: scores of the bins.
        ones: rows given as unsafe, samples x bins.
        zeros: rows given as safe.
        level: whether the curve may level off; else floor and ceiling are 0.
        start: a fit to start from.
    """
    samples, every = len(ones), range(4)
    at = np.tile(np.asarray(START) if start is None else start.parameters[0], (samples, 1))
    damping = np.full(samples, 1e-2)
    value, rows = _objective(at, x, ones, zeros, level), ones + zeros
    idle = 0
    for _ in range(ROUNDS):
        q0, q1, slope, g, p = _parts(at, x, level)
        height = 1 - 0.5 * (q0 + q1)
        rise = height * g * (1 - g)
        d = np.stack([0.5 * q0 * (1 - q0) * (1 - g), -0.5 * q1 * (1 - q1) * g, rise * slope * x, rise], -1)
        if not level:
            d[..., :2] = 0
        uncertainty = p * (1 - p)
        gradient = np.einsum("sbi,sb->si", d, (ones - rows * p) / uncertainty)
        curvature = (d * (rows / uncertainty)[..., None]).transpose(0, 2, 1) @ d
        pull, stiffness = _penalty_slopes(at, level)
        gradient += pull
        curvature[:, every, every] += stiffness
        curvature[:, every, every] *= 1 + damping[:, None]
        step = np.linalg.solve(curvature, gradient[..., None])[..., 0]
        tried = at + np.clip(step, -2, 2)
        new = _objective(tried, x, ones, zeros, level)
        better = new >= value
        gain = float(np.where(better, new - value, 0).max(initial=0))
        at, value = np.where(better[:, None], tried, at), np.where(better, new, value)
        damping = np.where(better, damping / 4, damping * 8)
        idle = idle + 1 if gain < CLOSE else 0
        if idle == IDLE:
            break
    q0, q1, _, _, p = _parts(at, x, level)
    likelihood = (ones * np.log(p) + zeros * np.log(1 - p)).sum(1)
    return Curves(0.5 * q0[:, 0], 0.5 * q1[:, 0], likelihood, at)


def _parts(at: Floats, x: Floats, level: bool) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Twice the floor and the ceiling, the slope, the logistic part, and the share given as unsafe."""
    q0, q1 = (_sigmoid(at[:, i : i + 1]) if level else np.zeros((len(at), 1)) for i in (0, 1))
    slope = np.exp(at[:, 2:3])
    g = _sigmoid(slope * x + at[:, 3:4])
    p = 0.5 * q0 + (1 - 0.5 * (q0 + q1)) * g
    return q0, q1, slope, g, np.clip(p, 1e-9, 1 - 1e-9)


def _objective(at: Floats, x: Floats, ones: Floats, zeros: Floats, level: bool) -> Floats:
    q0, q1, _, _, p = _parts(at, x, level)
    penalty = ((at[:, 2] - SLOPE[0]) / SLOPE[1]) ** 2 / 2 + (at[:, 3] / MIDDLE) ** 2 / 2
    if level:
        for q in (q0[:, 0], q1[:, 0]):
            penalty = penalty - EDGE * np.log(np.maximum(q * (1 - q), 1e-300))
    return np.asarray((ones * np.log(p) + zeros * np.log(1 - p)).sum(1) - penalty, np.float64)


def _penalty_slopes(at: Floats, level: bool) -> tuple[Floats, Floats]:
    """What the penalties add to the gradient and to the curvature."""
    pull, stiffness = np.zeros_like(at), np.ones_like(at)
    if level:
        q = _sigmoid(at[:, :2])
        pull[:, :2], stiffness[:, :2] = EDGE * (1 - 2 * q), 2 * EDGE * q * (1 - q) + 1e-9
    pull[:, 2], stiffness[:, 2] = (SLOPE[0] - at[:, 2]) / SLOPE[1] ** 2, 1 / SLOPE[1] ** 2
    pull[:, 3], stiffness[:, 3] = -at[:, 3] / MIDDLE**2, 1 / MIDDLE**2
    return pull, stiffness


def _sigmoid(z: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(z, -35, 35))), np.float64)
