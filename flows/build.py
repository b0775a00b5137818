"""The whole build: one flow whose tasks are the stages, in the order of the graph."""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from flows.assemble import assemble
from flows.audit import audit
from flows.collect import collect
from flows.curate import curate
from flows.generate import generate
from flows.label_images import label_images
from flows.label_pairs import label_pairs
from flows.respond import respond
from flows.runners import workers_of
from flows.synthesize import synthesize
from pipeline.annotators import check_endpoints
from pipeline.runner import is_fresh, locked
from pipeline.stages import STAGES
from pipeline.workspace import Workspace

__all__ = ["build"]

STEPS = (collect, generate, curate, label_images, synthesize, label_pairs, respond, assemble, audit)


@flow(name="build", validate_parameters=False)
def build(root: Path) -> list[str]:
    """Run every stage that is not fresh.

    Args:
        root: the workspace.

    Returns:
        The names of the stages that ran.
    """
    workspace = Workspace(root)
    workspace.check()
    with locked(workspace):
        if any(stage.questions and not is_fresh(workspace, stage) for stage in STAGES.values()):
            # A missing key is told before hours of other work.
            check_endpoints(workspace)
        with workers_of(workspace.params.execution):
            return [step.name for step in STEPS if step(root)]
