"""What goes wrong with an SQLite file, told as what goes wrong with any file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["told_as_of_file"]


@contextmanager
def told_as_of_file(path: Path) -> Iterator[None]:
    """Use an SQLite file in this block.

    Raises:
        OSError: naming the file, where SQLite cannot read or write it, for instance as the disk is full.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise OSError(
            f"{path}: {error}; see to the disk or the file, and run the same command again"
        ) from error
