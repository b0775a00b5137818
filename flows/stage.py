"""How a stage becomes a Prefect task and a flow of its own.

Prefect's caching and retries are off: the stage key decides what runs, and model calls are retried where
they are made.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.progress import RichProgress
from flows.runners import workers_of
from pipeline.runner import locked, run_stage
from pipeline.workspace import Workspace

if TYPE_CHECKING:
    from prefect import Flow, Task

__all__ = ["stage_flow", "stage_task"]


def stage_task(name: str) -> Task[[Path], bool]:
    """A Prefect task that runs the stage `name` in a workspace which the flow holds."""

    def run(root: Path) -> bool:
        with RichProgress(name) as progress:
            return run_stage(Workspace(root), name, progress)

    return task(name=name, cache_policy=NO_CACHE, retries=0, persist_result=False)(run)


def stage_flow(name: str, work: Task[[Path], bool]) -> Flow[[Path], bool]:
    """A Prefect flow that runs the one stage `name`."""

    def run(root: Path) -> bool:
        workspace = Workspace(root)
        workspace.check()
        with locked(workspace), workers_of(workspace.params.execution):
            return work(root)

    made: Any = flow(name=name, validate_parameters=False)(run)
    return made  # type: ignore[no-any-return]
