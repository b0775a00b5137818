"""Figures of a build, for the card and for the Croissant metadata."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import combinations
from typing import Any

from pipeline.annotators import PEOPLE
from pipeline.cells import quotas_of
from pipeline.workspace import Workspace
from schemas.taxonomy import PAIR_TYPES

__all__ = ["FEW", "Figures", "Pair", "Tally", "figures", "pairs_of", "share"]

FEW = 20
"""A cell with fewer rows than this says little about its class."""


class Tally:
    """What is counted of rows, of which each is seen once and none is kept.

    Attributes:
        rows: how many.
        agreement: that of each.
        images: rows by image.
        queries: different ones.
        squares: different ones.
        votes: on how many votes rows rest.
    """

    COUNTED = (
        "split", "type", "category", "class_key", "tier", "ssu_unverified", "expected", "grade_image",
        "grade_joint",
    )  # fmt: skip
    """Columns of few values, of which rows are counted in any combination."""

    def __init__(self) -> None:
        """Begin with no row."""
        self.rows = 0
        self.agreement: list[float] = []
        self.images: Counter[str] = Counter()
        self.queries: set[str] = set()
        self.squares: set[str] = set()
        self.votes: set[int] = set()
        self._counts: Counter[tuple[Any, ...]] = Counter()

    def add(self, row: Mapping[str, Any]) -> None:
        """Count a dataset row with its `split`."""
        self.rows += 1
        self.agreement.append(row["agreement"])
        self.images[row["image_id"]] += 1
        self.queries.add(row["query"])
        self.squares.add(row["contrast_square"])
        self.votes.add(len(row["votes"]))
        self._counts[tuple(row[name] for name in self.COUNTED)] += 1

    def by(self, *columns: str) -> Counter[Any]:
        """Rows by the value of one of the columns that are counted, or by those of several together."""
        at = [self.COUNTED.index(name) for name in columns]
        found: Counter[Any] = Counter()
        for values, n in self._counts.items():
            found[values[at[0]] if len(at) == 1 else tuple(values[i] for i in at)] += n
        return found


@dataclass(frozen=True, slots=True)
class Pair:
    """How two annotators agree on the items that both answered.

    Attributes:
        a: one annotator.
        b: the other.
        n: items both answered.
        raw: share of equal answers; None without items.
    """

    a: str
    b: str
    n: int
    raw: float | None


@dataclass(frozen=True, slots=True)
class Figures:
    """What is counted. Images are those that rows name.

    Attributes:
        rows: how many.
        splits: rows by side, where there are any.
        types: rows by type.
        classes: rows by class of harm, for each class of the build.
        tiers: rows by tier.
        unverified: rows marked `ssu_unverified`.
        cells: class and type where the quotas want rows, with how many there are.
        queries: different ones.
        squares: different ones.
        agreement: mean over the rows.
        images: how many.
        licences: images by licence.
        sources: images by package, generator or kind of source, the first that is known.
        source_kinds: images by kind of source.
        generators: generated images by generator.
        left_out: images that are left out, since they may not be given away.
        left_out_rows: rows of these.
        restricted: images that are in it though they may not be given away.
        personal: images by kind of personal data in the text that was read from them.
        with_personal: images with any.
        faces: images with faces; `None` where no image was searched.
        faces_searched: images that were searched for faces.
        stripped: images whose metadata was removed.
        longest_side: of any image, in pixels.
        retrieved: the first and the last time of retrieval, empty where none is known.
        untimed: collected images whose time of retrieval is not known.
        votes: the fewest and the most votes that a row rests on.
        annotators: families by annotator, by question.
        pairs: agreement of each two annotators by question, on all that they judged.
        policy_version: of the taxonomy.
    """

    rows: int
    splits: Mapping[str, int]
    types: Mapping[str, int]
    classes: Mapping[str, int]
    tiers: Mapping[str, int]
    unverified: int
    cells: Mapping[tuple[str, str], int]
    queries: int
    squares: int
    agreement: float
    images: int
    licences: Mapping[str, int]
    sources: Mapping[str, int]
    source_kinds: Mapping[str, int]
    generators: Mapping[str, int]
    left_out: int
    left_out_rows: int
    restricted: int
    personal: Mapping[str, int]
    with_personal: int
    faces: int | None
    faces_searched: int
    stripped: int
    longest_side: int
    retrieved: Sequence[str]
    untimed: int
    votes: tuple[int, int]
    annotators: Mapping[str, Mapping[str, str]]
    pairs: Mapping[str, Sequence[Pair]]
    policy_version: str

    @property
    def people(self) -> int:
        """How many people have voted."""
        return len({f for names in self.annotators.values() for f in names.values() if f.startswith(PEOPLE)})


def figures(
    tally: Tally,
    table: Mapping[str, Mapping[str, Any]],
    votes: Iterable[Mapping[str, Any]],
    left_out: Collection[str],
    workspace: Workspace,
) -> Figures:
    """Count.

    Args:
        tally: of the dataset's rows.
        table: rows of curate's images by their ids; more than the dataset holds.
        votes: all votes, which are gone through once for each question, and once before.
        left_out: ids of the images that are left out.
        workspace: of the build.
    """
    images = [table[i] for i in sorted(tally.images)]
    have: Counter[tuple[str, str]] = Counter()
    for (class_key, kind), n in tally.by("class_key", "type").items():
        have[class_key.rsplit("/", 1)[1], kind] += n
    splits, types = tally.by("split"), tally.by("type")
    searched = [i["faces"] for i in images if i["faces"] is not None]
    times = sorted(_utc(i["retrieved_at"]) for i in images if i["retrieved_at"])
    annotators: dict[str, dict[str, str]] = defaultdict(dict)
    for vote in votes:
        annotators[vote["question"]][vote["annotator"]] = vote["family"]
    return Figures(
        rows=tally.rows,
        splits={side: splits[side] for side in ("train", "test") if splits[side]},
        types={kind: types[kind] for kind in PAIR_TYPES},
        classes={c.name: sum(have[c.name, t] for t in PAIR_TYPES) for c in workspace.classes()},
        tiers=_in_order(tally.by("tier")),
        unverified=tally.by("ssu_unverified")[True],
        cells={
            (info.name, kind): have[info.name, kind]
            for info in workspace.classes()
            for kind in PAIR_TYPES
            if quotas_of(info, workspace.params.quotas, workspace.params.quota_scale)[kind]
        },
        queries=len(tally.queries),
        squares=len(tally.squares),
        # Exactly, so that the order of the rows is not in it.
        agreement=math.fsum(tally.agreement) / tally.rows if tally.rows else 0.0,
        images=len(images),
        licences=_counted(i["licence"] or "unknown" for i in images),
        sources=_counted(i["source_package"] or i["generator"] or i["source_kind"] for i in images),
        source_kinds=_counted(i["source_kind"] for i in images),
        generators=_counted(i["generator"] for i in images if i["generator"]),
        left_out=len(left_out),
        left_out_rows=sum(tally.images[image_id] for image_id in left_out),
        restricted=sum(i["redistributable"] != "yes" and i["image_id"] not in left_out for i in images),
        personal=_counted(kind for i in images for kind in i["personal_data"]),
        with_personal=sum(bool(i["personal_data"]) for i in images),
        faces=sum(n > 0 for n in searched) if searched else None,
        faces_searched=len(searched),
        stripped=sum(bool(i["stripped"]) for i in images),
        longest_side=max((max(i["width"], i["height"]) for i in images), default=0),
        retrieved=[t.isoformat() for t in (times[0], times[-1])] if times else [],
        untimed=sum(not i["retrieved_at"] and not i["generator"] for i in images),
        votes=(min(tally.votes, default=0), max(tally.votes, default=0)),
        annotators={q: dict(sorted(names.items())) for q, names in sorted(annotators.items())},
        pairs={q: pairs_of(votes, q) for q in sorted(annotators)},
        policy_version=workspace.taxonomy.policy_version,
    )


def pairs_of(votes: Iterable[Mapping[str, Any]], question: str) -> list[Pair]:
    """Raw agreement of each two annotators on a question. What corrects for chance is in the audit."""
    given: dict[str, dict[str, str]] = defaultdict(dict)
    for vote in votes:
        if vote["question"] == question and vote["status"] == "ok":
            given[vote["annotator"]][vote["item_id"]] = vote["value"]
    pairs = []
    for a, b in combinations(sorted(given), 2):
        both = given[a].keys() & given[b].keys()
        equal = sum(given[a][item] == given[b][item] for item in both)
        pairs.append(Pair(a, b, len(both), round(equal / len(both), 4) if both else None))
    return pairs


def share(n: int, of: int) -> str:
    """A share in per cent."""
    return f"{100 * n / of if of else 0:.1f} %"


def _counted(values: Iterator[str]) -> dict[str, int]:
    """How often each stands there, in order."""
    return _in_order(Counter(values))


def _in_order(count: Counter[str]) -> dict[str, int]:
    """The most frequent first, then by name, so that the order is always one."""
    return dict(sorted(count.items(), key=lambda kv: (-kv[1], kv[0])))


def _utc(text: str) -> datetime:
    """A time as sources give it; without a zone it is taken for UTC."""
    time = datetime.fromisoformat(text)
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
