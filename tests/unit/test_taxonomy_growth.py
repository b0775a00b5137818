"""The taxonomy grows by whole classes, keeps every id for good, and nothing else in its files is touched."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.taxonomy_edit import TODO, add_class, check_finished, lock_classes, retire_class
from pipeline.workspace import Workspace
from schemas.errors import InputError
from schemas.params import load_params
from schemas.queries import load_scenes
from schemas.taxonomy import load_taxonomy
from schemas.taxonomy_lock import LockLine, check_lock, lock_path, next_id, read_lock, standing
from tests.conftest import REPOSITORY, holisafe, make_workspace

LIKE = "property_crime"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_workspace(tmp_path, ["gender"], only_classes=[])


def filled(root: Path, name: str = "vandalism") -> Path:
    """What somebody would fill in: here another class under another name."""
    taxonomy = yaml.safe_load((REPOSITORY / "schemas/taxonomy.yaml").read_text())
    body = taxonomy["categories"]["illegal_activity"]["classes"][LIKE]
    body["generation"]["drawings"] = []
    scenes = yaml.safe_load((REPOSITORY / "prompts/queries/illegal_activity.yaml").read_text())
    text = json.dumps(scenes["classes"][LIKE]).replace(f"{LIKE}.", f"{name}.")
    path = root / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"class": body, "scenes": json.loads(text)}, allow_unicode=True))
    return path


def added(root: Path, category: str = "illegal_activity", name: str = "vandalism") -> list[Path]:
    return add_class(root, load_params(root), category, name, "Vandalism", filled(root, name))


def test_a_class_is_added_and_every_other_line_stays(root: Path) -> None:
    files = {
        p: p.read_text()
        for p in (root / "schemas/taxonomy.yaml", root / "prompts/queries/illegal_activity.yaml")
    }
    changed = added(root)
    assert set(files) < set(changed)
    for path, before in files.items():
        now = path.read_text().splitlines()
        kept = [line for line in before.splitlines() if not line.startswith("version:")]
        rest = iter(now)
        assert all(line in rest for line in kept), path  # in their order
        assert len(now) > len(kept) + 1
    workspace = Workspace(root)
    workspace.check()
    info = workspace.taxonomy.by_name("vandalism")
    assert (info.id, info.category) == (20, "illegal_activity")
    assert workspace.taxonomy.version == load_taxonomy(REPOSITORY / "schemas/taxonomy.yaml").version + 1
    assert read_lock(lock_path(root / "schemas/taxonomy.yaml"))[-1].class_key == info.class_key


def test_a_class_may_bring_its_category(root: Path) -> None:
    added(root, "public_space")
    workspace = Workspace(root)
    workspace.check()
    assert workspace.taxonomy.by_name("vandalism").category == "public_space"
    assert "vandalism" in load_scenes(root / "prompts/queries", workspace.taxonomy)


def test_added_and_retired_again_the_files_are_as_before_but_for_the_version(root: Path) -> None:
    path = root / "schemas/taxonomy.yaml"
    before = path.read_text(), (root / "prompts/queries/illegal_activity.yaml").read_text()
    added(root)
    retire_class(root, load_params(root), "vandalism")
    assert path.read_text() == before[0].replace("version: 1\n", "version: 3\n", 1)
    assert (root / "prompts/queries/illegal_activity.yaml").read_text() == before[1]
    assert [line.change for line in read_lock(lock_path(path))][-2:] == ["added", "retired"]
    added(root, name="graffiti")
    assert load_taxonomy(path).by_name("graffiti").id == 21


def test_a_scaffold_is_refused_until_it_is_written(root: Path) -> None:
    add_class(root, load_params(root), "hate", "age", "Hate because of age")
    with pytest.raises(InputError, match=rf"still say {TODO}.*categories.hate.classes.age.policy.summary"):
        Workspace(root).check()
    with pytest.raises(InputError, match=TODO):
        check_finished(root, {"a": [{"b": f"{TODO}: it"}]})


@pytest.mark.parametrize(
    ("category", "name", "says"),
    [
        ("hate", "gender", "already"),
        ("hate", "Gender", "small letters"),
        ("No Category", "x", "small letters"),
    ],
)
def test_a_name_that_is_taken_or_none_changes_nothing(
    root: Path, category: str, name: str, says: str
) -> None:
    before = (root / "schemas/taxonomy.yaml").read_text()
    with pytest.raises(InputError, match=says):
        added(root, category, name)
    assert (root / "schemas/taxonomy.yaml").read_text() == before


def changed_taxonomy(root: Path, change: Any) -> None:
    path = root / "schemas/taxonomy.yaml"
    taxonomy = yaml.safe_load(path.read_text())
    change(taxonomy["categories"])
    path.write_text(yaml.safe_dump(taxonomy, sort_keys=False, allow_unicode=True))


def _renumber(categories: Any) -> None:
    categories["hate"]["classes"]["race"]["id"] = 30


def _rename(categories: Any) -> None:
    classes = categories["hate"]["classes"]
    classes["ethnicity"] = classes.pop("race")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_renumber, r"holisafe/hate/race has 2 for good"),
        (_rename, r"2 is holisafe/hate/race for good"),
        (lambda c: c["hate"]["classes"].pop("race"), r"race \(id 2\) is gone.*taxonomy retire race"),
    ],
)
def test_what_was_published_under_an_id_keeps_it(root: Path, change: Any, says: str) -> None:
    changed_taxonomy(root, change)
    with pytest.raises(InputError, match=says):
        _ = Workspace(root).taxonomy


def test_a_class_that_was_written_by_hand_is_locked_by_command(root: Path) -> None:
    def write(categories: Any) -> None:
        body = json.loads(json.dumps(categories["illegal_activity"]["classes"][LIKE])) | {"id": 25}
        body["generation"]["drawings"] = []
        categories["illegal_activity"]["classes"]["vandalism"] = body

    changed_taxonomy(root, write)
    path = root / "schemas/taxonomy.yaml"
    with pytest.raises(InputError, match="taxonomy lock"):
        check_lock(load_taxonomy(path), path)
    assert [line.id for line in lock_classes(root, load_params(root), "by hand")] == [25]
    check_lock(load_taxonomy(path), path)
    assert lock_classes(root, load_params(root)) == []


def test_a_class_whose_text_is_gone_can_be_retired(root: Path) -> None:
    changed_taxonomy(root, lambda c: c["hate"]["classes"].pop("race"))
    retire_class(root, load_params(root), "race")
    workspace = Workspace(root)
    workspace.check()
    assert "race" not in {info.name for info in workspace.taxonomy.classes()}
    with pytest.raises(InputError, match="no class 'race' has an id"):
        retire_class(root, load_params(root), "race")


@pytest.mark.parametrize("name", ["lock", "add"])
def test_a_lock_is_never_written_that_could_not_be_read(root: Path, name: str) -> None:
    added(root)
    lock = lock_path(root / "schemas/taxonomy.yaml")
    before = lock.read_text()
    changed_taxonomy(root, lambda c: c["illegal_activity"]["classes"]["vandalism"].update(id=21))
    grow = (
        partial(lock_classes, root, load_params(root)) if name == "lock" else partial(added, root, name="x")
    )
    with pytest.raises(InputError, match="vandalism has"):
        grow()
    assert lock.read_text() == before


def test_scenes_that_are_there_already_are_not_written_twice(root: Path) -> None:
    path = root / "prompts/queries/illegal_activity.yaml"
    scenes = yaml.safe_load(filled(root).read_text())["scenes"]
    data = yaml.safe_load(path.read_text())
    data["classes"]["vandalism"] = scenes
    path.write_text(yaml.safe_dump(data, allow_unicode=True))
    with pytest.raises(InputError, match="there are scenes of it already"):
        added(root)


@pytest.mark.parametrize("text", ["class: null\nscenes: {}\n", "- 1\n", "class: {}\n"])
def test_what_is_filled_in_must_be_a_class_and_its_scenes(root: Path, text: str) -> None:
    path = root / "filled.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"filled\.yaml|taxonomy\.yaml"):
        add_class(root, load_params(root), "hate", "age", "Age", path)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 20"),
        (
            {"id": 3, "class_key": "holisafe/hate/new", "change": "added", "version": 2},
            "given before; take 20",
        ),
        ({"id": 20, "class_key": "holisafe/hate/race", "change": "added", "version": 2}, "has an id already"),
        ({"id": 20, "class_key": "holisafe/hate/new", "change": "retired", "version": 2}, "no class has 20"),
        (
            {"id": 2, "class_key": "holisafe/hate/new", "change": "retired", "version": 2},
            "2 is holisafe/hate/race",
        ),
    ],
)
def test_a_broken_lock_names_its_line(tmp_path: Path, line: Any, says: str) -> None:
    path = tmp_path / "taxonomy.lock.jsonl"
    shutil.copy(REPOSITORY / "schemas/taxonomy.lock.jsonl", path)
    with path.open("a") as file:
        file.write((line if isinstance(line, str) else json.dumps(line)) + "\n")
    with pytest.raises(InputError, match=says):
        read_lock(path)


@given(st.lists(st.booleans(), max_size=30))
def test_an_id_is_never_given_twice(steps: list[bool]) -> None:
    lines: list[LockLine] = []
    for grows in steps:
        known = standing(lines)
        if grows or not known:
            number = next_id(lines)
            assert number not in {line.id for line in lines}
            lines.append(LockLine(id=number, class_key=f"a/b/c{number}", change="added", version=1))
        else:
            lines.append(known[max(known)].model_copy(update={"change": "retired"}))


def test_from_the_command_line(root: Path) -> None:
    said = holisafe(
        root, "taxonomy", "add", "illegal_activity", "vandalism", "--from", str(filled(root))
    ).stdout
    assert "schemas/taxonomy.yaml" in said
    assert "20 classes" in holisafe(root, "taxonomy", "check").stdout
    assert "vandalism" in holisafe(root, "plan").stdout
    assert "--yes" in holisafe(root, "taxonomy", "retire", "vandalism").stdout
    assert "20 classes" in holisafe(root, "taxonomy", "check").stdout
    holisafe(root, "taxonomy", "retire", "vandalism", "--yes")
    assert "19 classes" in holisafe(root, "taxonomy", "check").stdout
    assert "retired" in holisafe(root, "taxonomy", "log").stdout
    again = holisafe(root, "taxonomy", "add", "hate", "gender", check=False)
    assert again.returncode == 2
    assert "already" in again.stderr
