"""What the commands do: from arguments to plain functions, and from results to the terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from schemas.errors import InputError

if TYPE_CHECKING:
    from pipeline.workspace import Workspace

__all__ = [
    "build_workspace",
    "check_taxonomy",
    "commit_to_dvc",
    "find_folder_duplicates",
    "label_image_folder",
    "label_text_file",
    "list_models",
    "list_profiles",
    "open_workspace",
    "pull_models",
    "run_one",
    "show_status",
    "show_taxonomy",
    "verify_models",
    "write_profile",
]

OUT = Console()
ERR = Console(stderr=True)


def open_workspace(root: Path) -> Workspace:
    """The workspace in a folder, with everything that people write there checked.

    Raises:
        InputError: naming the file, the field and the mend.
    """
    from pipeline.workspace import Workspace

    if not (root / "params.yaml").exists():
        raise InputError(
            f"{root}: no params.yaml here; run this in the folder of a build, or make one by `holisafe init`"
        )
    workspace = Workspace(root)
    workspace.check()
    return workspace


def list_profiles(root: Path) -> None:
    """The profiles, and which of them params.yaml is."""
    from pipeline.profiles import profile_names

    params = root / "params.yaml"
    now = params.read_text() if params.exists() else ""
    for name in profile_names(root):
        used = now == (root / "profiles" / f"{name}.yaml").read_text()
        OUT.print(f"{name}{' (params.yaml)' if used else ''}")


def write_profile(root: Path, name: str, *, overwrite: bool) -> None:
    """Write a profile to params.yaml."""
    from pipeline.profiles import use_profile

    changed = use_profile(root, name, overwrite=overwrite)
    said = (
        f"params.yaml is the profile {name} now" if changed else f"params.yaml is the profile {name} already"
    )
    OUT.print(f"{said}; `holisafe plan` tells what a build would do.")


def build_workspace(root: Path) -> None:
    """Run what is not fresh, then show the cells and where everything is."""
    from pipeline.extras import needs
    from pipeline.runner import is_fresh
    from pipeline.stages import STAGES, modules_of

    workspace = open_workspace(root)
    # Decided before Prefect is imported, which alone takes seconds.
    if all(is_fresh(workspace, stage) for stage in STAGES.values()):
        OUT.print("Nothing has changed: no stage to run, no call to make.")
    else:
        # What a late stage would miss is told before hours of other work.
        needs("prefect", *modules_of(workspace.params))
        from flows.at_prefect import at_prefect
        from flows.build import build

        with at_prefect():
            ran = build(root)
        commit_to_dvc(root)
        OUT.print(f"Ran {', '.join(ran)}.")
    show_result(workspace)


def run_one(root: Path, stage: str) -> None:
    """Run one stage if it is not fresh."""
    from flows.progress import RichProgress
    from flows.runners import workers_of
    from pipeline.runner import locked, run_stage

    workspace = open_workspace(root)
    with (
        locked(workspace),
        workers_of(workspace.params.execution),
        RichProgress(stage) as progress,
    ):
        ran = run_stage(workspace, stage, progress)
    OUT.print(f"{stage}: done." if ran else f"{stage}: nothing has changed.")


def show_status(root: Path) -> None:
    """Print each stage with its state."""
    from pipeline.runner import fresh_stages
    from pipeline.stages import STAGES

    workspace = open_workspace(root)
    fresh = fresh_stages(workspace)
    table = Table("stage", "state", box=None)
    for stage in STAGES.values():
        made = workspace.stage_dir(stage.name).exists()
        state = "up to date" if stage.name in fresh else ("to be made again" if made else "not made yet")
        table.add_row(stage.name, state)
    OUT.print(table)


def show_result(workspace: Workspace) -> None:
    """Print the table of cells by type and where dataset and report are."""
    from flows.figures import pairs_by_category
    from schemas.taxonomy import PAIR_TYPES

    rows = pairs_by_category(workspace)
    table = Table("category", *PAIR_TYPES, "all", title="Pairs by category and type")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, counts in rows.items():
        if name == "all":
            table.add_section()
        table.add_row(name, *map(str, counts))
    OUT.print(table)
    OUT.print(f"Dataset: {workspace.stage_dir('assemble')}", soft_wrap=True)
    OUT.print(f"Report:  {workspace.stage_dir('audit') / 'index.html'}", soft_wrap=True)


def commit_to_dvc(root: Path) -> None:
    """Record what was built in dvc.lock, so that `dvc repro` knows that nothing has changed."""
    import shutil
    import subprocess

    dvc = Path(sys.executable).with_name("dvc")
    if not (root / ".dvc").is_dir() or not (root / "dvc.yaml").exists():
        return
    program = str(dvc) if dvc.exists() else shutil.which("dvc")
    if program is None:
        ERR.print("dvc is not installed, so this build is not recorded in dvc.lock")
        return
    # Without --quiet: with it, DVC does not say why it failed either.
    done = subprocess.run(
        [program, "commit", "--force"], cwd=root, check=False, capture_output=True, text=True
    )
    if done.returncode:
        why = done.stderr.strip()
        if "are missing from" in why:
            why += "\nDVC wants each parameter that dvc.yaml names written out, also where it has a default."
        raise RuntimeError(f"the build is there, but `dvc commit` failed, so dvc.lock is old:\n{why}")


def list_models() -> None:
    """Print the registered weights."""
    from pipeline.models import status

    table = Table("name", "role", "licence", "bytes", "sha256", "state", box=None)
    for s in status():
        table.add_row(s.name, s.role, s.licence, f"{s.bytes:,}", s.sha256[:16], s.state)
    OUT.print(table)


def pull_models(root: Path, names: list[str], source: Path | None) -> None:
    """Fetch weights; without names those that the stages use, as params say."""
    from rich.progress import Progress

    from pipeline.models import pull
    from pipeline.stages import STAGES

    wanted = names
    if not wanted:
        params = open_workspace(root).params
        wanted = sorted({name for stage in STAGES.values() for name in stage.weights(params)})
    with Progress(console=ERR, disable=not ERR.is_terminal) as bars:
        tasks = {name: bars.add_task(name, total=None) for name in wanted}

        def show(name: str, done: int, total: int) -> None:
            bars.update(tasks[name], completed=done, total=total)

        for name in wanted:
            ERR.print(f"{name} …", highlight=False)
            pull([name], progress=show, from_path=source)
    OUT.print(f"{len(wanted)} models are here and checked.")


def verify_models() -> None:
    """Hash what is here again; a wrong one is an error."""
    from pipeline.models import verify

    wrong = [s for s in verify() if s.state == "wrong"]
    for s in wrong:
        ERR.print(f"{s.name}: {s.detail}")
    if wrong:
        raise RuntimeError(f"{len(wrong)} model(s) are not what the registry names; pull them again")
    OUT.print("All models that are here are what the registry names.")


def show_taxonomy(root: Path, name: str | None) -> None:
    """Print the classes, or one class's policy."""
    workspace = open_workspace(root)
    if name is None:
        table = Table("id", "category", "class", "summary", box=None)
        for info in workspace.taxonomy.classes():
            table.add_row(str(info.id), info.category, info.name, info.spec.policy.summary)
        OUT.print(table)
        return
    import yaml

    try:
        info = workspace.taxonomy.by_name(name)
    except KeyError as error:
        raise InputError(str(error.args[0])) from error
    OUT.print(
        yaml.safe_dump(info.spec.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)
    )


def check_taxonomy(root: Path) -> None:
    """Load everything that people write, and say what cannot be used."""
    workspace = open_workspace(root)
    scenes = sum(len(s.latent) + len(s.neutral) + len(s.unsafe) for s in workspace.scenes.values())
    OUT.print(f"{len(list(workspace.taxonomy.classes()))} classes, {scenes} query scenes: nothing wrong.")


def label_text_file(root: Path, file: Path, json: Path) -> None:
    """Label the texts of a JSON Lines file."""
    from flows.progress import RichProgress
    from pipeline.annotators import label_texts
    from pipeline.store import write_json

    workspace = open_workspace(root)
    with RichProgress("label") as progress:
        write_json(json, label_texts(workspace, file, progress))


def label_image_folder(root: Path, folder: Path, json: Path) -> None:
    """Label the images of a folder."""
    from flows.progress import RichProgress
    from pipeline.annotators import label_images
    from pipeline.store import write_json

    workspace = open_workspace(root)
    with RichProgress("label") as progress:
        write_json(json, label_images(workspace, folder, progress))


def find_folder_duplicates(folder: Path, json: Path, *, rotations: bool) -> None:
    """Find near-duplicates in a folder, and say how many there are."""
    from dataclasses import asdict

    from flows.progress import RichProgress
    from pipeline.curate.folder import find_duplicates
    from pipeline.store import write_json

    with RichProgress("dedup") as progress:
        found = find_duplicates(folder, progress, rotations=rotations)
    write_json(json, asdict(found))
    copies = sum(len(cluster) - 1 for cluster in found.clusters)
    OUT.print(
        f"{found.read:,} images read: {len(found.clusters):,} pictures are there more than once, "
        f"{copies:,} copies in all; {len(found.rejected):,} files are no usable images."
    )
