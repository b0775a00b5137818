"""The flow of the weekly audit: a built dataset is looked at again, as anybody's would be."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.at_prefect import termination_is_heard
from flows.shown import show_audit
from flows.stage import another_try_may_help, run_name, shown_progress
from pipeline.audit import audit_anyset
from pipeline.runner import fresh_stages, locked
from pipeline.stages import STAGES
from pipeline.workspace import Workspace
from schemas.errors import InputError

__all__ = ["audit_dataset"]


@flow(name="audit-dataset", flow_run_name=run_name, validate_parameters=False)
def audit_dataset(root: Path, retries: int = 0, retry_delay_s: float = 60.0, served_at: str = "") -> str:
    """Audit the dataset of a workspace, whether or not anything has changed, and keep the report.

    Args:
        root: the workspace.
        retries: how often an audit that failed is tried again, where that may help: another may build there.
        retry_delay_s: the pause before each.
        served_at: where the workspace can be opened in a browser; empty: as files.

    Returns:
        The folder of the report.
    """
    workspace = Workspace(Path(root))
    out = workspace.root / "data" / "audits" / f"{datetime.now(UTC):%Y-%m-%d}"
    audited = look.with_options(retries=retries, retry_delay_seconds=retry_delay_s)
    with termination_is_heard():
        metrics, stale = audited(workspace.root, out)
    show_audit(workspace, metrics, out / "index.html", stale, served_at)
    return str(out)


@task(
    name="audit-dataset",
    task_run_name="audit-dataset",
    cache_policy=NO_CACHE,
    retry_condition_fn=another_try_may_help,
    persist_result=False,
)
def look(root: Path, out: Path) -> tuple[dict[str, Any], list[str]]:
    """Audit the dataset into a folder, while nobody builds there.

    Returns:
        The figures, and the stages that a build would make again.
    """
    workspace = Workspace(root)
    workspace.check()
    dataset = workspace.stage_dir("assemble")
    with locked(workspace), shown_progress("audit-dataset") as progress:
        if not dataset.is_dir():
            raise InputError(f"{dataset}: not there; run `holisafe build` first")
        fresh = fresh_stages(workspace)
        metrics = audit_anyset(str(dataset), out, progress)
    return metrics, [name for name in STAGES if name not in fresh]
