"""Parts of a stage's work: what they are called after, when they are made again, when they go."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pipeline.parts import Parts, make_again, together, told
from pipeline.store import Failures, join_tables, read_rows, write_rows
from pipeline.workspace import Workspace
from schemas.rows import CALLS

APART = ("{taxonomy}", "{prompts}/queries", "{prompts}/responses.yaml", "egress")


def change(workspace: Path, **values: object) -> None:
    path = workspace / "params.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | values, sort_keys=False))


def parts(workspace: Path) -> Parts:
    return Parts(Workspace(workspace), "respond", APART)


def test_a_part_is_there_once_it_is_whole(workspace: Path) -> None:
    with parts(workspace) as some:
        key = some.key("a", [1, None, 0.5])
        assert some.find(key) is None
        with pytest.raises(FileNotFoundError), some.making(key) as folder:
            (folder / "nowhere" / "half").touch()
        assert some.find(key) is None
        with some.making(key) as folder:
            assert not list(folder.iterdir()), "what a build left that was killed is gone"
            (folder / "whole").touch()
        found = some.find(key)
        assert found is not None
        assert [path.name for path in found.iterdir()] == ["whole"]
        assert some.all([key]) == [found]


def test_what_a_stage_depends_on_as_a_whole_is_in_every_key(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {parts(workspace).key("a")}
    assert parts(workspace).key("a") in keys
    keys.add(parts(workspace).key("b"))
    change(workspace, seed=7)
    keys.add(parts(workspace).key("a"))
    prompt = workspace / "prompts" / "respond" / "refuse.yaml"
    prompt.write_text(prompt.read_text() + "\n")
    keys.add(parts(workspace).key("a"))
    import pipeline.parts

    stages = pipeline.parts.STAGES
    newer = pipeline.parts.replace(stages["respond"], version=stages["respond"].version + 1)
    monkeypatch.setitem(stages, "respond", newer)
    keys.add(parts(workspace).key("a"))
    assert len(keys) == 5


def test_what_is_said_of_each_part_is_not(workspace: Path) -> None:
    key = parts(workspace).key("a")
    taxonomy = workspace / "schemas" / "taxonomy.yaml"
    taxonomy.write_text(taxonomy.read_text() + "\n")
    assert parts(workspace).key("a") == key


def test_parts_that_a_build_does_not_hold_go_at_its_end(workspace: Path) -> None:
    with parts(workspace) as some:
        for name in ("a", "b"):
            with some.making(some.key(name)) as folder:
                (folder / name).touch()
    with pytest.raises(KeyboardInterrupt), parts(workspace) as some:
        raise KeyboardInterrupt
    with parts(workspace) as some:
        assert some.find(some.key("a"))
        assert (some.find(some.key("a")) or workspace).parent.joinpath(some.key("b")).exists()
    with parts(workspace) as some:
        assert some.find(some.key("a"))
        assert not some.find(some.key("b"))


def test_a_class_is_told_whole(workspace: Path) -> None:
    one, other, *_ = Workspace(workspace).taxonomy.classes()
    some = parts(workspace)
    assert some.key(told(one)) != some.key(told(other))
    changed = one.spec.model_copy(update={"title": "Another"})
    assert some.key(told(one)) != some.key(told(type(one)(one.id, one.name, one.category, changed)))


def test_tables_are_put_together_as_they_stand(tmp_path: Path) -> None:
    rows = [{"item_id": str(n), "call_key": "k" * (n % 7)} for n in range(250)]
    write_rows(tmp_path / "a.parquet", CALLS, rows[:120])
    write_rows(tmp_path / "none.parquet", CALLS, [])
    write_rows(tmp_path / "b.parquet", CALLS, rows[120:])
    join_tables(tmp_path / "all.parquet", CALLS, [tmp_path / f"{n}.parquet" for n in ("a", "none", "b")])
    assert list(read_rows(tmp_path / "all.parquet")) == rows


def test_failures_of_parts_come_with_those_of_the_stage(tmp_path: Path) -> None:
    of_part = Failures("respond")
    of_part.add("1", "here", "why", "so")
    of_part.write(tmp_path)
    whole = Failures("respond")
    whole.add_from(tmp_path)
    assert whole.rows == of_part.rows


def test_a_part_with_a_call_that_had_no_answer_serves_its_build_and_is_made_again(workspace: Path) -> None:
    with parts(workspace) as some:
        key = some.key("a")
        with some.making(key) as folder:
            (folder / "table").touch()
            make_again(folder)
        assert (some.all([key])[0] / "table").exists()
    with parts(workspace) as some:
        assert some.find(key) is None
        with some.making(key) as folder:
            (folder / "table").touch()
    with parts(workspace) as some:
        assert some.find(key) is not None


def test_a_part_whose_deletion_was_cut_off_does_not_look_whole(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with parts(workspace) as some:
        key = some.key("a")
        with some.making(key) as folder:
            (folder / "one").touch()
            (folder / "two").touch()
    import shutil

    def killed(folder: Path, ignore_errors: bool = False) -> None:
        if Path(folder).is_dir():
            next(Path(folder).iterdir()).unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt), parts(workspace):
            pass
    with parts(workspace) as some:
        assert some.find(key) is None
    assert not list((workspace / ".holisafe" / "parts" / "respond").iterdir())


def test_parts_are_made_together_up_to_a_number_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.parts.AT_ONCE", 10)
    sizes = {"a": 4, "b": 6, "c": 1, "d": 30, "e": 2, "f": 8}
    assert list(together(sizes, sizes)) == [["a", "b"], ["c"], ["d"], ["e", "f"]]
    assert list(together(["f", "a"], sizes)) == [["f"], ["a"]]
    assert list(together([], sizes)) == []
    assert list(together(sizes, sizes, all_at_once=True)) == [list(sizes)]
