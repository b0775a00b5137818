"""The commands that change the taxonomy: `add`, `retire`, `lock` and `log`."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from schemas.params import load_params
from schemas.taxonomy_lock import lock_path, read_lock

__all__ = ["add_to_taxonomy", "lock_taxonomy", "retire_from_taxonomy", "show_taxonomy_log"]

OUT = Console()


def add_to_taxonomy(root: Path, category: str, name: str, title: str, filled: Path | None) -> None:
    """Add a class, and say what is left to do."""
    from pipeline.taxonomy_edit import TODO, add_class

    changed = add_class(root, load_params(root), category, name, title, filled)
    OUT.print(f"{name} was added to {_listed(root, changed)}.")
    if filled is None:
        OUT.print(f"Write what is marked {TODO} there; `holisafe taxonomy check` names each place.")
    OUT.print("`holisafe plan` tells what its pairs will take.")


def retire_from_taxonomy(root: Path, name: str, *, yes: bool) -> None:
    """Say which rows go with a class, and take it away where that was confirmed."""
    from pipeline.taxonomy_edit import retire_class, rows_of_class

    rows = rows_of_class(root, name)
    said = ", ".join(f"{n} {kind}" for kind, n in rows.items()) or "no rows"
    if not yes:
        OUT.print(f"With {name} the next build loses {said} of data/dataset; add --yes to take it away.")
        return
    changed = retire_class(root, load_params(root), name)
    OUT.print(f"{name} was taken out of {_listed(root, changed)}; the next build loses {said}.")


def lock_taxonomy(root: Path, note: str) -> None:
    """Add new classes to the lock."""
    from pipeline.taxonomy_edit import lock_classes

    added = lock_classes(root, load_params(root), note)
    for line in added:
        OUT.print(f"{line.class_key} has {line.id} for good.")
    if not added:
        OUT.print("Every class has its id already.")


def show_taxonomy_log(root: Path) -> None:
    """Print the lock, line by line."""
    table = Table("version", "change", "id", Column("class", no_wrap=True), "note", box=None)
    for line in read_lock(lock_path(root / load_params(root).taxonomy)):
        table.add_row(str(line.version), line.change, str(line.id), line.class_key, line.note)
    OUT.print(table)


def _listed(root: Path, paths: list[Path]) -> str:
    return ", ".join(str(path.relative_to(root)) for path in paths)
