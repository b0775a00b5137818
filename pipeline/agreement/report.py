"""Agreement overall and by group, among all annotators, among families of models and among people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.agreement.bootstrap import LEVEL
from pipeline.agreement.coefficients import Floats, Ints
from pipeline.agreement.parts import Cost, Given, Part, part_of
from pipeline.agreement.problems import Problem
from pipeline.agreement.scales import Scale, ScaleName
from pipeline.agreement.votes import GROUPS, Votes, read_votes
from pipeline.annotators import PEOPLE
from pipeline.store import printable

__all__ = ["HUMAN", "Agreement", "Block", "agreement_of", "measure"]

HUMAN = "human"
"""The family of a person, beside those that begin with `people:`."""
PAIR_CELLS = 100_000
"""Cells of all tables of two raters: what their intervals may cost, divided among overall and groups."""


@dataclass(frozen=True, slots=True)
class Block:
    """Agreement on all items, or on those of a group.

    Attributes:
        scale: of the values; None where groups have different ones.
        all: each annotator is a rater.
        families: each family of models is a rater, with the value that most of its votes on an item have.
        people: each person is a rater.
    """

    scale: ScaleName | None
    all: Part
    families: Part
    people: Part


@dataclass(frozen=True, slots=True)
class Agreement:
    """What the votes of a file say of agreement.

    Attributes:
        file: the file.
        rows: rows in it.
        votes: votes that are counted.
        missing: rows without a vote.
        items: items with a vote.
        annotators: annotators with a vote.
        level: of the intervals.
        rounds: resamples behind an interval.
        seed: of the resamples.
        overall: all items.
        groups: by the name of the group; empty without groups, and where there are more than 1,000.
        problems: the first 100 rows that cannot be used.
        problem_counts: how many there are, by kind.
    """

    file: str
    rows: int
    votes: int
    missing: int
    items: int
    annotators: int
    level: float
    rounds: int
    seed: int
    overall: Block
    groups: dict[str, Block]
    problems: list[Problem]
    problem_counts: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        """As it is written."""
        return asdict(self)


def measure(path: Path, order: Sequence[str] = (), rounds: int = 1000, seed: int = 0) -> Agreement:
    """Agreement of the votes of a file.

    Args:
        path: CSV or Parquet; docs/agreement.md says which columns.
        order: the words of an ordinal scale, lowest first.
        rounds: resamples for the intervals.
        seed: of the resamples.

    Raises:
        InputError: when nothing can be computed.
    """
    return agreement_of(read_votes(path, order), printable(str(path)), rounds, seed)


def agreement_of(votes: Votes, file: str, rounds: int = 1000, seed: int = 0) -> Agreement:
    """Agreement of votes; `file` names where they are from."""
    names = votes.groups if len(votes.groups) <= GROUPS else []
    cost = Cost(rounds, seed, PAIR_CELLS // (len(names) + 1))
    by_group = np.argsort(votes.group, kind="stable")
    bounds = np.searchsorted(votes.group[by_group], np.arange(len(names) + 1))
    scales = list({votes.scales[group] for group in np.unique(votes.group)})
    return Agreement(
        file=file,
        rows=votes.rows,
        votes=len(votes.item),
        missing=votes.missing,
        items=len(np.unique(votes.item)),
        annotators=len(np.unique(votes.annotator)),
        level=LEVEL,
        rounds=rounds,
        seed=seed,
        overall=_block(votes, np.arange(len(votes.item)), scales, cost),
        groups={
            names[group]: _block(
                votes, by_group[bounds[group] : bounds[group + 1]], [votes.scales[group]], cost
            )
            for group in sorted(range(len(names)), key=names.__getitem__)
        },
        problems=votes.problems.listed,
        problem_counts=dict(sorted(votes.problems.counts.items())),
    )


def _block(votes: Votes, which: Ints, scales: Sequence[Scale], cost: Cost) -> Block:
    """Agreement of these votes, if they are of one scale."""
    differ = ""
    if len(scales) > 1:
        names = sorted({scale.name for scale in scales})
        what = f"scales ({', '.join(names)})" if len(names) > 1 else "orders of values"
        differ = f"the groups have different {what}: see them one by one"
    scale = scales[0] if len(scales) == 1 else Scale("nominal")
    code, numbers, values = _read(votes.value[which], votes, scale)
    raters = votes.annotators
    given = Given(
        votes.item[which], votes.annotator[which], code, raters, values, numbers, scale, "annotator"
    )
    family = votes.family[which]
    human = np.array([name == HUMAN or name.startswith(PEOPLE) for name in votes.families], np.bool_)
    by_person = human[family] & votes.has_families
    no_family = "" if votes.has_families else "the file has no column family"
    by_model = ~by_person & votes.has_families
    models = replace(_those(given, by_model), raters=votes.families, noun="family")
    people = replace(_those(given, by_person), noun="person")
    return Block(
        scale=None if differ else scale.name,
        all=part_of(given, differ, cost),
        families=part_of(_by_family(models, family[by_model]), differ or no_family, cost),
        people=part_of(people, differ or no_family, cost),
    )


def _read(value: Ints, votes: Votes, scale: Scale) -> tuple[Ints, Floats, list[str]]:
    """Values as codes in their order, what these stand for, and what they are called."""
    seen, code = np.unique(value, return_inverse=True)
    if scale.numbers:
        numbers, again = np.unique(votes.number[seen], return_inverse=True)
        return again[code], numbers, [f"{number:.15g}" for number in numbers]
    names = [votes.values[number] for number in seen]
    rank = {name: place for place, name in enumerate(scale.order)}
    ordered = sorted(range(len(seen)), key=lambda place: (rank.get(names[place], 0), names[place]))
    new = np.empty(len(seen), np.int64)
    new[ordered] = np.arange(len(seen))
    return new[code], np.arange(len(seen), dtype=np.float64), [names[place] for place in ordered]


def _those(given: Given, which: np.ndarray[Any, np.dtype[np.bool_]]) -> Given:
    return replace(given, item=given.item[which], rater=given.rater[which], value=given.value[which])


def _by_family(given: Given, family: Ints) -> Given:
    """One vote for each family and item: the value that most of its votes have, none where two have most."""
    if not len(family):
        return given
    cell = given.item * len(given.raters) + family
    key, count = np.unique(cell * len(given.values) + given.value, return_counts=True)
    starts = np.flatnonzero(np.diff(key // len(given.values), prepend=-1))
    sizes = np.diff(starts, append=len(key))
    most = np.repeat(np.maximum.reduceat(count, starts), sizes) == count
    alone = most & (np.repeat(np.add.reduceat(most.astype(np.int64), starts), sizes) == 1)
    item, rater = np.divmod(key[alone] // len(given.values), len(given.raters))
    return replace(given, item=item, rater=rater, value=key[alone] % len(given.values))
