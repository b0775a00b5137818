"""What a stage made for a part of a build, most often a class, kept until what it was made from changes.

A class that is added, or whose quota or policy changes, so has its own work done, and that of others is read.
A part is a folder of tables in `.holisafe/parts/<stage>/`, named after the fingerprint of everything that it
hangs on: what the stage's key holds of the stage as a whole (its version, params, prompts, voters, weights),
and what the stage says of the part (its class, the rows that it reads).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from pipeline.runner import stage_key
from pipeline.stages import STAGES
from pipeline.store import replace_directory, sha256_text
from pipeline.workspace import Workspace
from schemas.taxonomy import ClassInfo

__all__ = ["Parts", "make_again", "together", "told"]

AGAIN = "again"
AT_ONCE = 20_000
"""Rows of parts that are made together."""
Name = TypeVar("Name", bound=Hashable)


class Parts:
    """The parts of one stage. At the end of a `with` block, those that nobody asked for in it are deleted."""

    def __init__(self, workspace: Workspace, stage: str, apart: Collection[str]) -> None:
        """Name the stage.

        Args:
            workspace: of the build.
            stage: its name.
            apart: entries of the stage's `params` and `files` that do not hang on a part as a whole: what
                matters of them the stage says for each part.
        """
        self._folder = workspace.state / "parts" / stage
        said = STAGES[stage]
        whole = replace(
            said,
            inputs=(),
            params=tuple(name for name in said.params if name not in apart),
            files=tuple(name for name in said.files if name not in apart),
        )
        self._whole = stage_key(workspace, whole)
        self._used: set[str] = set()

    def key(self, *of: Any) -> str:
        """The name of the part that is made from this: values that JSON holds."""
        return sha256_text(json.dumps([self._whole, of], sort_keys=True, ensure_ascii=False))

    def find(self, key: str) -> Path | None:
        """The folder of a part, or None where it has to be made."""
        self._used.add(key)
        folder = self._folder / key
        return folder if folder.is_dir() and not (folder / AGAIN).exists() else None

    @contextmanager
    def making(self, key: str) -> Iterator[Path]:
        """A folder for the tables of a part; the part is there when the block ends without an error."""
        new = self._folder / f".{key}"
        shutil.rmtree(new, ignore_errors=True)  # of a build that was killed
        new.mkdir(parents=True)
        yield new
        replace_directory(new, self._folder / key)
        self._used.add(key)

    def all(self, keys: Sequence[str]) -> list[Path]:
        """The folders of parts that are there."""
        return [self._folder / key for key in keys]

    def __enter__(self) -> Parts:
        """Use as a context."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Delete the parts that this build does not hold, unless it ends early."""
        if kind is None and self._folder.is_dir():
            for folder in self._folder.iterdir():
                if folder.name not in self._used:
                    # Renamed first: half a part must not look like a whole one.
                    gone = self._folder / f".{folder.name.lstrip('.')}.gone"
                    shutil.rmtree(gone, ignore_errors=True)
                    if folder != gone:
                        folder.rename(gone)
                        shutil.rmtree(gone)


def make_again(folder: Path) -> None:
    """Note that a call behind a part had no answer: it is asked again when the stage runs again.

    The part serves this build. Errors are never kept (docs/engine.md), nor is what was made of them.
    """
    (folder / AGAIN).touch()


def together(
    names: Iterable[Name], sizes: Mapping[Name, int], *, all_at_once: bool = False
) -> Iterator[list[Name]]:
    """Parts that are made together: as many as have no more than `AT_ONCE` rows, or one that has more.

    Together, so that an endpoint has enough to do; no more, so that memory does not grow with the build.

    Args:
        names: of the parts, in their order.
        sizes: the rows of each.
        all_at_once: whether they are made together whatever their number: a batch may take a day, and one
            should not wait for another.
    """
    some: list[Name] = []
    for name in names:
        if some and not all_at_once and sum(sizes[each] for each in (*some, name)) > AT_ONCE:
            yield some
            some = []
        some.append(name)
    if some:
        yield some


def told(info: ClassInfo) -> dict[str, Any]:
    """Everything that the taxonomy says of a class, for a key."""
    return {"id": info.id, "name": info.name, "category": info.category, "spec": info.spec.model_dump()}
