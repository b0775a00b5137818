"""The whole build: one flow whose tasks are the stages, in the order of the graph."""

from __future__ import annotations

from pathlib import Path

from prefect import flow
from prefect.settings import PREFECT_API_URL

from flows.assemble import assemble
from flows.at_prefect import termination_is_heard
from flows.audit import audit
from flows.collect import collect
from flows.commands import commit_to_dvc
from flows.curate import curate
from flows.generate import generate
from flows.label_images import label_images
from flows.label_pairs import label_pairs
from flows.respond import respond
from flows.runners import workers_of
from flows.shown import show_build
from flows.stage import by_a_worker, run_name
from flows.synthesize import synthesize
from pipeline.annotators import check_endpoints
from pipeline.runner import is_fresh, locked
from pipeline.stages import STAGES
from pipeline.workspace import Workspace

__all__ = ["build"]

STEPS = (collect, generate, curate, label_images, synthesize, label_pairs, respond, assemble, audit)


@flow(name="build", flow_run_name=run_name, validate_parameters=False)
def build(root: Path, retries: int = 0, retry_delay_s: float = 60.0, served_at: str = "") -> list[str]:
    """Run every stage that is not fresh.

    Args:
        root: the workspace.
        retries: how often a stage that failed is tried again, where that may help.
        retry_delay_s: the pause before each.
        served_at: where the workspace can be opened in a browser; empty: as files.

    Returns:
        The names of the stages that ran.
    """
    root = Path(root)  # a worker gives what it was told in JSON
    workspace = Workspace(root)
    workspace.check()
    with locked(workspace), termination_is_heard():
        if any(stage.questions and not is_fresh(workspace, stage) for stage in STAGES.values()):
            # A missing key is told before hours of other work.
            check_endpoints(workspace)
        steps = [step.with_options(retries=retries, retry_delay_seconds=retry_delay_s) for step in STEPS]
        with workers_of(workspace.params.execution):
            ran = [step.name for step in steps if step(root)]
        if by_a_worker() and ran:
            commit_to_dvc(root)
        if PREFECT_API_URL.value():  # else the server ends with this process, and nobody could look
            show_build(workspace, ran, served_at)
        return ran
