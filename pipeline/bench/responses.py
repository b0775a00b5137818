"""Responses in a file of JSON Lines, judged while they are read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pipeline.bench.judging import Judge, Response, Verdict
from pipeline.store import new_text, write_json_list
from pipeline.workspace import Progress, Silent
from schemas.errors import InputError

__all__ = ["JudgedFile", "judge_file"]

ROWS, BYTES = 20_000, 32_000_000
"""Of lines that are in memory at once, whichever is reached first."""
LONGEST_LINE = 8_000_000
TOLD = 10


@dataclass
class JudgedFile:
    """What was made of a file.

    Attributes:
        verdicts: how many rows have each.
        problem_lines: how many lines have something wrong.
        problems: the first of them, as they are told.
        texts: how many rows had a text.
    """

    verdicts: Counter[str] = field(default_factory=Counter)
    problem_lines: int = 0
    problems: list[str] = field(default_factory=list)
    texts: int = 0


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    size: int
    response: Response | None
    problems: tuple[str, ...] = ()


def judge_file(file: Path, target: Path, judge: Judge, progress: Progress) -> JudgedFile:
    """Judge each row of a file, and write a row for each line: what was found, and what is wrong with it.

    Args:
        file: JSON Lines with id and response, and query where it is known.
        target: where the JSON goes.
        judge: who judges.
        progress: told of every row.

    Raises:
        InputError: the file cannot be read, or no line of it can be judged; `target` tells why then.
    """
    if target.exists() and file.exists() and target.samefile(file):
        raise InputError(f"{target}: the result would take the place of the responses")
    judged = JudgedFile()
    progress.start("judging responses", None)
    try:
        with file.open("rb") as source, new_text(target) as out:
            out.write(f'{{"file": {json.dumps(str(file))}, "judge": {json.dumps(judge.name)}, "rows": ')
            write_json_list(out, _rows(source, judge, judged, progress))
            counts = json.dumps(dict(judged.verdicts))
            out.write(f', "verdicts": {counts}, "problem_lines": {judged.problem_lines}}}\n')
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise InputError(f"{error.filename}: {error.strerror}") from None
    if not judged.texts:
        said = "\n  ".join(judged.problems) or "it is empty"
        raise InputError(f"{file}: no line of it can be judged\n  {said}")
    return judged


def _rows(source: BinaryIO, judge: Judge, judged: JudgedFile, progress: Progress) -> Iterator[dict[str, Any]]:
    seen = _Seen()
    for lines in _together(source):
        known = seen.again([line.response.id if line.response else None for line in lines])
        responses = [line.response for line in lines if line.response is not None]
        judged.texts += sum(response.text is not None for response in responses)
        verdicts = iter(judge.judge(responses, Silent()))
        for line, again in zip(lines, known, strict=True):
            problems = (*line.problems, *(("the id stands above already",) if again else ()))
            verdict = next(verdicts) if line.response is not None else None
            if verdict is not None:
                judged.verdicts[verdict.value] += 1
            for problem in problems[: max(0, TOLD - len(judged.problems))]:
                judged.problems.append(f"line {line.number}: {problem}")
            judged.problem_lines += bool(problems)
            yield _row(line, verdict, problems)
        progress.advance(len(lines))


def _row(line: _Line, verdict: Verdict | None, problems: tuple[str, ...]) -> dict[str, Any]:
    row: dict[str, Any] = {"line": line.number}
    if line.response is not None and verdict is not None:
        row |= {
            "id": line.response.id.encode("utf-8", "replace").decode(),  # half a surrogate pair is no UTF-8
            "verdict": verdict.value,
            "score": verdict.score,
            "why": verdict.why,
        }
    if problems:
        row["problems"] = list(problems)
    return row


def _together(source: BinaryIO) -> Iterator[list[_Line]]:
    """Lines, as many as may be in memory."""
    some: list[_Line] = []
    size = 0
    for line in _lines(source):
        some.append(line)
        size += line.size
        if len(some) == ROWS or size > BYTES:
            yield some
            some, size = [], 0
    if some:
        yield some


def _lines(source: BinaryIO) -> Iterator[_Line]:
    number = 0
    while raw := source.readline(LONGEST_LINE):
        number += 1
        if len(raw) == LONGEST_LINE and not raw.endswith(b"\n"):
            while (rest := source.readline(LONGEST_LINE)) and not rest.endswith(b"\n"):
                pass
            yield _Line(number, 0, None, (f"longer than {LONGEST_LINE:,} bytes",))
            continue
        if number == 1:
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        if raw.strip():
            yield _parsed(number, raw)


def _parsed(number: int, raw: bytes) -> _Line:
    try:
        row = json.loads(raw)
    except (ValueError, RecursionError):  # no UTF-8 is a ValueError as well
        return _Line(number, 0, None, ("no JSON",))
    if not isinstance(row, dict):
        return _Line(number, 0, None, ("no JSON object",))
    if "response" not in row:
        return _Line(number, 0, None, ("no field response",))
    problems = []
    name, text, query = row.get("id"), row["response"], row.get("query")
    if isinstance(name, bool) or not isinstance(name, str | int) or name == "":
        problems.append("no id: it is called by its line")
        name = f"line {number}"
    if not isinstance(text, str):
        problems.append(f"response is {_kind(text)}, no text")
        text = None
    if query is not None and not isinstance(query, str):
        problems.append(f"query is {_kind(query)}, no text")
        query = None
    return _Line(number, len(raw), Response(str(name), text, query), tuple(problems))


def _kind(value: object) -> str:
    if value is None:
        return "null"
    names = {bool: "true or false", list: "a list", dict: "an object"}
    return names.get(type(value), "a number")


class _Seen:
    """The ids that were there already: eight bytes each."""

    def __init__(self) -> None:
        self._hashes = np.empty(0, np.int64)

    def again(self, names: list[str | None]) -> list[bool]:
        """Which of the next names were there before."""
        hashes = np.array([hash(name) for name in names if name is not None], np.int64)
        new, first = np.unique(hashes, return_index=True)
        repeated = np.ones(len(hashes), np.bool_)
        repeated[first] = np.isin(new, self._hashes)
        self._hashes = np.union1d(self._hashes, new)
        flags = iter(repeated.tolist())
        return [next(flags) if name is not None else False for name in names]
