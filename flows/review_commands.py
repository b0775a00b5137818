"""What `holisafe review` and `holisafe review-votes` do."""

from __future__ import annotations

import sys
import webbrowser
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Column, Table

from schemas.errors import InputError

if TYPE_CHECKING:
    from pipeline.review import Queue, ReviewSet, Target
    from pipeline.review.votes import Written

__all__ = ["ReviewOptions", "export_votes", "from_label_studio", "serve", "show_votes", "to_label_studio"]

OUT = Console()
STORE = Path(".holisafe/reviews.sqlite")
AUDIT = "audit"


@dataclass(frozen=True)
class ReviewOptions:
    """What decides which rows come up.

    Attributes:
        audit: the folder of an audit that names suspects; None for the one beside the dataset, if any.
        seed: of the random order.
        sample: rows in the random queue at most.
    """

    audit: Path | None = None
    seed: int = 0
    sample: int = 300


def serve(
    root: Path,
    place: str,
    options: ReviewOptions,
    *,
    store: Path | None,
    votes_to: Path | None,
    port: int,
    reviewer: str,
    cap: int,
    browser: bool,
) -> None:
    """Serve the page until Ctrl-C, then bring the file of votes up to date."""
    from pipeline.review import ReviewStore
    from pipeline.review.desk import NAME, Desk
    from pipeline.review.server import listen

    if reviewer and not NAME.fullmatch(reviewer):
        raise InputError(f"--reviewer {reviewer}: letters, digits, full stops, _ and -, 64 at most")
    items, queues = _open(place, options)
    target = _target(root, items, votes_to)
    with ReviewStore(store or root / STORE) as opened:
        desk = Desk(items, queues, opened, target, cap)
        serving = listen(desk, port=port, reviewer=reviewer)
        _say_rows(items)
        OUT.print(f"Votes are kept in {opened.path} and go to {target.path}.", soft_wrap=True)
        OUT.print("Open this address; it works on this machine alone, and until Ctrl-C:", soft_wrap=True)
        OUT.print(serving.url, soft_wrap=True, markup=False, highlight=False)
        OUT.file.flush()
        if browser:
            webbrowser.open(serving.once)
        with suppress(KeyboardInterrupt):
            serving.run()
        _say_written(desk.write())


def show_votes(root: Path, place: str, options: ReviewOptions, *, store: Path | None) -> None:
    """Print how far everybody is."""
    from pipeline.review import ReviewStore, default_target
    from pipeline.review.desk import Desk
    from pipeline.review.store import counting

    items, queues = _open(place, options)
    with ReviewStore(_there(store or root / STORE)) as opened:
        votes = opened.votes(items.scope)
        desk = Desk(items, queues, opened, default_target(root, items), cap=0)
        names = list(dict.fromkeys(vote.reviewer for vote in votes))
        figures = (
            "votes",
            "cannot say",
            "gold",
            "undone",
            *(q.title.lower() for q in _main(queues.values())),
        )
        table = Table(Column("reviewer", overflow="fold"), *figures, box=None)
        for column in table.columns[1:]:
            column.justify = "right"
        for name in names:
            own = [vote for vote in votes if vote.reviewer == name]
            now = counting(own)
            table.add_row(
                name,
                f"{len(now):,}",
                f"{sum(v.value == 'skip' for v in now):,}",
                f"{sum(v.gold for v in own if not v.undone):,}",
                f"{sum(v.undone for v in own):,}",
                *(
                    f"{p.done:,}/{p.total:,}"
                    for p in desk.progress(name)
                    if p.queue in _main(queues.values())
                ),
            )
        OUT.print(table)
        changes, problem = desk.unwritten()
        if problem:
            OUT.print(problem, soft_wrap=True, markup=False)
        elif changes:
            OUT.print(
                f"{changes:,} changes are not in {desk.target.path}: `holisafe review-votes export {place}` "
                "writes them.",
                soft_wrap=True,
                markup=False,
            )
        else:
            OUT.print(f"All votes are in {desk.target.path}.", soft_wrap=True, markup=False)


def export_votes(root: Path, place: str, *, store: Path | None, votes_to: Path | None, gold: bool) -> None:
    """Bring a file of votes up to date."""
    from pipeline.review import ReviewStore, flow_back, open_review_set

    if gold and votes_to is None:
        raise InputError("--only-gold: name the file with --votes-to, so that nobody takes it for all votes")
    items = open_review_set(place)
    target = _target(root, items, votes_to, gold=gold)
    with ReviewStore(_there(store or root / STORE)) as opened:
        _say_written(flow_back(opened, items, target))


def to_label_studio(
    place: str, options: ReviewOptions, out: Path, *, queue: str, prefix: str | None, with_votes: bool
) -> None:
    """Write the rows of a queue as tasks."""
    from pipeline.review.labelstudio import LOCAL_FILES, export_tasks

    items, queues = _open(place, options)
    if queue not in queues:
        known = ", ".join(list(queues)[:8])
        raise InputError(f"--queue {queue}: this dataset has no such queue; it has {known} and so on")
    count = export_tasks(
        items, queues[queue], out, prefix=LOCAL_FILES if prefix is None else prefix, with_votes=with_votes
    )
    OUT.print(
        f"{count:,} tasks: {out}/tasks.json; the labeling interface is {out}/config.xml.", soft_wrap=True
    )


def from_label_studio(
    root: Path, place: str, file: Path, *, store: Path | None, names: Sequence[str], gold: bool
) -> None:
    """Store what was answered in Label Studio."""
    from pipeline.review import ReviewStore, open_review_set
    from pipeline.review.labelstudio import import_tasks

    pairs = [name.rpartition("=") for name in names]
    if wrong := [name for name, (who, _, said) in zip(names, pairs, strict=True) if not who or not said]:
        raise InputError(f"--name {wrong[0]}: write it as WHO=NAME, such as anna@example.org=anna")
    items = open_review_set(place)
    with ReviewStore(store or root / STORE) as opened:
        done = import_tasks(opened, items, file, names={who: said for who, _, said in pairs}, gold=gold)
    for problem in done.problems:
        sys.stderr.write(f"{file}: {problem}\n")
    if done.problems and not done.annotations + done.there:
        raise InputError(f"{file}: nothing of it could be used")
    for who, reviewer in done.reviewers.items():
        OUT.print(f"{who} is {reviewer}", soft_wrap=True, markup=False)
    OUT.print(
        f"{done.annotations:,} annotations stored, {done.there:,} were there, "
        f"{len(done.problems):,} problems. "
        f"`holisafe review-votes export {place}` brings them to where votes go.",
        soft_wrap=True,
        markup=False,
    )


def _open(place: str, options: ReviewOptions) -> tuple[ReviewSet, dict[str, Queue]]:
    from pipeline.review import build_queues, open_review_set, read_suspects

    items = open_review_set(place)
    folder = options.audit or Path(place).parent / AUDIT
    found = read_suspects(folder) if options.audit or (folder / "metrics.json").is_file() else None
    return items, build_queues(items, found, options.seed, options.sample)


def _target(root: Path, items: ReviewSet, votes_to: Path | None, *, gold: bool = False) -> Target:
    from pipeline.review import default_target, named_target

    return default_target(root, items) if votes_to is None else named_target(votes_to, items, gold=gold)


def _there(store: Path) -> Path:
    if not store.is_file():
        raise InputError(f"{store}: nobody has reviewed anything here; --store names another file")
    return store


def _main(queues: Iterable[Queue]) -> list[Queue]:
    from pipeline.review.queues import CLASS

    return [queue for queue in queues if not queue.name.startswith(CLASS)]


def _say_rows(items: ReviewSet) -> None:
    left_out = items.data.problems.rows_left_out
    said = f"{len(items.ids):,} rows" + (f", {left_out:,} left out as unusable" if left_out else "")
    OUT.print(f"{said}: {items.data.place}", soft_wrap=True, markup=False)


def _say_written(done: Written) -> None:
    OUT.print(
        f"{done.votes:,} votes stand in {done.path}: {done.added:,} new, {done.dropped:,} gone; "
        f"{done.skipped:,} times nobody could say.",
        soft_wrap=True,
        markup=False,
    )
