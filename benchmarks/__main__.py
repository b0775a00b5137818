"""Everything that is measured, each held to its bound.

    python -m benchmarks [--only NAME …] [--data NAME=FOLDER …] [--quick] [--history [FILE]] [--keep DIR]
    python -m benchmarks --list
    python -m benchmarks --table [FILE] [--history FILE]

Each entry runs in a process of its own, one after the other; its figures are kept as NAME.json and what it
said as NAME.log. Entries that need data of others run only where `--data` names a folder for them. `--quick`
runs small sizes, to see that everything works; nothing is then held to a bound or put in a history.
`--history` appends the figures to docs/benchmarks.csv, and `--table` writes the newest of them as Markdown,
between the marks of a page, with the curves as a picture beside it. The exit code is 1 where an entry
failed or a bound was missed, 2 where the command is wrong.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.entries import ENTRIES, Entry, bound_of
from benchmarks.history import append, commit_of, draw, lines_of, markdown, read, renewed
from benchmarks.running import Row, run_entry, wanted
from benchmarks.surroundings import environment
from pipeline.store import write_json

HISTORY = Path("docs/benchmarks.csv")
PACKAGES = ("dvc", "numpy", "open_clip_torch", "pandas", "pillow", "prefect", "pyarrow", "torch")


def listed(entries: Sequence[Entry]) -> str:
    """What is measured, and the bounds."""
    lines = []
    for entry in entries:
        needs = "  (only with --data)" if entry.needs_data else ""
        lines.append(f"{entry.name}: {entry.what}{needs}")
        lines += [
            f"    {metric.label} {bound_of(metric) or '-'}{'  [time]' if metric.timed else ''}"
            for metric in entry.metrics
        ]
    return "\n".join(lines)


def shown(row: Row) -> str:
    """A row as it is printed."""
    mark = {True: "ok  ", False: "MISS", None: "    "}[row.held]
    value = (
        "" if row.value is None else f" {row.value:,.4g}" if abs(row.value) < 1000 else f" {row.value:,.0f}"
    )
    bound = f"  (bound: {row.bound})" if row.bound else ""
    return f"{mark} {row.entry}: {row.metric}{value}{bound}" + (f"  {row.note}" if row.note else "")


def folders(given: Sequence[str]) -> dict[str, Path]:
    """`NAME=FOLDER` as a table.

    Raises:
        ValueError: when one is no such pair, or its folder is not there.
    """
    found = {}
    for each in given:
        name, mark, folder = each.partition("=")
        if not mark or not Path(folder).exists():
            raise ValueError(f"--data {each}: NAME=FOLDER, with a folder that is there")
        found[name] = Path(folder)
    return found


def put_table(history: Path, page: Path | None) -> None:
    """Print the newest figures, or put them in a page, with a picture beside it.

    Raises:
        ValueError: when the page has no marks, or the history other columns.
    """
    lines = read(history)
    table = markdown(lines)
    if page is None:
        print(table)
        return
    picture = page.with_suffix(".svg")
    if draw(lines, picture):
        table += f"\n\n![The curves: figures over sizes, by powers of ten]({picture.name})"
    page.write_text(renewed(page.read_text("utf-8"), table), "utf-8")


def main(argv: Sequence[str] | None = None, entries: Sequence[Entry] = ENTRIES) -> int:
    """Measure, print a line for each figure, and say whether every bound held."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME")
    parser.add_argument("--data", nargs="+", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--quick", action="store_true", help="small sizes, no bounds")
    parser.add_argument(
        "--history", nargs="?", type=Path, const=HISTORY, help=f"a CSV; without a name {HISTORY}"
    )
    parser.add_argument("--keep", type=Path, default=Path(".holisafe/bench"), help="where figures are kept")
    parser.add_argument("--list", action="store_true", help="what there is, and its bounds")
    parser.add_argument("--table", nargs="?", const="", help="the newest figures, as Markdown")
    args = parser.parse_args(argv)
    if args.quick and args.history:
        parser.error("--quick measures small sizes, which do not belong in a history")
    try:
        if args.list:
            print(listed(entries))
            return 0
        if args.table is not None:
            put_table(args.history or HISTORY, Path(args.table) if args.table else None)
            return 0
        if args.history:
            read(args.history)  # hours later would be late to find that it is no history
        data = folders(args.data)
        chosen = wanted(entries, args.only, data)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    args.keep.mkdir(parents=True, exist_ok=True)
    where, commit = environment(PACKAGES), commit_of(Path.cwd())
    write_json(args.keep / "environment.json", where | {"commit": commit})
    busy = where["load_before"] > where["cores"] / 2
    if busy:
        print(f"others use this machine (load {where['load_before']:.1f}): times will be worse", flush=True)
    if args.quick:
        print("small sizes: figures are smaller than their names say, and held to nothing", flush=True)
    rows: list[Row] = []
    for entry in chosen:
        if args.quick and entry.quick is None:
            print(f"     {entry.name}: left out, it has no small size", flush=True)
            continue
        began = time.monotonic()
        found = run_entry(entry, args.keep, data.get(entry.name), quick=args.quick)
        for row in found:
            print(shown(row), flush=True)
        print(f"     {entry.name}: {time.monotonic() - began:.0f} s", flush=True)
        rows += found
        if args.history:  # entry by entry: what was measured stays, whatever happens to the rest
            append(args.history, lines_of(found, where, commit))
    missed = [row for row in rows if row.held is False]
    names = {row.entry for row in rows}
    print(f"{len(rows)} figures of {len(names)} entries, {len(missed)} missed; in {args.keep}")
    if busy and any(row.timed for row in missed):
        print("times were missed while others used this machine: measure again when it is idle")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
