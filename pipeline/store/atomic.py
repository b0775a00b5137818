"""Whole files or none: every write goes to a neighbour first and is renamed into place."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

__all__ = [
    "new_text",
    "replace_directory",
    "take_over",
    "write_bytes",
    "write_json",
    "write_json_list",
    "write_text",
]


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all.

    Raises:
        OSError: for instance when the disk is full; the old file, if any, stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def take_over(old: Path, new: Path) -> None:
    """Put a file that is there already, whole and for good, at `new` as well, without writing it again."""
    new.parent.mkdir(parents=True, exist_ok=True)
    try:
        new.hardlink_to(old.resolve())
    except OSError:  # another file system, or one without links
        part = new.with_name(f".{new.name}.partial")
        shutil.copyfile(old, part)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(new)


@contextmanager
def new_text(path: Path) -> Iterator[TextIO]:
    """A file to write UTF-8 to piece by piece; it is at `path` when the context ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON with a final newline; NaN is an error, not a token other readers choke on."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def write_json_list(file: TextIO, items: Iterable[Any]) -> None:
    """Write a JSON list, an item a line, with one item in memory at a time."""
    before = "[\n"
    for item in items:
        file.write(before + json.dumps(item, ensure_ascii=False, allow_nan=False))
        before = ",\n"
    file.write("[]\n" if before == "[\n" else "\n]\n")


def replace_directory(new: Path, target: Path) -> None:
    """Put the directory `new` in the place of `target`.

    A crash between the two renames leaves no `target`; its stage then counts as not run.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    old = new.with_name(new.name + ".old")
    shutil.rmtree(old, ignore_errors=True)  # of a swap that was cut off
    if target.exists():
        target.rename(old)
    new.rename(target)
    if old.exists():
        shutil.rmtree(old)
