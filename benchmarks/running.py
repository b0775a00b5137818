"""Runs an entry in a process of its own, and reads and judges its figures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.entries import DATA, Entry, Metric, Points, at, bound_of, held
from benchmarks.surroundings import last_line

__all__ = ["FAILED", "POINT", "Row", "command_of", "points_of", "rows_of", "run_entry", "wanted"]

FAILED = "failed"
OTHERS = "its own bounds"
POINT = " @ "
"""Stands between a figure of a curve and the size that it was measured at."""


@dataclass(frozen=True)
class Row:
    """A line of the results.

    Attributes:
        entry: its name.
        metric: its label, or `FAILED`.
        value: the figure; None where there is none.
        bound: as it is written; empty without one.
        held: whether it held; None where nothing is held against it.
        timed: whether another machine, or company on this one, makes it worse.
        note: why, where it failed.
    """

    entry: str
    metric: str
    value: float | None
    bound: str = ""
    held: bool | None = None
    timed: bool = False
    note: str = ""


def command_of(entry: Entry, out: Path, data: Path | None, *, quick: bool) -> list[str]:
    """The command line of an entry."""
    command = [part.replace(DATA, str(data)) for part in entry.command]
    return [sys.executable, *command, *((entry.quick or ()) if quick else ()), "--out", str(out)]


def run_entry(entry: Entry, folder: Path, data: Path | None = None, *, quick: bool = False) -> list[Row]:
    """Run an entry to its end, and judge it.

    Its figures stay in `folder` as NAME.json, what it said as NAME.log.

    Args:
        entry: what to run.
        folder: where files are kept.
        data: the folder that was given for it.
        quick: run it small; nothing is then held to its bounds, which are those of the whole size.

    Returns:
        A row for each figure; a single one where it failed.
    """
    out, log = folder / f"{entry.name}.json", folder / f"{entry.name}.log"
    out.unlink(missing_ok=True)  # an older run's figures must not pass for those of one that fails
    with log.open("w") as said:
        process = subprocess.Popen(
            command_of(entry, out, data, quick=quick),
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(entry.limit_s)
        except subprocess.TimeoutExpired:
            return [_failure(entry, f"it did not end within {entry.limit_s:g} s")]
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    text = log.read_text(errors="replace")
    try:
        report = json.loads(out.read_text())
    except (FileNotFoundError, ValueError):
        return [_failure(entry, f"exit code {code}: {last_line(text)}")]
    if code not in (0, 1):  # 1 is what it says where it missed a bound of its own
        return [_failure(entry, f"exit code {code}: {last_line(text)}")]
    rows = rows_of(entry, report, quick=quick)
    if code and not quick and not any(row.held is False for row in rows):
        rows.append(Row(entry.name, OTHERS, None, held=False, note=_missed(text)))
    return rows


def rows_of(entry: Entry, report: Mapping[str, Any], *, quick: bool = False) -> list[Row]:
    """The figures of a report, each held to its bounds."""
    rows = [_row(entry, metric, report, quick) for metric in entry.metrics]
    if entry.points is not None:
        try:
            points = points_of(entry.points, report)
        except (KeyError, TypeError, ValueError) as error:
            return [*rows, _failure(entry, f"no curve in its figures: {error}")]
        rows += [
            Row(entry.name, f"{label}{POINT}{size:,} {entry.points.of}", value)
            for size, figures in points
            for label, value in figures.items()
        ]
    return rows


def points_of(points: Points, report: Mapping[str, Any]) -> list[tuple[int, dict[str, float]]]:
    """A curve: size, and figures by label, in the order of sizes.

    Raises:
        KeyError: when something of it is not there.
    """
    found = at(report, points.where)
    listed = (
        [(int(size), figures) for size, figures in found.items()]
        if isinstance(found, Mapping)
        else [(int(at(figures, (points.size,))), figures) for figures in found]
    )
    return [
        (size, {label: float(at(figures, (name,))) for name, label in points.columns.items()})
        for size, figures in sorted(listed, key=lambda pair: pair[0])
    ]


def _row(entry: Entry, metric: Metric, report: Mapping[str, Any], quick: bool) -> Row:
    bound = "" if quick else bound_of(metric)
    try:
        value = float(at(report, metric.where))
    except (KeyError, TypeError, ValueError):
        place = "/".join(map(str, metric.where))
        return Row(
            entry.name, metric.label, None, bound, False, metric.timed, f"no number at {place} in its figures"
        )
    judged = held(metric, value) if bound else None
    return Row(entry.name, metric.label, value, bound, judged, metric.timed)


def _failure(entry: Entry, why: str) -> Row:
    return Row(entry.name, FAILED, None, held=False, note=why)


def _missed(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.lower().startswith("miss")]
    return "; ".join(lines) or last_line(text)


def wanted(entries: Sequence[Entry], only: Sequence[str], data: Mapping[str, Path]) -> list[Entry]:
    """Those to run: the named ones, or all that need no folder or have one.

    Raises:
        ValueError: when a named one needs a folder that is not given, or there is no such entry.
    """
    known = {entry.name: entry for entry in entries}
    unknown = sorted({*only, *data} - known.keys())
    if unknown:
        raise ValueError(f"no entry {', '.join(unknown)}; there are: {', '.join(known)}")
    chosen = [known[name] for name in dict.fromkeys(only)] if only else list(entries)
    lacking = [entry.name for entry in chosen if entry.needs_data and entry.name not in data]
    if only and lacking:
        raise ValueError(f"{lacking[0]} needs a folder: --data {lacking[0]}=FOLDER")
    return [entry for entry in chosen if entry.name not in lacking]
