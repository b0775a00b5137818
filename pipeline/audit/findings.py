"""All findings of a dataset, ours or anybody's: the content of `metrics.json` (docs/audit.md)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from pipeline.anyset import AnySet
from pipeline.audit.ballots import ballots, columns_of, items_of, labels_of
from pipeline.audit.contents import over_refusal, personal, responses
from pipeline.audit.contrast import contrast
from pipeline.audit.coverage import balance, cells, classes_of
from pipeline.audit.doubts import confusion_matrices, doubts, true_shares
from pipeline.audit.duplicates import copies_of_images, copies_of_queries
from pipeline.audit.features import low_level
from pipeline.audit.gold import equal_to_gold
from pipeline.audit.judging import Floats
from pipeline.audit.pictures import Looks, look_at, texts_of
from pipeline.audit.probes import SOURCE_PARTS, Probe, probes
from pipeline.audit.provenance import provenance
from pipeline.audit.variety import variety
from pipeline.parallel import Aside
from pipeline.store import sha256_text
from pipeline.workspace import Progress
from schemas.rows import CLASS_NONE
from schemas.taxonomy import PAIR_TYPES

__all__ = ["Known", "findings"]

Texts = Mapping[str, str]
PROBED = (
    "type", "query", "scene", "contrast_square", "image", "image_safe", "generator", "licence",
    "source_package", "source_uri",
)  # fmt: skip
"""Columns that probes look at."""
UNSEEN = {"extension": "", "size": "", "bytes": "0"}
COMPARED = ("query", "image", "split")
"""Columns in which copies of queries are looked for."""
MANY = 10_000
"""Rows from which a second process is worth starting."""


@dataclass(frozen=True)
class Known:
    """What only who built a dataset knows of it.

    Attributes:
        wanted: quotas by category, class and type; None: nobody said.
        sources: of each image, by key, what its origin looked like, in the place of what the dataset shows:
            `source_kind`, `extension`, `size`, `bytes`.
        texts: what is known to be written on its images, by key; None: it is read where it is needed.
        labels: by question and item, the labels that were given in the end, also of what was not kept; None:
            as the rows say.
        without_people: the same as annotators without people would give them; None: as `labels`.
        classes: by question and item, the class of the harm, also of what was not kept; None: as the rows
            say.
        order: values of votes, in the order to show.
        embed: gives embeddings of images that can be decoded, by key; None: there are none.
        trusted: whether its images may be decoded in this process.
        looks: a table that keeps what was seen of its images; None: nothing is kept.
    """

    wanted: Mapping[tuple[str, str, str], int] | None = None
    sources: Mapping[str, Texts] = field(default_factory=dict)
    texts: Texts | None = None
    labels: Mapping[str, Texts] | None = None
    without_people: Mapping[str, Texts] | None = None
    classes: Mapping[str, Texts] | None = None
    order: Sequence[str] = (CLASS_NONE, "borderline", "unsafe")
    embed: Callable[[Sequence[str]], Mapping[str, Floats]] | None = None
    trusted: bool = False
    looks: Path | None = None


def findings(
    found: AnySet,
    progress: Progress,
    *,
    votes: pd.DataFrame | None = None,
    against: AnySet | None = None,
    known: Known | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Everything that can be said of a dataset without asking a model.

    Args:
        found: the dataset.
        progress: told of images and of what is looked for.
        votes: on the dataset, as `votes_of_file` gives them; None: those that came with it, which made its
            labels.
        against: another, whose copies in this one are looked for.
        known: what its builder knows.
        seed: of folds and resamples.
    """
    known = known or Known()
    rows = found.rows
    looks = look_at(found, progress, trusted=known.trusted, kept=known.looks)
    without = rows.loc[rows["image"].isin(looks.rejected.keys()), ["row", "id", "image"]]
    for place, id_, key in without.itertuples(index=False):
        found.problems.add(int(place), str(id_), "image", looks.rejected[key], key, kept=True)
    with Aside(len(rows) >= MANY) as aside:
        return _findings(found, progress, looks, aside, votes, against, known, seed)


def _findings(
    found: AnySet,
    progress: Progress,
    looks: Looks,
    aside: Aside,
    votes: pd.DataFrame | None,
    against: AnySet | None,
    known: Known,
    seed: int,
) -> dict[str, Any]:
    rows = found.rows
    # The other process is sent no more of the rows than it looks at.
    guesses = aside.start(_probes, _some(rows, PROBED), _shown(looks), known.sources, seed)
    others = None if against is None else _some(against.rows, COMPARED)
    queries = aside.start(copies_of_queries, _some(rows, COMPARED), others)
    grid = cells(rows, known.wanted)
    sides = rows["split"] if "split" in rows else pd.Series([None] * len(rows))
    texts = known.texts
    read = texts_of(found, progress) if texts is None else lambda keys: {key: texts[key] for key in keys}
    other = None
    if against is not None:
        other = look_at(against, progress), texts_of(against, progress)
    ballot = found.votes if votes is None else votes
    labels = known.labels or labels_of(rows)
    embeddings = known.embed(list(looks.seen)) if known.embed else {}
    doubted = doubts(found, looks, embeddings, ballot, made=votes is None, seed=seed) if len(rows) else {}
    of_votes: dict[str, Any] = {}
    if len(ballot):
        of_votes = ballots(found, ballot, labels, known.order, seed)
        alone, items = known.without_people or labels, items_of(rows)
        of_votes |= {
            "confusion": confusion_matrices(ballot),
            "gold": equal_to_gold(ballot, alone),
            "prevalence": true_shares(ballot, alone, known.classes or _classes(rows, items), items),
        }
    guessed = guesses()
    guessed.append(_of_pixels(rows, looks, seed, of=len(guessed) + 1))
    told = {
        "place": found.place,
        "rows": len(rows),
        "images": int(rows["image"].nunique()),
        "by_type": {kind: int((rows["type"] == kind).sum()) for kind in PAIR_TYPES},
        "by_split": {side: int((sides == side).sum()) for side in ("train", "test")},
        "cells": [_as_cell(cell) for cell in grid],
        "balance": asdict(balance(grid, rows)),
        "contrast": {kind: asdict(one) for kind, one in contrast(rows).items()},
        "over_refusal": asdict(over_refusal(rows)),
        "copies": {
            "images": asdict(copies_of_images(looks, read, _sides(rows, sides), other)),
            "queries": asdict(queries()),
            "against": None if against is None else against.place,
        },
        "probes": [asdict(probe) for probe in guessed],
        "provenance": asdict(provenance(rows)),
        "personal": asdict(personal(rows)),
        "responses": None if (held := responses(rows)) is None else asdict(held),
        "variety": _variety(rows),
    }
    return told | of_votes | doubted | {"problems": found.problems.as_json()}


def _classes(rows: pd.DataFrame, items: Mapping[str, Sequence[str]]) -> dict[str, dict[str, str]]:
    """The class of each item, by question; that of the first row that has it."""
    names = classes_of(rows)[1]
    return {question: dict(reversed(list(zip(of, names, strict=True)))) for question, of in items.items()}


def _of_pixels(rows: pd.DataFrame, looks: Looks, seed: int, of: int) -> Probe:
    """The probe of the pixels: do their statistics alone tell the label of an image?"""
    images = rows.drop_duplicates("image")
    seen = [looks.seen.get(key) for key in images["image"]]
    unsafe = ~images["image_safe"].to_numpy(bool)
    one = low_level([look.pixels if look else None for look in seen], unsafe, seed=seed, of=of)
    return Probe(
        "pixel statistics", "unsafe image", one.n, one.unsafe, one.auc, one.auc, "image", one.low, one.high,
        None, one.named, one.top, one.reason,
    )  # fmt: skip


def _as_cell(cell: Any) -> dict[str, Any]:
    told = asdict(cell)
    return {"class" if name == "class_" else name: value for name, value in told.items()}


def _sides(rows: pd.DataFrame, sides: pd.Series) -> dict[str, frozenset[str]]:
    on: dict[str, set[str]] = defaultdict(set)
    for key, side in zip(rows["image"], sides, strict=True):
        if side in ("train", "test"):
            on[key].add(side)
    return {key: frozenset(of) for key, of in on.items()}


def _some(rows: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    return rows[[name for name in names if name in rows]]


def _shown(looks: Looks) -> dict[str, dict[str, str]]:
    """What can be seen of the origin of each image, by its key."""
    return {
        key: {"extension": look.format, "size": f"{look.width}x{look.height}", "bytes": str(look.size)}
        for key, look in looks.seen.items()
    }


def _probes(
    rows: pd.DataFrame, shown: Mapping[str, Texts], sources: Mapping[str, Texts], seed: int
) -> list[Probe]:
    """The probes of a dataset; what it does not tell is empty, and so tells nothing."""
    probed = []
    for values in columns_of(rows, *PROBED):
        row = dict(zip(PROBED, values, strict=True))
        key = row["image"]
        suffix = PurePosixPath(_said(row["source_uri"])).suffix.lower()
        probed.append(
            {
                "type": row["type"],
                "query": row["query"],
                "scene": _said(row["scene"]),
                # Rows with one query stay together, as those of a square do.
                "contrast_square": _said(row["contrast_square"]) or sha256_text(row["query"]),
                "image_id": key,
                "image_safe": row["image_safe"],
                **{part: _said(row.get(part)) for part in SOURCE_PARTS},
                **shown.get(key, UNSEEN),
                **({"extension": suffix} if suffix else {}),
                **sources.get(key, {}),
            }
        )
    return probes(probed, seed)


def _said(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _variety(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """How varied the queries of each class and type are."""
    scenes = rows["scene"].fillna("") if "scene" in rows else pd.Series("", rows.index)
    _, names = classes_of(rows)
    return [
        {"class": name, "type": kind} | asdict(variety(list(some["query"]), list(scenes[some.index])))
        for (name, kind), some in rows.groupby([names, "type"])
    ]
