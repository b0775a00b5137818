"""Logistic regression with an L2 penalty and evenly weighted classes, on words and on numbers."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from pipeline.audit.judging import Bools, Floats, Ints

__all__ = ["NumberModel", "Terms", "TextModel"]

STEPS = 150
"""Steps of accelerated gradient descent on a convex loss."""
RIDGE = 1.0
LEAST_ROWS_OF_A_WORD = 2
FAR = 10.0
"""Standard deviations from the mean at which a number is cut off."""


class Terms:
    """How often each term stands in each row; rows of the same terms are of one kind and kept once."""

    def __init__(self, features: Iterable[Sequence[str]]) -> None:
        """Count.

        Args:
            features: the terms of each row; read once, and no row is kept.
        """
        kinds: dict[bytes, int] = {}
        numbers: dict[str, int] = {}
        of_rows, ends, terms, counts = array("q"), array("q", [0]), array("q"), array("d")
        for row in features:
            said = array("q", [numbers.setdefault(term, len(numbers)) for term in row])
            kind = kinds.setdefault(said.tobytes(), len(kinds))
            of_rows.append(kind)
            if kind == len(ends) - 1:  # the first of its kind
                counted = Counter(said)
                terms.extend(counted.keys())
                counts.extend(counted.values())
                ends.append(len(terms))
        self.kind = np.array(of_rows, np.int64)
        self.names = sorted(numbers)
        places = np.empty(len(numbers), np.int64)
        places[[numbers[term] for term in self.names]] = np.arange(len(numbers))
        self._ends = np.array(ends, np.int64)
        self._terms = places[np.array(terms, np.int64)]
        self._counts = np.array(counts, np.float64)

    def of(self, kinds: Ints) -> tuple[Ints, Ints, Floats]:
        """The entries of some kinds: the place of each one's kind among them, its term and its count."""
        starts, sizes = self._ends[kinds], self._ends[kinds + 1] - self._ends[kinds]
        row = np.repeat(np.arange(len(kinds)), sizes)
        at = np.arange(len(row)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + np.repeat(starts, sizes)
        return row, self._terms[at], self._counts[at]


class TextModel:
    """On TF-IDF rows of length 1."""

    def __init__(self, terms: Terms, rows: Ints, labels: Bools) -> None:
        """Fit.

        Args:
            terms: of all rows.
            rows: those to learn from.
            labels: whether each of them is unsafe; both must occur.
        """
        self._terms = terms
        kinds, place = np.unique(terms.kind[rows], return_inverse=True)
        ones, all_ = np.bincount(place, labels), np.bincount(place)
        n, width = len(kinds), len(terms.names)
        seen = _seen(terms, kinds, all_, width)
        # A word of too few rows weighs nothing.
        self._idf = np.where(seen >= LEAST_ROWS_OF_A_WORD, np.log((1 + len(rows)) / (1 + seen)) + 1, 0)
        unsafe, weight = _weights(ones.astype(np.float64), all_.astype(np.float64), float(labels.mean()))
        times = _Sparse(*self._matrix(kinds), n)
        # A row has length 1 and a constant beside: the loss curves by no more than weight / 2 for each.
        step = 1 / (0.5 * weight.sum() + RIDGE)
        w, self._b = _descend(times.width, times.forward, times.back, unsafe, weight, lambda g: step * g)
        self.w = np.zeros(width)
        self.w[times.columns] = w

    def _matrix(self, kinds: Ints) -> tuple[Ints, Ints, Floats]:
        row, column, count = self._terms.of(kinds)
        known = self._idf[column] > 0
        row, column = row[known], column[known]
        value = count[known] * self._idf[column]
        length = np.sqrt(np.bincount(row, value * value, len(kinds)))
        return row, column, value / length[row]

    def predict(self, rows: Ints) -> Floats:
        """P(unsafe) of some rows."""
        kinds, place = np.unique(self._terms.kind[rows], return_inverse=True)
        row, column, value = self._matrix(kinds)
        z = np.asarray(np.bincount(row, value * self.w[column], len(kinds)), np.float64) + self._b
        return _sigmoid(z)[place]


def _seen(terms: Terms, kinds: Ints, times: Ints, width: int) -> Floats:
    """In how many rows each term is, of kinds that occur so often."""
    row, column, _ = terms.of(kinds)
    return np.asarray(np.bincount(column, times[row], width), np.float64)


class NumberModel:
    """On numbers, each less its mean and by its standard deviation; what is missing counts as the mean."""

    def __init__(self, numbers: Floats, labels: Bools) -> None:
        """Fit.

        Args:
            numbers: a row each, NaN where one is missing.
            labels: whether each row is unsafe; both must occur.
        """
        known = np.isfinite(numbers)
        count = np.maximum(known.sum(0), 1)
        self._mean = np.where(known, numbers, 0.0).sum(0) / count
        spread = np.sqrt((np.where(known, numbers - self._mean, 0.0) ** 2).sum(0) / count)
        # What never changes, but for rounding, tells nothing.
        self._scale = np.where(spread > 1e-9 * (1 + np.abs(self._mean)), spread, np.inf)
        x = self._scaled(numbers)
        unsafe, weight = _weights(labels.astype(np.float64), np.ones(len(labels)), float(labels.mean()))
        # The loss nowhere curves more than this (Boehning 1992), so that its inverse is a step that is safe.
        wide = np.column_stack([x, np.ones(len(x))])
        curve = (wide.T * (weight / 4)) @ wide + np.diag([RIDGE] * x.shape[1] + [1e-9])
        inverse = np.linalg.inv(curve)
        self.w, self._b = _descend(
            x.shape[1], lambda w: x @ w, lambda e: x.T @ e, unsafe, weight, lambda g: inverse @ g
        )

    def _scaled(self, numbers: Floats) -> Floats:
        filled = np.where(np.isfinite(numbers), numbers, self._mean)
        return np.asarray(np.clip((filled - self._mean) / self._scale, -FAR, FAR), np.float64)

    def predict(self, numbers: Floats) -> Floats:
        """P(unsafe) of rows of such numbers."""
        return _sigmoid(self._scaled(numbers) @ self.w + self._b)


class _Sparse:
    """A matrix by its entries in order of rows, and again in order of columns, so that sums run along."""

    def __init__(self, row: Ints, column: Ints, value: Floats, rows: int) -> None:
        self.columns, narrow = np.unique(column, return_inverse=True)
        self.width, self._rows = len(self.columns), rows
        self._by_row = narrow, value, *_runs(row)
        order = np.argsort(narrow, kind="stable")
        self._by_column = row[order], value[order], *_runs(narrow[order])
        self._room = np.empty(len(value))

    def forward(self, w: Floats) -> Floats:
        return self._summed(self._by_row, w, self._rows)

    def back(self, error: Floats) -> Floats:
        return self._summed(self._by_column, error, self.width)

    def _summed(self, entries: tuple[Ints, Floats, Ints, Ints], vector: Floats, size: int) -> Floats:
        take, value, starts, places = entries
        out = np.zeros(size)
        if len(take):
            # Every place is within bounds; "clip" spares numpy the check and a copy.
            np.take(vector, take, out=self._room, mode="clip")
            np.multiply(self._room, value, out=self._room)
            out[places] = np.add.reduceat(self._room, starts)
        return out


def _runs(sorted_: Ints) -> tuple[Ints, Ints]:
    """Where each run of equal numbers starts, and its number."""
    starts = (
        np.flatnonzero(np.concatenate([[True], sorted_[1:] != sorted_[:-1]])) if len(sorted_) else sorted_
    )
    return starts, sorted_[starts]


def _weights(ones: Floats, all_: Floats, share: float) -> tuple[Floats, Floats]:
    """Of the unsafe of each kind, and of all of it: both classes weigh the same."""
    unsafe = ones * 0.5 / share
    return unsafe, unsafe + (all_ - ones) * 0.5 / (1 - share)


def _descend(
    width: int,
    forward: Callable[[Floats], Floats],
    back: Callable[[Floats], Floats],
    unsafe: Floats,
    weight: Floats,
    step: Callable[[Floats], Floats],
) -> tuple[Floats, float]:
    """Weights and constant by accelerated gradient descent (Nesterov 1983)."""
    now = before = np.zeros(width + 1)
    for turn in range(STEPS):
        ahead = now + turn / (turn + 3) * (now - before)
        w = ahead[:-1]
        error = weight * _sigmoid(forward(w) + ahead[-1]) - unsafe
        before, now = now, ahead - step(np.append(back(error) + RIDGE * w, error.sum()))
    return now[:-1], float(now[-1])


def _sigmoid(z: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(z, -30, 30))), np.float64)
