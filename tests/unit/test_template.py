"""A workspace out of the files that come with the package."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.template import PARTS, begin
from pipeline.workspace import Workspace
from schemas.errors import InputError
from tests.conftest import REPOSITORY


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_folder_becomes_a_workspace_with_what_stands_in_the_repository(tmp_path: Path) -> None:
    root = tmp_path / "a" / "folder"
    begin(root)
    workspace = Workspace(root)
    workspace.check()
    assert len(workspace.classes()) == 19
    assert (root / "params.yaml").read_bytes() == (REPOSITORY / "profiles/embedded.yaml").read_bytes()
    made = files(root)
    for part in PARTS:
        ours = REPOSITORY / part
        wanted = {f"{part}/{name}": data for name, data in files(ours).items()} or {part: ours.read_bytes()}
        assert wanted.items() <= made.items()
    assert sum(name.endswith((".png", ".jpg")) for name in made) == 364
    assert not [name for name in made if name.endswith((".py", ".pyc"))]


def test_git_keeps_what_people_write_and_not_what_is_built(tmp_path: Path) -> None:
    begin(tmp_path)
    (tmp_path / "data" / "curate").mkdir()
    for built in ("data/curate/images.parquet", ".holisafe/calls.sqlite"):
        (tmp_path / built).write_bytes(b"")
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    listed = subprocess.run(
        ["git", "ls-files", "--others", "--exclude-standard"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert {"params.yaml", "dvc.yaml", "data/seed/metadata.jsonl", "data/.gitignore"} <= set(listed)
    assert not [name for name in listed if name.startswith((".holisafe", "data/curate"))]


def test_what_a_folder_holds_stays(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / ".gitignore").write_text("*.bak\n")
    begin(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (tmp_path / ".gitignore").read_text() == "*.bak\n"


def test_a_workspace_is_not_begun_twice(tmp_path: Path) -> None:
    begin(tmp_path)
    before = files(tmp_path)
    with pytest.raises(InputError, match=r"params\.yaml: this is a workspace already; go on with"):
        begin(tmp_path)
    assert files(tmp_path) == before


def test_what_is_in_the_way_is_named_and_nothing_changes(tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    with pytest.raises(InputError, match="prompts: is there, and would be in the way; move it"):
        begin(tmp_path)
    assert os.listdir(tmp_path) == ["prompts"]
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file: is a file; name a folder"):
        begin(tmp_path / "file")


def test_a_copy_that_fails_leaves_nothing_and_can_be_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = 0
    copyfile = shutil.copyfile

    def full(*arguments: str) -> object:
        nonlocal copies
        copies += 1
        if copies == 100:
            raise OSError(28, "No space left on device")
        return copyfile(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr("shutil.copyfile", full)
        with pytest.raises(OSError, match="No space left"):
            begin(tmp_path)
    assert os.listdir(tmp_path) == []
    (tmp_path / ".init.partial" / "prompts").mkdir(parents=True)  # of one that was killed
    begin(tmp_path)
    assert not (tmp_path / ".init.partial").exists()
    Workspace(tmp_path).check()
