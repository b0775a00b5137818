"""What `holisafe judge` does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from pipeline.bench import Judge, JudgedFile

__all__ = ["judge_response_file"]

OUT = Console()
ERR = Console(stderr=True)


def judge_response_file(file: Path, target: Path, name: str) -> None:
    """Write a verdict for each response to `target`, and print how many there are of each."""
    from flows.progress import RichProgress
    from pipeline.bench import OfficialString, RefusalJudge, judge_file

    judge: Judge = OfficialString() if name == OfficialString.name else RefusalJudge()
    with RichProgress("judge") as progress:
        judged = judge_file(file, target, judge, progress)
    _show(judged, name)
    for problem in judged.problems:
        ERR.print(escape(problem), soft_wrap=True, highlight=False)
    if judged.problem_lines:
        ERR.print(
            escape(f"{judged.problem_lines:,} lines with problems, all told in {target}"), soft_wrap=True
        )


def _show(judged: JudgedFile, name: str) -> None:
    from pipeline.bench.judging import VERDICTS
    from pipeline.intervals import wilson

    total = sum(judged.verdicts.values())
    table = Table("verdict", "rows", "share", "95 % interval", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for verdict in VERDICTS:
        count = judged.verdicts[verdict]
        low, high = wilson(count, total)
        table.add_row(
            verdict, f"{count:,}", f"{100 * count / total:.1f} %", f"{100 * low:.1f}–{100 * high:.1f} %"
        )
    OUT.print(f"{total:,} responses, judged by {name}", soft_wrap=True)
    OUT.print(table)
