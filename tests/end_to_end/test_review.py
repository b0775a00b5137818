"""`holisafe review` as a process: its address, what survives a kill, and what it refuses."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.review import ReviewStore
from schemas.reviews import REVIEWS, load_reviews
from tests.conftest import HOLISAFE, holisafe
from tests.review import Browser, own_row, own_set


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a built dataset and the params of a build."""
    root = tmp_path_factory.mktemp("review")
    own_set(root, [own_row(n) for n in range(6)])
    (root / "params.yaml").write_text("")
    return root


@contextmanager
def started(root: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The page in a process of its own, and its address."""
    process = subprocess.Popen(
        [HOLISAFE, "review", "data/dataset", "--no-browser", *arguments],
        cwd=root,
        env=os.environ | {"COLUMNS": "40"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if found := re.search(r"http://\S+", line):
                break
        else:
            raise AssertionError("".join(said))
        yield process, found[0]
    finally:
        process.kill()
        process.communicate()


def test_votes_survive_a_kill_and_reach_their_file_when_the_program_ends(folder: Path) -> None:
    store = folder / ".holisafe" / "reviews.sqlite"
    with started(folder) as (process, url):
        anna = Browser(url, "anna")
        anna.judge(anna.queue(), "safe", "unsafe", "safe")
        process.kill()
        process.wait()
    with ReviewStore(store) as opened:
        assert [v.value for v in opened.votes("")] == ["safe", "unsafe", "safe"]
    assert not (folder / REVIEWS).exists()
    shown = holisafe(folder, "review-votes", "status", "data/dataset", COLUMNS="200").stdout
    assert re.search(r"anna +3 +0 +3 +0 +1/6", shown)
    assert "3 changes are not in" in shown

    with started(folder) as (process, url):
        anna = Browser(url, "anna")
        assert "1 of 6" in anna.get("/").words
        anna.judge(anna.queue(), "safe", "safe", "skip")
        process.send_signal(signal.SIGTERM)
        told, _ = process.communicate(timeout=60)
        assert process.returncode == 0, told
        assert "5 votes stand in" in told
    assert [(v.annotator, v.gold) for v in load_reviews(folder, frozenset())] == [("anna", True)] * 5
    shown = holisafe(folder, "review-votes", "status", "data/dataset", COLUMNS="200").stdout
    assert "All votes are in" in shown


def test_two_programs_may_serve_one_store(folder: Path, tmp_path: Path) -> None:
    store = str(tmp_path / "r.sqlite")
    with started(folder, "--store", store) as (_, one), started(folder, "--store", store) as (_, two):
        anna, ben = Browser(one, "anna"), Browser(two, "ben")
        anna.judge(anna.queue())
        ben.judge(ben.queue())
        anna.judge(anna.queue())
    with ReviewStore(Path(store)) as opened:
        assert [v.reviewer for v in opened.votes("")] == ["anna"] * 3 + ["ben"] * 3 + ["anna"] * 3


def test_gold_and_label_studio_by_command(folder: Path, tmp_path: Path) -> None:
    store = str(tmp_path / "r.sqlite")
    out = tmp_path / "out"
    shown = holisafe(
        folder, "review-votes", "to-label-studio", "data/dataset", "--out", str(out), COLUMNS="200"
    )
    assert "6 tasks" in shown.stdout
    tasks = json.loads((out / "tasks.json").read_text())
    for task in tasks:
        choices = [
            {"from_name": q, "to_name": "image", "type": "choices", "value": {"choices": ["unsafe"]}}
            for q in ("text_safe", "image_safe", "pair_safe")
        ]
        task["annotations"] = [{"id": 1, "completed_by": 4, "result": choices}]
    tasks[0]["data"]["row_id"] = "0"
    (tmp_path / "done.json").write_text(json.dumps(tasks))
    taken = holisafe(
        folder, "review-votes", "from-label-studio", "data/dataset", str(tmp_path / "done.json"),
        "--store", store, "--name", "4=cleo", "--gold", COLUMNS="200",
    )  # fmt: skip
    assert "5 annotations stored, 0 were there, 1 problems" in taken.stdout
    assert "task 1: data.row_id: no row '0'" in taken.stderr
    gold = tmp_path / "gold.csv"
    holisafe(
        folder, "review-votes", "export", "data/dataset",
        "--store", store, "--votes-to", str(gold), "--only-gold", COLUMNS="200",
    )  # fmt: skip
    with gold.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 15
    assert {(r["annotator"], r["value"], r["gold"]) for r in rows} == {("cleo", "unsafe", "true")}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("review", "nowhere", "--no-browser"), "nowhere: no such file or folder"),
        (("review", "params.yaml", "--no-browser"), "params.yaml: not JSON"),
        (("review", "data/dataset", "--no-browser", "--reviewer", "a b"), "--reviewer a b: letters"),
        (("review", "data/dataset", "--no-browser", "--store", "params.yaml/x"), "--store"),
        (("review", "data/dataset", "--no-browser", "--votes-to", "v.txt"), "ends in .jsonl or .csv"),
        (("review", "data/dataset", "--no-browser", "--audit", "."), "metrics.json: cannot be read"),
        (("review-votes", "status", "data/dataset", "--store", "none"), "nobody has reviewed anything"),
        (("review-votes", "export", "data/dataset", "--only-gold"), "name the file with --votes-to"),
        (("review-votes", "to-label-studio", "data/dataset", "--out", "x", "--queue", "y"), "no such queue"),
        (("review-votes", "from-label-studio", "data/dataset", "params.yaml", "--name", "x"), "WHO=NAME"),
    ],
)
def test_bad_usage_is_told_with_exit_code_2(folder: Path, arguments: tuple[str, ...], said: str) -> None:
    done = holisafe(folder, *arguments, check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken_is_told(folder: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = holisafe(
            folder, "review", "data/dataset", "--no-browser", "--port", port,
            "--store", str(tmp_path / "r.sqlite"), check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert f"--port {port}: cannot be had" in done.stderr
