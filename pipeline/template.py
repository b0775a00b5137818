"""A workspace to begin in, out of the files that come with the package.

The files stand at the top of the repository. setup.py copies those that `PARTS` names into a wheel, to
`FOLDER`; an editable installation finds them where they stand.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

__all__ = ["FOLDER", "PARTS", "begin"]

PARTS: Final = (
    "dvc.yaml",
    "profiles",
    "prompts",
    "schemas/taxonomy.yaml",
    "schemas/taxonomy.lock.jsonl",
    "data/seed",
)
"""The files and folders of a workspace that people may change, but for params.yaml, which is a profile."""

FOLDER: Final = Path(__file__).with_name("workspace_files")
"""Where they are in a wheel."""

PARAMS: Final = "params.yaml"
STATE: Final = ".holisafe"
_PARTIAL: Final = ".init.partial"


def begin(folder: Path, profile: str = "embedded") -> None:
    """Make a folder a workspace: params, taxonomy, prompts, profiles, seed images and the graph for DVC.

    Args:
        folder: made if it is not there. What it holds stays, and must not be in the way.
        profile: which profile becomes params.yaml.

    Raises:
        InputError: when something is in the way, or the folder is a file.
    """
    # setup.py runs this module where nothing else of ours can be imported.
    from schemas.errors import InputError

    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; name a folder")
    if (folder / PARAMS).exists():
        raise InputError(
            f"{folder / PARAMS}: this is a workspace already; go on with `holisafe status`, or name another "
            "folder"
        )
    names = [*dict.fromkeys(part.partition("/")[0] for part in PARTS), STATE, PARAMS]
    for name in names:
        if (folder / name).exists():
            raise InputError(
                f"{folder / name}: is there, and would be in the way; move it, or name another folder"
            )
    # All is copied beside its place first: what is cut off leaves nothing that looks like a workspace.
    new = folder / _PARTIAL
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        _copy(new, profile)
        for name in names:
            (new / name).rename(folder / name)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _copy(new: Path, profile: str) -> None:
    from pipeline.stages import STAGES

    source = FOLDER if FOLDER.is_dir() else Path(__file__).parent.parent
    for part in PARTS:
        (new / part).parent.mkdir(parents=True, exist_ok=True)
        if (source / part).is_dir():
            shutil.copytree(source / part, new / part, copy_function=shutil.copyfile)
        else:
            shutil.copyfile(source / part, new / part)
    shutil.copyfile(source / "profiles" / f"{profile}.yaml", new / PARAMS)
    # As DVC writes them, beside what they name: the folder's own .gitignore is somebody else's.
    made = ["dataset" if name == "assemble" else name for name in STAGES]
    (new / "data" / ".gitignore").write_text("".join(f"/{name}\n" for name in made))
    (new / STATE).mkdir()
    (new / STATE / ".gitignore").write_text("*\n")
