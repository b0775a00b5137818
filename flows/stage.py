"""How a stage becomes a Prefect task and a flow of its own.

Prefect's caching is off: the stage key decides what runs. Model calls are retried where they are made; a
whole stage is tried again only where a flow asks for it, which deployments do (flows/deploy.py).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import deployment, flow_run

from flows.progress import RichProgress
from flows.runners import workers_of
from pipeline.runner import WorkspaceBusyError, locked, run_stage
from pipeline.stages import STAGES
from pipeline.workspace import Workspace
from schemas.errors import InputError

if TYPE_CHECKING:
    from prefect import Flow, Task

__all__ = [
    "another_try_may_help",
    "by_a_worker",
    "run_name",
    "shown_progress",
    "slug",
    "stage_flow",
    "stage_task",
]

ASKS = "asks-models"
"""The tag of stages that may ask models."""


def stage_task(name: str) -> Task[[Path], bool]:
    """A Prefect task that runs the stage `name` in a workspace which the flow holds."""

    def run(root: Path) -> bool:
        with shown_progress(name) as progress:
            return run_stage(Workspace(root), name, progress)

    return task(
        name=name,
        task_run_name=name,
        description=f"The stage {name}, if something that it depends on has changed.",
        tags=[ASKS] if STAGES[name].questions else None,
        cache_policy=NO_CACHE,
        retries=0,
        retry_condition_fn=another_try_may_help,
        persist_result=False,
    )(run)


def stage_flow(name: str, work: Task[[Path], bool]) -> Flow[[Path], bool]:
    """A Prefect flow that runs the one stage `name`."""

    def run(root: Path) -> bool:
        workspace = Workspace(root)
        workspace.check()
        with locked(workspace), workers_of(workspace.params.execution):
            return work(root)

    made: Any = flow(name=name, flow_run_name=run_name, validate_parameters=False)(run)
    return made  # type: ignore[no-any-return]


def another_try_may_help(_task: object, _run: object, state: Any) -> bool:
    """Whether a task that failed may do better later: an outage ends, a wrong file stays wrong."""
    from pipeline.engine import BudgetError

    if isinstance(state.data, WorkspaceBusyError):
        return True
    return not isinstance(state.data, InputError | BudgetError)


def by_a_worker() -> bool:
    """Whether this flow run is one of a deployment, so that a worker runs it and nobody sees a terminal."""
    return deployment.id is not None


def shown_progress(what: str) -> RichProgress:
    """Bars on a terminal; lines in the log of the run where a worker runs it."""
    return RichProgress(what, get_run_logger().info if by_a_worker() else None)


def run_name() -> str:
    """The name of a flow run: the workspace's folder and when it was to start."""
    folder = Path(flow_run.parameters["root"]).name
    return f"{folder} {flow_run.scheduled_start_time:%Y-%m-%d %H:%M:%S}"


def slug(root: Path) -> str:
    """A folder's name as names at Prefect have to be: small letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", root.name.lower()).strip("-") or "workspace"
