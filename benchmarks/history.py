"""The history of figures: rows of a committed CSV, the newest as Markdown, curves as a picture."""

from __future__ import annotations

import csv
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.running import POINT, Row

__all__ = ["BEGIN", "END", "Line", "append", "commit_of", "curves", "draw", "lines_of", "markdown", "newest"]
__all__ += ["read", "renewed"]

BEGIN = "<!-- figures: python -m benchmarks --table docs/performance.md writes what stands between -->"
END = "<!-- end of figures -->"
PACKAGE = "holisafe-pipeline"


@dataclass(frozen=True)
class Line:
    """A row of the history; all of it as it is written."""

    date: str
    commit: str
    version: str
    cpu: str
    cores: str
    entry: str
    metric: str
    value: str
    bound: str
    held: str


COLUMNS = [field.name for field in fields(Line)]


def commit_of(root: Path) -> str:
    """The commit that is measured, with `-dirty` where files differ from it; empty without git."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--exclude", "*"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def lines_of(rows: Iterable[Row], environment: dict[str, Any], commit: str) -> list[Line]:
    """Results as rows of the history; what runs together has one date."""
    date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    words = {True: "yes", False: "no", None: ""}
    return [
        Line(
            date,
            commit,
            version(PACKAGE),
            environment["cpu"],
            str(environment["cores"]),
            row.entry,
            row.metric,
            "" if row.value is None else f"{row.value:.6g}",
            row.bound,
            words[row.held],
        )
        for row in rows
    ]


def append(path: Path, lines: Sequence[Line]) -> None:
    """Put rows at the end of a history, which is begun where there is none.

    Raises:
        ValueError: when the file has other columns.
    """
    read(path)
    begin = not path.exists() or not path.stat().st_size
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if begin:
            writer.writerow(COLUMNS)
        writer.writerows(astuple(line) for line in lines)


def read(path: Path) -> list[Line]:
    """The rows of a history, the oldest first; none where there is no file.

    Raises:
        ValueError: when it has other columns.
    """
    if not path.exists() or not path.stat().st_size:
        return []
    with path.open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    if head != COLUMNS or any(len(row) != len(COLUMNS) for row in rows):
        raise ValueError(f"{path}: its columns must be {', '.join(COLUMNS)}")
    return [Line(*row) for row in rows]


def newest(lines: Sequence[Line]) -> list[Line]:
    """The rows of the newest run of each entry, in the order in which entries first came.

    An entry always measures all that it has. So what its newest run lacks is measured no more, and where it
    failed, what it measured before is not what it measures now.
    """
    last = {line.entry: line.date for line in sorted(lines, key=lambda line: line.date)}
    order = list(dict.fromkeys(line.entry for line in lines))
    now = [line for line in lines if line.date == last[line.entry]]
    return sorted(now, key=lambda line: order.index(line.entry))


def curves(lines: Sequence[Line]) -> dict[tuple[str, str], dict[int, dict[str, str]]]:
    """Curves in rows of a history: by entry and what the size is of, figures by size and label."""
    found: dict[tuple[str, str], dict[int, dict[str, str]]] = {}
    for line in lines:
        label, mark, place = line.metric.partition(POINT)
        size = re.fullmatch(r"([\d,]+) (.+)", place)
        if mark and size:
            curve = found.setdefault((line.entry, size[2]), {})
            curve.setdefault(int(size[1].replace(",", "")), {})[label] = line.value
    return found


def markdown(lines: Sequence[Line]) -> str:
    """The newest figures as tables: one of figures and bounds, one for each curve, and where it was."""
    rows = newest(lines)
    if not rows:
        return "Nothing has been measured yet."
    table = [
        [line.entry, line.metric, _shown(line.value), line.bound, {"no": "**no**"}.get(line.held, line.held)]
        for line in rows
        if POINT not in line.metric
    ]
    parts = [_table(["entry", "figure", "measured", "bound", "held"], table)]
    for (entry, of), curve in curves(rows).items():
        labels = list(dict.fromkeys(label for figures in curve.values() for label in figures))
        body = [
            [f"{size:,}", *(_shown(figures.get(label, "")) for label in labels)]
            for size, figures in sorted(curve.items())
        ]
        parts.append(f"`{entry}`:\n\n" + _table([of, *labels], body))
    parts.append(_table(["entries", "date", "commit", "version", "machine"], _places(rows)))
    return "\n\n".join(parts)


def _places(rows: Sequence[Line]) -> list[list[str]]:
    found: dict[tuple[str, ...], list[str]] = {}
    for line in rows:
        key = (line.date[:10], line.commit, line.version, f"{line.cpu}, {line.cores} cores")
        names = found.setdefault(key, [])
        if line.entry not in names:
            names.append(line.entry)
    return [[", ".join(names), *key] for key, names in found.items()]


def _shown(value: str) -> str:
    """A figure as people read it: three digits, thousands apart."""
    if not value:
        return "–"
    number = float(value)
    if number == int(number) or abs(number) >= 1000:
        return f"{number:,.0f}"
    return f"{number:.3g}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(row)} |".replace("  ", " ") for row in cells)


def renewed(page: str, table: str) -> str:
    """A page with the figures put between its marks.

    Raises:
        ValueError: when it has no marks.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"there are no marks for the figures: {BEGIN} and {END}")
    return f"{before}{begin}\n\n{table}\n\n{end}{after}"


def draw(lines: Sequence[Line], path: Path) -> bool:
    """Draw every curve of the newest rows: figures over sizes, both by powers of ten.

    Returns:
        Whether there was anything to draw.
    """
    import matplotlib as mpl

    found = {name: curve for name, curve in curves(newest(lines)).items() if len(curve) > 1}
    if not found:
        return False
    mpl.use("svg")
    from matplotlib import pyplot as plt

    with mpl.rc_context({"svg.hashsalt": PACKAGE, "font.size": 9}):
        figure, axes = plt.subplots(1, len(found), figsize=(4.2 * len(found), 3.4), squeeze=False)
        for axis, ((entry, of), curve) in zip(axes[0], found.items(), strict=True):
            sizes = sorted(curve)
            for label in curve[sizes[0]]:
                values = [float(curve[size].get(label) or "nan") for size in sizes]
                axis.plot(sizes, values, marker="o", label=label)
            axis.set(title=entry, xlabel=of, xscale="log", yscale="log")
            axis.grid(alpha=0.3)
            axis.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, frameon=False)
        figure.tight_layout()
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)
    return True
