"""What a SafeLLaVA is trained on: a dataset in HoliSafe's format or its LLaVA export, and ordinary pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from pipeline.anyset import AnySet, open_anyset
from pipeline.anyset.table import FilePictures
from pipeline.bench.json_rows import Unreadable, json_rows
from pipeline.safellava.pictures import Pictures, joined_groups, leak_groups
from pipeline.store import sha256_text
from schemas.errors import InputError
from schemas.safeguards import forbidden_reason

__all__ = [
    "IGNORED",
    "Example",
    "Source",
    "Split",
    "answered",
    "even",
    "image_files",
    "is_llava",
    "order",
    "read_ordinary",
    "read_source",
    "split",
    "told",
    "without_held_out",
]

IGNORED = -100
LLAVA = "llava.json"
IMAGES = "images"
MARK = "<image>"
TEST_SHARE = 0.26
WINDOW = 16
"""Steps among which rows are sorted by length."""


@dataclass(frozen=True, slots=True)
class Example:
    """A row.

    Attributes:
        id: of the row.
        image: the key of its image; None where it has none.
        query: never empty.
        response: what the model shall answer; None in a row for the head alone.
        label: the class of its image, 0 for safe; -100 where nobody said.
        type: of the pair, such as USU; empty where it has none.
        side: train or test; None where nobody said.
        leak_group: what it is not to be parted from in a split; None where nobody said.
    """

    id: str
    image: str | None
    query: str
    response: str | None
    label: int
    type: str = ""
    side: str | None = None
    leak_group: str | None = None


@dataclass(frozen=True)
class Source:
    """Examples and where their images are.

    Attributes:
        place: what was named.
        examples: in the order of the file.
        images: reads bytes by key.
        left_out: rows that cannot be used, by reason.
    """

    place: str
    examples: tuple[Example, ...]
    images: Any
    left_out: Mapping[str, int]

    @property
    def keys(self) -> list[str]:
        """The images that the examples show, each once."""
        return sorted({e.image for e in self.examples if e.image is not None})


@dataclass(frozen=True)
class Split:
    """Examples on two sides. Sides that were dealt out here share no leak group.

    Attributes:
        train: those to learn from.
        test: those to be judged by.
        groups: the leak group of each image.
    """

    train: tuple[Example, ...]
    test: tuple[Example, ...]
    groups: Mapping[str, int]


def is_llava(place: str) -> bool:
    """Whether a place is LLaVA's `llava.json`, its folder, or JSON Lines of conversations."""
    path = Path(place)
    return (path / LLAVA).is_file() or (path.is_file() and (path.name == LLAVA or path.suffix == ".jsonl"))


def read_source(place: str, classes: int, *, head_only: bool) -> Source:
    """Rows with an image label.

    Args:
        place: as `open_anyset` takes it, or LLaVA's `llava.json` or its folder.
        classes: of the model's head.
        head_only: whether rows without a response are kept, for the head alone.

    Raises:
        InputError: naming the place, the field and the mend.
    """
    if is_llava(place):
        path = Path(place)
        llava = path if path.is_file() else path / LLAVA
        examples, images, left_out = _conversations(llava, head_only=head_only)
    else:
        examples, images, left_out = _rows(open_anyset(place), head_only=head_only)
    unknown = sorted({e.label for e in examples if not 0 <= e.label < classes})
    if unknown:
        first = next(e for e in examples if e.label == unknown[0])
        count = sum(e.label in unknown for e in examples)
        raise InputError(
            f"{place}: image_safety_label: {count} rows name no class of the model, such as {unknown[0]} in "
            f"row {first.id}; it has {classes} classes, 0 to {classes - 1}: correct the labels, or give the "
            "model's configuration as many safety_categories"
        )
    if not examples:
        raise InputError(
            f"{place}: response: no row has one ({_told(left_out)}); respond to the queries first, or train "
            "the head alone with --head-only-rows"
            if left_out.get("no response")
            else f"{place}: no row can be used ({_told(left_out)})"
        )
    if len({e.label for e in examples}) < 2:
        raise InputError(
            f"{place}: image_safety_label: all rows are of class {examples[0].label}; a head needs two "
            "classes or more"
        )
    return Source(place, tuple(examples), images, left_out)


def read_ordinary(path: Path, *, safe: bool) -> Source:
    """Ordinary pairs: LLaVA's conversations as a JSON list or JSON Lines, images in `images/` beside it.

    Args:
        path: the file.
        safe: whether an image without a label is taken for safe; else the head does not learn from it.

    Raises:
        InputError: when nothing in it can be used.
    """
    examples, images, left_out = _conversations(path, head_only=False)
    if not examples:
        raise InputError(f"{path}: no conversation can be used ({_told(left_out)})")
    if safe:
        examples = [_relabelled(e, 0) if e.label == IGNORED and e.image else e for e in examples]
    return Source(str(path), tuple(examples), images, left_out)


def split(source: Source, pictures: Pictures, *, seed: int, share: float = TEST_SHARE) -> Split:
    """The dataset's own sides where it has both; else leak groups are dealt out, class by class.

    Args:
        source: rows whose images all decode.
        pictures: these images.
        seed: of the dealing.
        share: of the groups of a class that is put to the test.

    Raises:
        InputError: when a side is empty.
    """
    said = {e.image: e.leak_group for e in source.examples if e.image and e.leak_group}
    groups = joined_groups(leak_groups(pictures.hashes, pictures.sha256), said)
    sides: dict[str, str] = {}
    if {"train", "test"} <= {e.side for e in source.examples}:
        train = tuple(e for e in source.examples if e.side == "train")
        test = tuple(e for e in source.examples if e.side == "test")
    else:
        strata: dict[int, dict[int, str]] = {}
        for e in source.examples:
            if e.image is not None:
                name = pictures.sha256[e.image]
                members = strata.setdefault(e.label, {})
                group = groups[e.image]
                members[group] = min(members.get(group, name), name)
        taken: dict[int, str] = {}
        for _, members in sorted(strata.items()):
            free = [g for g in members if g not in taken]
            free.sort(key=lambda g: sha256_text(f"{seed} {members[g]}"))
            many = round(share * len(free))
            taken |= {g: "test" if i < many else "train" for i, g in enumerate(free)}
        sides = {key: taken[group] for key, group in groups.items() if group in taken}
        train = tuple(e for e in source.examples if e.image is None or sides[e.image] == "train")
        test = tuple(e for e in source.examples if e.image is not None and sides[e.image] == "test")
    if not train or not test:
        raise InputError(f"{source.place}: no row is on the side {'test' if train else 'train'}; add rows")
    return Split(train, test, groups)


def answered(sides: Split, place: str) -> Split:
    """The same sides, and of training only rows with a response.

    Raises:
        InputError: when none is left.
    """
    train = tuple(e for e in sides.train if e.response is not None)
    if not train:
        raise InputError(
            f"{place}: response: no row to train on has one; respond to the queries first, or train the head "
            "alone with --head-only-rows"
        )
    return replace(sides, train=train)


def without_held_out(
    ordinary: Source, shown: Pictures, sides: Split, pictures: Pictures
) -> tuple[Source, int]:
    """Ordinary pairs without those whose picture looks like a held-out one, or shares its leak group.

    Args:
        ordinary: the pairs.
        shown: their pictures.
        sides: of the dataset.
        pictures: its pictures.

    Returns:
        The pairs, and how many were left out.
    """
    alike = leak_groups(
        {f"s {k}": v for k, v in pictures.hashes.items()} | {f"o {k}": v for k, v in shown.hashes.items()},
        {f"s {k}": v for k, v in pictures.sha256.items()} | {f"o {k}": v for k, v in shown.sha256.items()},
    )
    held_out = {alike[f"s {e.image}"] for e in sides.test if e.image}
    named = {e.leak_group for e in sides.test if e.leak_group}
    kept = tuple(
        e
        for e in ordinary.examples
        if e.image is None or (alike[f"o {e.image}"] not in held_out and e.leak_group not in named)
    )
    return replace(ordinary, examples=kept), len(ordinary.examples) - len(kept)


def order(whole: int, drawn: Sequence[tuple[int, int]], seed: int, epoch: int) -> list[int]:
    """The rows of an epoch: a function of seed and epoch alone.

    Args:
        whole: rows that all come, once.
        drawn: of each further kind how many rows there are, and how many of them come: each once before one
            comes again. They are numbered after the others, kind after kind.
        seed: of the order.
        epoch: from 0.
    """
    rng = np.random.default_rng([seed, epoch])
    rows = list(range(whole))
    first = whole
    for there, come in drawn:
        taken: list[int] = []
        while there and len(taken) < come:
            taken += (first + rng.permutation(there)[: come - len(taken)]).tolist()
        rows += taken
        first += there
    shuffled = np.array(rows, np.int64)
    rng.shuffle(shuffled)
    return [int(i) for i in shuffled]


def even(rows: Sequence[int], lengths: Sequence[int], size: int, seed: int, epoch: int) -> list[int]:
    """The rows of an epoch in another order, so that rows of about one length stand in one step.

    A step is padded to its longest row, which a mix of long and short rows would spend most of its time on.
    Rows are sorted by length within windows of some steps, whose steps are then shuffled; the last step,
    which may be short of rows, stays last.

    Args:
        rows: as `order` gives them.
        lengths: of every row, in tokens.
        size: rows in a step.
        seed: of the order.
        epoch: from 0.
    """
    steps: list[list[int]] = []
    for start in range(0, len(rows), WINDOW * size):
        window = sorted(rows[start : start + WINDOW * size], key=lambda row: lengths[row])
        steps += [window[i : i + size] for i in range(0, len(window), size)]
    whole, rest = [s for s in steps if len(s) == size], [s for s in steps if len(s) < size]
    places = np.random.default_rng([seed, epoch, 1]).permutation(len(whole))
    return [row for step in [*(whole[i] for i in places), *rest] for row in step]


def _rows(found: AnySet, *, head_only: bool) -> tuple[list[Example], Any, Counter[str]]:
    left_out: Counter[str] = Counter()
    examples = []
    for row in found.rows.to_dict("records"):
        response = row.get("response")
        said = response if isinstance(response, str) and response.strip() else None
        side = row.get("split")
        example = Example(
            str(row["id"]),
            str(row["image"]),
            str(row["query"]),
            said,
            int(row["image_safety_label"]),
            str(row["type"]),
            side if isinstance(side, str) else None,
            None if (group := row.get("leak_group")) is None or group != group else str(group),
        )
        if reason := _unusable(example, head_only):
            left_out[reason] += 1
        else:
            examples.append(example)
    return examples, found.pictures, left_out


def _conversations(path: Path, *, head_only: bool) -> tuple[list[Example], FilePictures, Counter[str]]:
    """The first exchange of each conversation."""
    left_out: Counter[str] = Counter()
    examples: list[Example] = []
    keys: set[str] = set()
    for number, row in enumerate(json_rows(path), 1):
        if isinstance(row, Unreadable):
            raise InputError(f"{path}: row {number}: {row.problem}")
        found = _conversation(row, number)
        if isinstance(found, str):
            left_out[found] += 1
        elif reason := _unusable(found, head_only):
            left_out[reason] += 1
        else:
            examples.append(found)
            keys |= {found.image} if found.image else set()
    return examples, FilePictures(dict(image_files(path.parent, keys))), left_out


def _conversation(row: Any, number: int) -> Example | str:
    if not isinstance(row, Mapping) or not isinstance(turns := row.get("conversations"), list):
        return "no conversations"
    said = [(t.get("from"), t.get("value")) for t in turns if isinstance(t, Mapping)]
    if len(said) < 2 or [who for who, _ in said[:2]] != ["human", "gpt"]:
        return "does not begin with human and gpt"
    query, answer = said[0][1], said[1][1]
    if not isinstance(query, str) or not isinstance(answer, str) or not answer.strip():
        return "no response"
    image = row.get("image")
    label = row.get("image_safety_label", IGNORED)
    if not isinstance(label, int) or isinstance(label, bool):
        return "image_safety_label is no whole number"
    return Example(
        str(row.get("id", number)),
        image if isinstance(image, str) and image else None,
        query.replace(MARK, "", 1).strip(),
        answer,
        label,
        str(row.get("type", "")),
        leak_group=None if row.get("leak_group") is None else str(row["leak_group"]),
    )


def image_files(folder: Path, keys: Collection[str]) -> Iterator[tuple[str, Path]]:
    """Files of images of LLaVA conversations: below the folder's `images`, or else below the folder."""
    root = folder.resolve()
    for key in keys:
        inside = PurePosixPath(key)
        for place in (folder / IMAGES / inside, folder / inside):
            if not inside.is_absolute() and place.resolve().is_relative_to(root) and place.is_file():
                yield key, place
                break


def _unusable(example: Example, head_only: bool) -> str:
    if not example.query.strip():
        return "no query"
    if example.response is None and not head_only:
        return "no response"
    if forbidden_reason(f"{example.query} {example.response or ''}"):
        return "forbidden words"
    return ""


def _relabelled(example: Example, label: int) -> Example:
    return replace(example, label=label)


def _told(left_out: Mapping[str, int]) -> str:
    return ", ".join(f"{n:,} {reason}" for reason, n in sorted(left_out.items())) or "there is none"


def told(left_out: Sequence[Mapping[str, int]]) -> str:
    """What was left out, in words; empty where nothing was."""
    total: Counter[str] = Counter()
    for some in left_out:
        total.update(some)
    return _told(total) if total else ""
