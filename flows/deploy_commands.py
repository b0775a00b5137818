"""What `holisafe deploy` does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Column, Table

from flows.commands import open_workspace

if TYPE_CHECKING:
    from flows.deploy import Plan

__all__ = ["deploy_workspace", "undeploy_workspace"]

OUT = Console()


def deploy_workspace(root: Path, plan: Plan, target: Path | None) -> None:
    """Write the deployments of a workspace to the Prefect server, and say what is there and how to go on."""
    from flows.deploy import deploy
    from pipeline.store import write_json

    open_workspace(root)
    done = deploy(root, plan)
    if target is not None:
        write_json(target, done)
    table = Table(Column("deployment", overflow="fold"), "cron", "timezone", "tags", box=None)
    for one in done["deployments"]:
        table.add_row(one["name"], one["cron"], one["timezone"], ", ".join(one["tags"]))
    OUT.print(table)
    made = " (made)" if done["pool"]["made"] else ""
    told = (
        f"{plan.notify} is told" if done["automation"] else "nobody is told; --notify TYPE/NAME names a block"
    )
    for line in (
        f"Server: {done['server']}; pool: {plan.pool}{made}; of a run that fails {told}.",
        f"A worker runs them: prefect worker start --pool {plan.pool}",
        f"At once, without waiting for its hour: prefect deployment run '{done['deployments'][0]['name']}'",
    ):
        OUT.print(line, soft_wrap=True, markup=False, highlight=False)


def undeploy_workspace(root: Path, target: Path | None) -> None:
    """Take the deployments of a workspace away, and say which."""
    from flows.deploy import undeploy
    from pipeline.store import write_json

    gone = undeploy(root)
    if target is not None:
        write_json(target, {"removed": gone})
    OUT.print(f"Removed: {', '.join(gone)}." if gone else "Nothing was deployed.", soft_wrap=True)
