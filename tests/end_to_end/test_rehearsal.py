"""A small rehearsal from end to end: written squares, growth by a class, a policy put another way."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

import pipeline.label_pairs.stage as label_pairs
import pipeline.respond.writer as respond
from benchmarks.rehearsal import ADDED, add_class, calls_of, change_policy, digests, of_class
from pipeline.stages import STAGES
from pipeline.template import begin
from pipeline.workspace import Silent, Workspace
from tests.conftest import HOLISAFE, REPOSITORY, holisafe
from tests.scripted import Scripted, scripted

CLASSES = ["gender", "property_crime"]
QUOTA = {"SSS": 10, "SSU": 8, "SUU": 6, "USU": 9, "UUU": 6}


class Rehearsal:
    def __init__(self, root: Path, server: Scripted) -> None:
        self.root, self.server = root, server

    def build(self) -> int:
        """Calls that a build made."""
        before = self.server.stats()["requests"]
        holisafe(self.root, "build")
        return int(self.server.stats()["requests"] - before)

    def table(self, stage: str, name: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = pq.read_table(self.root / "data" / stage / f"{name}.parquet").to_pylist()
        return rows


def workspace(root: Path, base_url: str) -> Path:
    begin(root, "rehearsal")
    params = yaml.safe_load((root / "params.yaml").read_text().replace("http://127.0.0.1:8765/v1", base_url))
    params["quotas"] = dict.fromkeys(CLASSES, QUOTA)
    params["only_classes"] = []
    params["quotas"] |= {
        info: dict.fromkeys(QUOTA, 0) for info in params["quotas"].keys() ^ names(root) if info not in CLASSES
    }
    params["generate"]["placeholders"] = [{"classes": CLASSES, "per_class": {"safe": 40, "unsafe": 20}}]
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    return root


def names(root: Path) -> set[str]:
    taxonomy = yaml.safe_load((root / "schemas/taxonomy.yaml").read_text())
    return {name for category in taxonomy["categories"].values() for name in category["classes"]}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    script = yaml.safe_load((REPOSITORY / "profiles/rehearsal/script.yaml").read_text())
    with scripted(**script) as server:
        made = Rehearsal(workspace(tmp_path_factory.mktemp("rehearsal"), server.base_url), server)
        made.build()
        yield made


def test_every_cell_is_full(built: Rehearsal) -> None:
    plan = json.loads((built.root / "data/synthesize/plan.json").read_text())
    have = Counter((r["harm_class"], r["type"], r["split"]) for r in built.table("label_pairs", "pairs"))
    for cell in plan["cells"]:
        got = have[cell["class"], cell["type"], cell["split"]]
        # Few SSS rows are wanted here, and every other row needs its neighbours.
        assert got == cell["wanted"] or (cell["type"] == "SSS" and got > cell["wanted"]), cell


def test_every_row_has_its_neighbours_and_a_response_of_its_own(built: Rehearsal) -> None:
    pairs = {row["pair_id"]: row for row in built.table("label_pairs", "pairs")}
    safe = [row for row in pairs.values() if row["type"] == "SSS"]
    for row in pairs.values():
        if row["type"] in ("SSU", "USU"):
            assert any(r["query"] == row["query"] and r["image_id"] != row["image_id"] for r in safe)
        if row["type"] == "SSU":
            assert any(r["image_id"] == row["image_id"] and r["query"] != row["query"] for r in safe)
    responses = built.table("respond", "responses")
    assert {r["pair_id"] for r in responses} == pairs.keys()
    assert len({r["response"] for r in responses}) == len(responses)


@pytest.mark.parametrize(
    ("stage", "tables"),
    [(label_pairs, list(label_pairs.TABLES)), (respond, ["responses", "calls", "failures"])],
)
def test_classes_that_are_made_one_by_one_come_out_as_together(
    built: Rehearsal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: ModuleType, tables: list[str]
) -> None:
    kept = built.root / ".holisafe/parts" / stage.STAGE
    before = {folder.name for folder in kept.iterdir()}
    assert len(before) == len(CLASSES)
    shutil.rmtree(kept)
    asked = built.server.stats()["requests"]
    monkeypatch.setattr("pipeline.parts.AT_ONCE", 1)
    STAGES[stage.STAGE].run(Workspace(built.root), tmp_path, Silent())
    for table in tables:
        file = f"{table}.parquet"
        assert (tmp_path / file).read_bytes() == (built.root / "data" / stage.STAGE / file).read_bytes(), (
            table
        )
    assert {folder.name for folder in kept.iterdir()} == before
    assert built.server.stats()["requests"] == asked


def test_a_build_that_was_killed_ends_with_the_same_bytes(built: Rehearsal, tmp_path: Path) -> None:
    root = workspace(tmp_path / "again", built.server.base_url)
    hit = 0
    for seconds in (4.0, 7.0, 10.0):
        running = subprocess.Popen(
            [HOLISAFE, "build"], cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        time.sleep(seconds)
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
            hit += 1
        running.wait()
    assert hit
    holisafe(root, "build")
    assert digests(root) == digests(built.root)


def test_a_class_that_is_added_changes_no_other_and_asks_for_itself_alone(built: Rehearsal) -> None:
    before, kept = digests(built.root), parts(built.root)
    params = yaml.safe_load((built.root / "params.yaml").read_text())
    add_class(built.root)
    planned = plan(built.root)
    cells = [row for row in planned if row["kind"] == "cell" and row["to_do"]]
    assert {row["class_name"] for row in cells} == {ADDED}
    calls = built.build()
    assert 0 < calls <= unanswered(planned)
    assert calls == calls_of(built.root, ADDED)
    now = digests(built.root)
    assert not [
        name for name, sha in before.items() if now.get(name) != sha and not of_class(ADDED).match(name)
    ]
    assert [name for name in now if f"/{ADDED}/" in name]
    # What was made for the others was read.
    for stage, made in parts(built.root).items():
        assert len(made - kept[stage]) == 1, stage
        assert made >= kept[stage]
    # The next build has nothing to ask.
    assert built.build() == 0
    assert params["quotas"].keys() < yaml.safe_load((built.root / "params.yaml").read_text())["quotas"].keys()


def parts(root: Path) -> dict[str, set[tuple[str, int]]]:
    """The parts of each stage, each with when it was made."""
    stages = ("label_images", "synthesize", "label_pairs", "respond")
    return {
        stage: {(p.name, p.stat().st_mtime_ns) for p in (root / ".holisafe" / "parts" / stage).iterdir()}
        for stage in stages
    }


def test_a_build_that_has_grown_is_as_one_from_nothing(built: Rehearsal, tmp_path: Path) -> None:
    assert ADDED in names(built.root)
    root = tmp_path / "nothing"
    for part in ("schemas", "prompts", "profiles"):
        shutil.copytree(built.root / part, root / part)
    shutil.copy(built.root / "params.yaml", root)
    (root / ".holisafe").mkdir()
    for answers in (built.root / ".holisafe").glob("calls.sqlite*"):
        shutil.copy(answers, root / ".holisafe")
    before = built.server.stats()["requests"]
    holisafe(root, "build")
    assert built.server.stats()["requests"] == before
    assert tables(root) == tables(built.root)
    assert digests(root) == digests(built.root)


def tables(root: Path) -> dict[str, str]:
    """The hash of every table that a stage left."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((root / "data").glob("*/*.parquet"))
    }


def plan(root: Path) -> list[dict[str, Any]]:
    holisafe(root, "plan", "--json", "plan.json")
    rows: list[dict[str, Any]] = json.loads((root / "plan.json").read_text())
    return rows


def unanswered(planned: list[dict[str, Any]]) -> int:
    return sum(row["wanted"] - row["answered"] for row in planned if row["kind"] == "calls")


def test_a_sentence_of_a_policy_asks_again_what_it_decides(built: Rehearsal) -> None:
    assert ADDED in names(built.root)
    expected = change_policy(built.root)
    planned = plan(built.root)
    touched = {row["stage"]: row["changed"] for row in planned if row["kind"] == "stage"}
    assert any("schemas/taxonomy.yaml" in what for what in touched["label_pairs"])
    queries = {r["query"] for r in built.table("synthesize", "queries") if r["harm_class"] == ADDED}
    assert 0 < expected <= 3 * len(queries)
    assert unanswered(planned) == expected
    assert built.build() == expected


def sent_by_stage(planned: list[dict[str, Any]]) -> Counter[str]:
    found: Counter[str] = Counter()
    for row in planned:
        if row["kind"] == "calls":
            found[row["stage"]] += row["wanted"] - row["answered"]
    return found


def test_a_plan_tells_what_other_queries_would_cost(built: Rehearsal, tmp_path: Path) -> None:
    root = Path(shutil.copytree(built.root, tmp_path / "copy"))
    assert unanswered(plan(root)) == 0
    prompt = root / "prompts/synthesize/square.yaml"
    prompt.write_text(prompt.read_text().replace("You write test questions", "You write questions"))
    planned = plan(root)
    sends = sent_by_stage(planned)
    pairs = sum(row["wanted"] for row in planned if row["kind"] == "cell")
    assert sends["synthesize"] == len({r["item_id"] for r in built.table("synthesize", "calls")} - {""})
    assert sends["label_pairs"] >= 2 * pairs
    assert sends["respond"] == pairs
    assert sends["label_images"] == 0


def test_a_plan_can_be_made_when_images_are_gone(built: Rehearsal, tmp_path: Path) -> None:
    root = Path(shutil.copytree(built.root, tmp_path / "copy"))
    params = yaml.safe_load((root / "params.yaml").read_text())
    for some in params["generate"]["placeholders"]:
        some["per_class"] = {side: n // 2 for side, n in some["per_class"].items()}
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    stale = {row["stage"] for row in plan(root) if row["kind"] == "stage"}
    assert stale == set(STAGES) - {"collect"}  # all that comes after, however far
    holisafe(root, "run", "generate")
    holisafe(root, "run", "curate")
    exact = {row["stage"]: row["exact"] for row in plan(root) if row["kind"] == "calls"}
    assert exact == {"label_images": True, "synthesize": False, "label_pairs": False, "respond": False}


def test_ids_are_of_content(built: Rehearsal) -> None:
    for row in built.table("label_pairs", "pairs"):
        text = f"{row['image_id']}\n{row['query']}\nen"
        assert row["pair_id"] == hashlib.sha256(text.encode()).hexdigest()
