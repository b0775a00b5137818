"""Rows of a JSON list or of JSON Lines, one by one, with little of the file in memory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from schemas.errors import InputError

__all__ = ["CHUNK", "MOST", "Unreadable", "json_rows", "list_items"]

CHUNK = 1 << 16
"""Characters that are read at one time."""
MOST = 1 << 24
"""Characters that a row may have; a longer one is taken for a fault of the file."""
NUMBER_MARKS = 2
"""Characters that may follow a whole number without making another of it until a digit comes: `e-`."""
_SPACE = re.compile(r"[ \t\n\r]*")
_decode = json.JSONDecoder().raw_decode


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Stands where a row should be and no JSON is.

    Attributes:
        problem: what is wrong, and where.
    """

    problem: str


def json_rows(path: Path) -> Iterator[Any]:
    """The rows of a file; an `Unreadable` for what is no JSON, after which a list has no further row.

    Bytes that are no UTF-8 become lone surrogates, so that they can be told row by row.

    Raises:
        InputError: when the file cannot be read, or begins like neither a list nor lines of objects.
    """
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
            first = " "
            while first and first in " \t\n\r":
                first = file.read(1)
            if first == "[":
                yield from list_items(file)
            elif first == "{":
                yield from _lines(file, first)
            else:
                found = f"begins with {first!a}" if first else "is empty"
                raise InputError(
                    f"{path}: {found}; predictions are one JSON list of objects, or JSON Lines, in UTF-8"
                )
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


def list_items(file: TextIO, chunk: int = CHUNK, most: int = MOST) -> Iterator[Any]:
    """The items of a JSON list whose opening bracket has been read.

    Args:
        file: the rest of the list.
        chunk: characters that are read at one time, from 1.
        most: characters that an item may have.
    """
    window = _Window(file, chunk, most)
    try:
        if window.peek() != "]":
            yield window.value()
            while window.peek() == ",":
                window.skip()
                window.peek()
                yield window.value()
        if window.peek() != "]":
            raise window.broken("neither a comma nor the end of the list")
        window.skip()
        if window.peek():
            raise window.broken("something after the end of the list")
    except _BrokenError as error:
        yield Unreadable(str(error))


class _BrokenError(Exception):
    """The list cannot be read further."""


class _Window:
    """The part of a file that is in memory."""

    def __init__(self, file: TextIO, chunk: int, most: int) -> None:
        self._file, self._chunk, self._most = file, chunk, most
        self._text, self._at, self._before = "", 0, 1

    def peek(self) -> str:
        """The next character that is no space; empty at the end of the file."""
        while True:
            self._at = _end_of_space(self._text, self._at)
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def skip(self) -> None:
        self._at += 1

    def value(self) -> Any:
        """The value that begins here."""
        while True:
            try:
                value, end = _decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if len(self._text) - self._at >= self._most:
                    raise self.broken(f"a row is no JSON, or longer than {self._most:,} characters") from None
                # What was cut by the edge of the window looks like an error, too.
                if not self._more():
                    raise self.broken(error.msg, error.pos) from None
                continue
            except (ValueError, RecursionError) as error:
                raise self.broken(str(error)) from None
            # A number may go on beyond the edge: of `1e-5` up to `1e-` may stand before it.
            if len(self._text) - end <= NUMBER_MARKS and self._more():
                continue
            self._at = end
            return value

    def broken(self, problem: str, at: int | None = None) -> _BrokenError:
        place = self._before + (self._at if at is None else at)
        return _BrokenError(f"{problem}, at character {place + 1:,}; no further row can be read")

    def _more(self) -> bool:
        # As much again as there is: a long row is not begun once for every chunk of it.
        piece = self._file.read(max(self._chunk, len(self._text) - self._at))
        if piece:
            self._before += self._at
            self._text, self._at = self._text[self._at :] + piece, 0
        return bool(piece)


def _end_of_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def _lines(file: TextIO, begun: str) -> Iterator[Any]:
    """The rows of a file by lines, of which the first has `begun`."""
    while line := begun + file.readline(MOST):
        begun = ""
        if len(line) >= MOST and not line.endswith("\n"):
            while (rest := file.readline(MOST)) and not rest.endswith("\n"):
                pass
            yield Unreadable(f"a line longer than {MOST:,} characters")
        elif line.strip():
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:
                yield Unreadable(str(error))
