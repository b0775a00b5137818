"""The way back: votes of reviewers as lines of `data/reviews/votes.jsonl`, or as a CSV of votes."""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from pipeline.review.items import ReviewSet
from pipeline.review.store import Given, ReviewStore, counting
from pipeline.store import sha256_text, write_bytes
from schemas.errors import InputError
from schemas.reviews import REVIEWS, HumanVote

__all__ = ["HEADER", "Target", "Written", "default_target", "flow_back", "named_target", "pending"]

HEADER = ("item_id", "question", "annotator", "value", "family", "gold")
FAMILY = "human"
_LINES, _TABLE = ".jsonl", ".csv"


@dataclass(frozen=True)
class Target:
    """Where votes go.

    Attributes:
        path: a `.jsonl` of lines that the label stages read, or a `.csv`.
        gold: only votes that are gold.
    """

    path: Path
    gold: bool = False

    @property
    def is_table(self) -> bool:
        """Whether it is a CSV."""
        return self.path.suffix == _TABLE


@dataclass(frozen=True)
class Written:
    """What an export did.

    Attributes:
        path: of the file.
        votes: of reviewers that stand in it now.
        added: that were not there before.
        dropped: that were, and are undone or changed.
        skipped: of what could not be said, which no file holds.
    """

    path: Path
    votes: int
    added: int
    dropped: int
    skipped: int


def default_target(root: Path, items: ReviewSet) -> Target:
    """Where votes go unless told: to the build in this folder if the dataset is of a build, else to a CSV."""
    if items.ours and (root / "params.yaml").is_file():
        return Target(root / REVIEWS)
    return Target(root / f"review-votes-{items.fingerprint[:8]}.csv")


def named_target(path: Path, items: ReviewSet, *, gold: bool = False) -> Target:
    """A file that somebody named.

    Raises:
        InputError: when votes on this dataset cannot be written in it.
    """
    if path.suffix not in (_LINES, _TABLE):
        raise InputError(f"--votes-to: {path}: name a file that ends in {_LINES} or {_TABLE}")
    if path.suffix == _LINES and not items.ours:
        raise InputError(
            f"--votes-to: {path}: the ids of {items.data.place} are not those of a build, so no label stage "
            f"would know what such lines are about; name a {_TABLE}"
        )
    return Target(path, gold)


def flow_back(store: ReviewStore, items: ReviewSet, target: Target) -> Written:
    """Bring a file of votes up to date; lines of others stay as they are, byte for byte.

    Raises:
        InputError: when the file there is another.
        OSError: when it cannot be written; then it is as it was.
    """
    with _held(target.path):
        old = _read(target.path)
        new, written = _merged(store, items, target, old)
        if new != old:
            write_bytes(target.path, new)
    return written


def pending(store: ReviewStore, items: ReviewSet, target: Target) -> int:
    """How many votes an export would add or drop.

    Raises:
        InputError: when the file there is another.
        OSError: when it cannot be read.
    """
    written = _merged(store, items, target, _read(target.path))[1]
    return written.added + written.dropped


def _merged(store: ReviewStore, items: ReviewSet, target: Target, old: bytes) -> tuple[bytes, Written]:
    votes = store.votes(items.scope)
    now = [v for v in votes if v.gold and not v.undone] if target.gold else counting(votes)
    said = [vote for vote in now if vote.value != "skip"]
    ever = [vote for vote in votes if vote.value != "skip"]
    if target.is_table:
        new, added, dropped = _merged_table(items, ever, said, old, target.path)
    else:
        new, added, dropped = _merged_lines(ever, said, old)
    return new, Written(target.path, len(said), added, dropped, len(now) - len(said))


def _merged_lines(ever: Iterable[Given], now: Iterable[Given], old: bytes) -> tuple[bytes, int, int]:
    """Lines that are ours to the letter and hold no more go; what holds and is not there is added.

    A line that only lacks its mark of gold, as it was written before there was one, gets it where it stands:
    of two lines on the same the later counts.
    """
    told = {_line(vote, gold=vote.gold): _line(vote, gold=False) for vote in ever}
    wanted = list(dict.fromkeys(_line(vote, gold=vote.gold) for vote in now))
    lines = old.split(b"\n")
    if lines and not lines[-1]:
        lines.pop()
    ours, holds, there = {*told, *told.values()}, set(wanted), set(lines)
    unmarked = {told[line]: line for line in wanted if line not in there and told[line] not in holds}
    kept = []
    for line in lines:
        if line in unmarked:
            kept.append(unmarked.pop(line))
        elif line not in ours or line in holds:
            kept.append(line)
    new = [line for line in wanted if line not in set(kept)]
    added = sum(line not in there for line in wanted)
    dropped = sum(line in ours and line not in holds for line in lines)
    if not added and not dropped:
        return old, 0, 0
    return b"".join(line + b"\n" for line in [*kept, *new]), added, dropped


def _line(vote: Given, *, gold: bool) -> bytes:
    told = {
        "item_id": vote.item_id,
        "question": vote.question,
        "value": vote.value,
        "annotator": vote.reviewer,
        "note": vote.note,
        "time": vote.time,
        "gold": gold,
    }
    HumanVote.model_validate(told)
    return json.dumps({k: v for k, v in told.items() if v}, ensure_ascii=False).encode()


def _merged_table(
    items: ReviewSet, ever: Iterable[Given], now: Iterable[Given], old: bytes, path: Path
) -> tuple[bytes, int, int]:
    try:
        rows = [tuple(row) for row in csv.reader(io.StringIO(old.decode("utf-8"), newline=""), strict=True)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path}: is no CSV in UTF-8 ({error}); name another file with --votes-to"
        ) from error
    if rows and rows[0] != HEADER:
        raise InputError(
            f"{path}: its first line is not {','.join(HEADER)}; name another file with --votes-to"
        )
    wanted = list(dict.fromkeys(_cells(items, vote, gold=vote.gold) for vote in now))
    ours = {_cells(items, vote, gold=gold) for vote in ever for gold in (True, False)}
    holds, there = set(wanted), rows[1:]
    kept = [row for row in there if row not in ours or row in holds]
    added = [row for row in wanted if row not in set(there)]
    if rows and not added and len(kept) == len(there):
        return old, 0, 0
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([HEADER, *kept, *added])
    return text.getvalue().encode(), len(added), len(there) - len(kept)


def _cells(items: ReviewSet, vote: Given, *, gold: bool) -> Sequence[str]:
    item = items.public_item(vote.question, vote.item_id)
    return item, vote.question, vote.reviewer, vote.value, FAMILY, "true" if gold else "false"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _held(path: Path) -> FileLock:
    """Holds a file against others who would merge into it; nothing is left beside it."""
    name = sha256_text(str(path.resolve()))[:16]
    return FileLock(Path(tempfile.gettempdir()) / f"holisafe-votes-{os.getuid()}-{name}.lock", timeout=60)
