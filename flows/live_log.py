"""Figures of a training as DVCLive writes them, for `dvc plots` and `dvc metrics`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.safellava.checkpoints import MetricLog
from pipeline.store import write_text

__all__ = ["LiveLog"]


class LiveLog(MetricLog):
    """DVCLive's files in a folder; they need its package."""

    def __init__(self, folder: Path) -> None:
        """Name the folder."""
        self._folder = folder
        self._live: Any = None

    def begin(self, step: int) -> None:
        """Take out lines of later steps, which DVCLive itself does not."""
        for path in (self._folder / "plots" / "metrics").glob("*.tsv"):
            head, *lines = path.read_text("utf-8").splitlines() or [""]
            kept = [head, *(line for line in lines if _is_until(line, step))]
            write_text(path, "".join(f"{line}\n" for line in kept))

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Add a line to each figure's file."""
        if self._live is None:
            self._live = self._opened(step)
        self._live.step = step
        for name, value in figures.items():
            self._live.log_metric(name, value)
        self._live.next_step()

    def end(self) -> None:
        """Let DVCLive end."""
        if self._live is not None:
            self._live.end()

    def _opened(self, step: int) -> Any:
        from dvclive.live import Live

        resume = step > 1
        if resume:  # it may be cut off, which DVCLive trips over; this step has the latest of all figures
            (self._folder / "metrics.json").unlink(missing_ok=True)
        return Live(str(self._folder), resume=resume, save_dvc_exp=False, dvcyaml=False, report=None)


def _is_until(line: str, step: int) -> bool:
    """Whether a line is of a step up to this one."""
    return (said := line.partition("\t")[0]).isdecimal() and int(said) <= step
