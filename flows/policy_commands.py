"""What `holisafe relabel` does: what another wording of the policy would change, without changing it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Column, Table

from flows.commands import open_workspace

if TYPE_CHECKING:
    from pipeline.relabel import Flips, PlannedAsk, Policy
    from pipeline.workspace import Workspace

__all__ = ["relabel_with"]

OUT = Console()


def relabel_with(root: Path, file: Path, target: Path | None, *, dry_run: bool) -> None:
    """Ask again what changed clauses decide and print the flips, or only what that would ask."""
    from flows.progress import RichProgress
    from pipeline.relabel import changed_clauses, open_policy, planned, relabel
    from pipeline.runner import locked
    from pipeline.store import write_json

    workspace = open_workspace(root)
    policy = open_policy(workspace, file)
    changed = changed_clauses(workspace, policy)
    found: dict[str, Any] = {
        "policy": str(file),
        "clauses": [{"question": c.question, "class": c.name} for c in changed],
    }
    if dry_run:
        calls = planned(workspace, policy)
        found["calls"] = [_call(ask) for ask in calls]
        _show_calls(calls)
    else:
        with locked(workspace), RichProgress("relabel") as progress:
            flips = relabel(workspace, policy, progress)
        found["flips"] = [_flip(row) for row in flips]
        _show_flips(flips)
    if target is not None:
        write_json(target, found)
    _say(workspace, policy, file, changed=bool(changed), dry_run=dry_run)


def _say(workspace: Workspace, policy: Policy, file: Path, *, changed: bool, dry_run: bool) -> None:
    from pipeline.relabel import differs_elsewhere

    if not changed:
        OUT.print("No clause differs: nobody would be asked anything else.")
    if differs_elsewhere(workspace, policy):
        OUT.print("The file differs in more than clauses; what comes of that is not counted here.")
    if not changed:
        return
    if workspace.taxonomy.policy_version == policy.taxonomy.policy_version:
        OUT.print(
            f"policy_version is {policy.taxonomy.policy_version} in both: change it before you adopt the "
            "policy, since every row names the one that it follows.",
            soft_wrap=True,
        )
    if dry_run:
        OUT.print("Nothing was sent: --dry-run.")
        return
    OUT.print(
        f"No table was changed. To adopt the policy, copy {file} to {workspace.params.taxonomy} and run "
        "`holisafe build`: the answers above are in the call cache. A build asks more only about candidates "
        "that a flip brings into play.",
        soft_wrap=True,
    )


def _show_calls(calls: Sequence[PlannedAsk]) -> None:
    names = (Column("class", overflow="fold"), Column("annotator", overflow="fold"))
    table = Table("question", *names, "items", "calls", "worst USD", box=None)
    for ask in calls:
        figures = (f"{ask.items:,}", f"{ask.calls:,}", f"{ask.worst_usd:,.4f}")
        table.add_row(ask.question, ask.name, ask.annotator, *figures)
    table.add_section()
    total = (f"{sum(ask.calls for ask in calls):,}", f"{sum(ask.worst_usd for ask in calls):,.4f}")
    table.add_row("all", "", "", "", *total)
    _print(table, 3)


def _show_flips(flips: Sequence[Flips]) -> None:
    name = Column("class", overflow="fold")
    table = Table("question", name, "asked", "safe → unsafe", "unsafe → safe", "unscorable", box=None)
    for row in flips:
        figures = (row.items, row.to_unsafe, row.to_safe, row.unscorable)
        table.add_row(row.question, row.name, *(f"{n:,}" for n in figures))
    table.add_section()
    names = ("items", "to_unsafe", "to_safe", "unscorable")
    table.add_row("all", "", *(f"{sum(getattr(row, name) for row in flips):,}" for name in names))
    _print(table, 2)


def _print(table: Table, words: int) -> None:
    for column in table.columns[words:]:
        column.justify = "right"
    OUT.print(table)


def _call(ask: PlannedAsk) -> dict[str, Any]:
    return {
        "question": ask.question,
        "class": ask.name,
        "annotator": ask.annotator,
        "items": ask.items,
        "calls": ask.calls,
        "worst_usd": ask.worst_usd,
    }


def _flip(row: Flips) -> dict[str, Any]:
    return {
        "question": row.question,
        "class": row.name,
        "items": row.items,
        "to_unsafe": row.to_unsafe,
        "to_safe": row.to_safe,
        "unscorable": row.unscorable,
        "changed": [{"item_id": i, "before": old, "after": new} for i, (old, new) in row.changed.items()],
    }
