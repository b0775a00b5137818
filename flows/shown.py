"""What a run leaves for people to see at Prefect: figures as tables, and links to report and dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from flows.figures import pairs_by_category
from flows.stage import slug
from pipeline.audit.headlines import headlines
from pipeline.calls import stage_costs
from pipeline.engine import open_cache
from pipeline.runner import last_seconds
from pipeline.stages import STAGES
from pipeline.workspace import Workspace
from schemas.taxonomy import PAIR_TYPES

__all__ = ["show_audit", "show_build"]


def show_build(workspace: Workspace, ran: Sequence[str], served_at: str) -> None:
    """Pairs, stages and calls of a build, with links to its report and its dataset.

    Args:
        workspace: the workspace, built.
        ran: the stages that ran; the others were up to date.
        served_at: where the workspace can be opened in a browser; empty: as files.
    """
    root = workspace.root
    pairs = [
        {"category": name, **dict(zip((*PAIR_TYPES, "all"), counts, strict=True))}
        for name, counts in pairs_by_category(workspace).items()
    ]
    create_table_artifact(pairs, f"{slug(root)}-pairs", "Pairs by category and type.")
    stages = [
        {"stage": name, "": "ran" if name in ran else "up to date", "seconds": last_seconds(workspace, name)}
        for name in STAGES
    ]
    with open_cache(workspace.calls) as cache:
        costs = [
            {"stage, model": c.name, "calls": c.calls, "USD": f"{c.usd:.2f}"} for c in stage_costs(cache)
        ]
    report, dataset = workspace.stage_dir("audit") / "index.html", workspace.stage_dir("assemble")
    what = f"{pairs[-1]['all']} pairs; " + (f"ran {', '.join(ran)}" if ran else "nothing had changed")
    parts = [f"# {root.name}", what, _markdown(stages)]
    if costs:
        parts += ["## Calls, over all runs", _markdown(costs)]
    create_markdown_artifact("\n\n".join(parts), f"{slug(root)}-build", what)
    _link(workspace, "report", report, served_at)
    _link(workspace, "dataset", dataset, served_at)


def show_audit(
    workspace: Workspace, metrics: dict[str, Any], report: Path, stale: Sequence[str], served_at: str
) -> None:
    """What an audit of the dataset found, with a link to its report.

    Args:
        workspace: the workspace.
        metrics: what the audit gave.
        report: the page it wrote.
        stale: the stages that a build would make again.
        served_at: where the workspace can be opened in a browser; empty: as files.
    """
    found = [{"": line.word, "finding": line.text} for line in headlines(metrics)]
    if stale:
        found.insert(0, {"": "judge", "finding": f"A build would make again: {', '.join(stale)}."})
    create_table_artifact(found, f"{slug(workspace.root)}-findings", "What the audit of the dataset found.")
    _link(workspace, "weekly-report", report, served_at)


def _link(workspace: Workspace, what: str, path: Path, served_at: str) -> None:
    root = workspace.root
    below = path.relative_to(root).as_posix() + ("/" if path.is_dir() else "")
    link = f"{served_at.rstrip('/') or root.as_uri()}/{below}"
    create_link_artifact(link, below, f"{slug(root)}-{what}", f"The {what.replace('-', ' ')} of {root.name}.")


def _markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Rows with the same keys as a table."""
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([str(row[name]) for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
