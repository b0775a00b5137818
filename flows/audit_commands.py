"""What `holisafe agreement` does: how far the votes of any file agree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from schemas.errors import InputError

if TYPE_CHECKING:
    from pipeline.agreement import Agreement, Figure, Part

__all__ = ["show_agreement"]

OUT = Console()
GROUPS_SHOWN = 30


def show_agreement(file: Path, target: Path, order: str, rounds: int, seed: int) -> None:
    """Write all figures to `target` and print those of all annotators."""
    from pipeline.agreement import measure
    from pipeline.store import write_json

    found = measure(file, _words(order), rounds, seed)
    write_json(target, found.as_json())
    _show(found)
    n = sum(found.problem_counts.values())
    if n:
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in found.problem_counts.items())
        OUT.print(escape(f"{n:,} problems, told in {target}: {kinds}"), soft_wrap=True)


def _words(order: str) -> list[str]:
    """The words of `--order`."""
    words = [word.strip() for word in order.split(",")] if order else []
    if order and (len(words) < 2 or "" in words or len(set(words)) < len(words)):
        raise InputError(
            f"--order: {order!r} is no order; give two different values or more, lowest first, with commas "
            "between them"
        )
    return words


def _show(found: Agreement) -> None:
    notes: dict[str, int] = {}
    head = ("items", "raw", "alpha", "AC1/AC2", "Fleiss")
    table = Table(Column("group", overflow="fold"), *head, box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, part in _parts(found):
        figures = [_written(figure, notes) for figure in _figures(part)]
        table.add_row(_plain(name), f"{part.items:,}", *figures)
    OUT.print(
        f"{found.votes:,} votes of {found.annotators:,} annotators on {found.items:,} items, with 95 % "
        "bootstrap intervals",
        soft_wrap=True,
    )
    OUT.print(table)
    for reason, number in notes.items():
        OUT.print(_plain(f"({number}) {reason}"), soft_wrap=True)
    if len(found.groups) > GROUPS_SHOWN:
        OUT.print(f"{len(found.groups) - GROUPS_SHOWN:,} more groups are in the file.")


def _parts(found: Agreement) -> Iterator[tuple[str, Part]]:
    yield "overall", found.overall.all
    for name in ("families", "people"):
        part: Part = getattr(found.overall, name)
        if part.votes:
            yield f"overall, {name}", part
    for name, block in list(found.groups.items())[:GROUPS_SHOWN]:
        yield name, block.all


def _plain(text: str) -> str:
    """What a file says, so that a terminal takes none of it for a command."""
    return escape("".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text))


def _figures(part: Part) -> Sequence[Figure]:
    ordered = part.ac2.value is not None
    return part.raw, part.alpha, part.ac2 if ordered else part.ac1, part.fleiss


def _written(figure: Figure, notes: dict[str, int]) -> str:
    """A figure in a cell; what is to be said of it is a footnote."""
    text = "–" if figure.value is None else f"{figure.value:.2f}"
    if figure.low is not None and figure.high is not None:
        text += f" {figure.low:.2f}…{figure.high:.2f}"
    if figure.reason is not None:
        text += f" ({notes.setdefault(figure.reason, len(notes) + 1)})"
    return text
