"""Progress bars with counts and time left."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

__all__ = ["RichProgress"]


class RichProgress:
    """Shows one bar a count on standard error; without a terminal, one line when a count is done."""

    def __init__(self, stage: str, say: Callable[[str], object] | None = None) -> None:
        """Name the stage that the bars belong to.

        Args:
            stage: its name.
            say: takes the line of each count that is done, where there is no terminal; None: standard error.
        """
        console = Console(stderr=True)
        self._stage = stage
        self._say = say or console.print
        self._plain = not console.is_terminal
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<34}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=self._plain,
        )
        self._task: TaskID | None = None
        self._what = ""

    def __enter__(self) -> RichProgress:
        """Start drawing."""
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop drawing; the bars stay."""
        self._finish()
        self._bars.stop()

    def start(self, what: str, total: int | None) -> None:
        """Begin a new bar of `total` items."""
        self._finish()
        self._what = what
        self._task = self._bars.add_task(
            f"{self._stage}: {what}" if what != self._stage else what, total=total
        )

    def advance(self, n: int = 1) -> None:
        """Count `n` more items."""
        if self._task is not None:
            self._bars.advance(self._task, n)

    def _finish(self) -> None:
        if self._task is None:
            return
        bar = self._bars.tasks[self._task]
        if bar.total is None:
            self._bars.update(self._task, total=bar.completed)
        if self._plain:
            self._say(f"{bar.description}: {int(bar.completed)} in {bar.elapsed or 0:.0f} s")
