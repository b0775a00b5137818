"""Datasets joined into one folder: sides, names and images."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from pipeline.safellava.examples import read_ordinary, read_source, split, without_held_out
from pipeline.safellava.pictures import look_at_pictures
from pipeline.workspace import Silent
from tests.built import built, row
from tests.conftest import REPOSITORY
from tests.images import encoded, picture


def joined(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scripts.join_sets", *arguments, "--out", str(folder / "out")],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip


def other(folder: Path, n: int = 40) -> Path:
    (folder / "images").mkdir(parents=True)
    rows = []
    for k in range(n):
        (folder / "images" / f"{k}.png").write_bytes(encoded(picture(40, 40, seed=k), "PNG"))
        rows.append(
            {
                "id": k + 1, "image": f"{k}.png", "query": "What is it?", "type": "SSS", "category": "hate",
                "subcategory": "race", "image_safe": True, "image_safety_label": 0,
                "leak_group": f"g{k // 4}",
            }
        )  # fmt: skip
    (folder / "holisafe_bench.json").write_text(json.dumps(rows))
    return folder


def test_sides_are_kept_or_dealt_out_by_leak_group_and_ids_are_new(tmp_path: Path) -> None:
    ours = built(tmp_path / "ours", [row(1, split="train"), row(2, "UUU", split="test")])
    theirs = other(tmp_path / "theirs")
    done = joined(tmp_path, f"ours={ours}", f"theirs={theirs}")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "out" / "holisafe_bench.json").read_text())
    assert [r["id"] for r in rows] == list(range(1, 43))
    assert {r["type"]: (r["split"], r["response"]) for r in rows[:2]} == {
        "SSS": ("train", "Answer 1."),
        "UUU": ("test", "Answer 2."),
    }
    sides: dict[str, set[str]] = {}
    for r in rows[2:]:
        sides.setdefault(r["leak_group"], set()).add(r["split"])
    assert all(len(of) == 1 for of in sides.values())
    assert {side for of in sides.values() for side in of} == {"train", "test"}
    assert all((tmp_path / "out" / "images" / r["image"]).is_file() for r in rows)


def test_what_is_there_missing_or_leads_out_is_refused(tmp_path: Path) -> None:
    theirs = other(tmp_path / "theirs", 4)
    (theirs / "images" / "3.png").unlink()
    refused = joined(tmp_path, f"theirs={theirs}")
    assert refused.returncode == 2
    assert "3.png is missing" in refused.stderr
    assert not (tmp_path / "out").exists()
    evil = built(tmp_path / "evil", [row(1, image_id="../../../evil")])
    refused = joined(tmp_path, f"evil={evil}")
    assert refused.returncode == 2
    assert "no path below a folder" in refused.stderr
    assert not (tmp_path / "out").exists()


def ordinary(folder: Path, *images: str | None) -> Path:
    """Ordinary pairs of a dataset, on some of its pictures or on none."""
    turns = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "It is a dog."}]
    lines: list[dict[str, object]] = []
    for n, image in enumerate(images):
        group = {} if image is None else {"image": image, "leak_group": f"g{n}"}
        lines.append({"id": n, "conversations": turns} | group)
    path = folder / "ordinary.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_ordinary_pairs_are_joined_under_the_names_of_their_dataset(tmp_path: Path) -> None:
    ours = built(tmp_path / "ours", [row(1, split="train"), row(2, "UUU", split="test")])
    theirs = other(tmp_path / "theirs")
    for n in range(10):  # of each leak group a picture that the dataset itself does not show
        (theirs / "images" / f"o{n}.png").write_bytes(encoded(picture(40, 40, seed=100 + n), "PNG"))
    pairs = ordinary(theirs, *(f"o{n}.png" for n in range(10)), "0.png", None)
    done = joined(tmp_path, f"ours={ours}", f"theirs={theirs}", "--ordinary", f"theirs={pairs}")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ordinary"] == 12
    out = tmp_path / "out"
    rows = json.loads((out / "holisafe_bench.json").read_text())
    found = read_ordinary(out / "ordinary.jsonl", safe=True)
    groups = {r["leak_group"]: r["split"] for r in rows if "leak_group" in r}
    assert {e.leak_group for e in found.examples[:10]} == set(groups)
    assert found.examples[10].image in {r["image"] for r in rows}
    assert found.examples[11].image is None
    shown = look_at_pictures(found.images, found.keys, Silent())
    shown.must_decode("ordinary.jsonl")
    source = read_source(str(out), 20, head_only=True)
    pictures = look_at_pictures(source.images, source.keys, Silent())
    kept, _ = without_held_out(found, shown, split(source, pictures, seed=0), pictures)
    held_out = {group for group, on in groups.items() if on == "test"}
    assert held_out
    assert len(kept.examples) > 1
    assert {e.leak_group for e in kept.examples[:-1]}.isdisjoint(held_out)


def test_ordinary_pairs_that_cannot_be_joined(tmp_path: Path) -> None:
    theirs = other(tmp_path / "theirs", 4)
    for image, problem in (("9.png", "9.png is missing"), ("../up.png", "no path below a folder")):
        refused = joined(
            tmp_path, f"theirs={theirs}", "--ordinary", f"theirs={ordinary(theirs, '0.png', image)}"
        )
        assert refused.returncode == 2
        assert problem in refused.stderr
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "0.png").write_bytes(encoded(picture(40, 40, seed=7), "PNG"))
    pairs = ordinary(elsewhere, "0.png")
    refused = joined(tmp_path, f"theirs={theirs}", "--ordinary", f"theirs={pairs}")
    assert "0.png is another picture than the dataset's of that name" in refused.stderr
    assert joined(tmp_path, f"theirs={theirs}", "--ordinary", str(pairs)).returncode == 2
    assert not (tmp_path / "out").exists()
