"""What `holisafe init` does."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

__all__ = ["begin_workspace"]

OUT = Console()


def begin_workspace(folder: Path) -> None:
    """Make a folder a workspace, and say how to go on."""
    from pipeline.template import begin
    from pipeline.workspace import Workspace

    begin(folder)
    workspace = Workspace(folder.resolve())
    classes = len(workspace.classes())
    there = "" if folder.resolve() == Path.cwd() else f"cd {folder}; "
    OUT.print(
        f"{workspace.root}: a workspace of {classes} classes, with the profile {workspace.params.profile} in "
        "params.yaml.",
        soft_wrap=True,
        markup=False,
        highlight=False,
    )
    OUT.print(
        f"Go on: {there}holisafe models pull; holisafe build. `holisafe plan` says what that comes to.",
        soft_wrap=True,
        markup=False,
        highlight=False,
    )
