"""Shards, loose images and what is said of those that are left out, from tables of the stages before."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipeline.assemble import run
from pipeline.runner import _stamp
from pipeline.store import read_rows, sha256_text, write_json, write_rows
from pipeline.workspace import Silent, Workspace
from schemas.rows import IMAGE_LABELS, IMAGES, PAIRS, RESPONSES, VOTES
from tests.conftest import make_workspace
from tests.images import encoded, picture

Row = dict[str, Any]
RACE, ADVICE = "race", "medical_advice"


def image(name: str, number: int, redistributable: str = "yes") -> Row:
    return {
        "image_id": sha256_text(f"{name} {number}"),
        "intended_class": name,
        "redistributable": redistributable,
        "licence": "CC0-1.0" if redistributable == "yes" else "CC-BY-NC-2.0",
        "page_url": f"https://example.org/{name}/{number}",
        "retrieved_at": "",
        "width": 120,
        "height": 90,
        "bytes": encoded(picture(seed=number), "JPEG"),
    }


def assembled(root: Path, images: Sequence[Row], queries: int = 2, left_out: str = "redistributable") -> Path:
    """The dataset of these images, each with this many unsafe queries."""
    make_workspace(root, [RACE, ADVICE])
    params = root / "params.yaml"
    said = yaml.safe_load(params.read_text()) | {"assemble": {"images": left_out}}
    params.write_text(yaml.safe_dump(said, sort_keys=False))
    workspace = Workspace(root)

    def table(stage: str, name: str, schema: pa.Schema, rows: Sequence[Mapping[str, Any]]) -> None:
        blank = {f.name: [] if pa.types.is_list(f.type) else None for f in schema}
        words = {f.name: f"a {f.name}" for f in schema if pa.types.is_string(f.type)}
        write_rows(workspace.stage_dir(stage) / name, schema, (blank | words | row for row in rows))

    ids = [i["image_id"] for i in images]
    pairs = [
        {
            "pair_id": sha256_text(f"{i['image_id']} {n}"),
            "image_id": i["image_id"],
            "harm_class": i["intended_class"],
            "type": "UUU",
            "split": "train",
            "agreement": 1.0,
            "ssu_unverified": False,
        }
        for i in images
        for n in range(queries)
    ]
    labels = [
        {"image_id": i["image_id"], "image_safe": False, "image_class": i["intended_class"]} for i in images
    ]
    table("curate", "images.parquet", IMAGES, images)
    table("label_images", "labels.parquet", IMAGE_LABELS, labels)
    table("label_images", "votes.parquet", VOTES, [{"item_id": i, "score": 0.5} for i in ids for _ in "ab"])
    table("label_pairs", "votes.parquet", VOTES, [{"item_id": p["pair_id"], "score": 0.25} for p in pairs])
    table("label_pairs", "pairs.parquet", PAIRS, pairs)
    table("respond", "responses.parquet", RESPONSES, [{"pair_id": p["pair_id"]} for p in pairs])
    out = root / "out"
    run(workspace, out, Silent())
    return out


def shard(out: Path, name: str) -> Path:
    [found] = (out / "data").glob(f"*/{name}/train-00000.parquet")
    return found


def test_a_shard_is_the_same_whatever_else_is_in_the_dataset(tmp_path: Path) -> None:
    few = [image(RACE, number) for number in range(3)]
    others = [image(ADVICE, number) for number in range(150)]
    alone = assembled(tmp_path / "alone", few)
    among = assembled(tmp_path / "among", [others[0], few[2], *others[1:], few[0], few[1]])
    assert shard(alone, RACE).read_bytes() == shard(among, RACE).read_bytes()
    assert len(pq.read_table(shard(among, ADVICE))) == 300


def test_rows_hold_the_bytes_of_their_loose_files_and_votes_of_all_kinds(tmp_path: Path) -> None:
    images = {i["image_id"]: i for i in (image(RACE, number) for number in range(5))}
    out = assembled(tmp_path, list(images.values()))
    rows = list(read_rows(shard(out, RACE)))
    assert len(rows) == 10
    for row in rows:
        assert row["image"]["bytes"] == images[row["image_id"]]["bytes"]
        assert (out / "images" / row["image"]["path"]).read_bytes() == row["image"]["bytes"]
        assert sorted(vote["score"] for vote in row["votes"]) == [0.25, 0.5, 0.5]
    assert len([p for p in (out / "images").rglob("*") if p.is_file()]) == len(images)


def test_shards_open_as_images_and_those_left_out_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datasets import Image, load_dataset

    kept, held = image(RACE, 1), image(RACE, 2, "no")
    out = assembled(tmp_path, [held, kept])
    [line] = (out / "meta" / "images_left_out.jsonl").read_text().splitlines()
    told = json.loads(line)
    assert (told["image_id"], told["page_url"]) == (held["image_id"], held["page_url"])
    assert not (out / "images" / told["path"]).exists()
    assert (out / "croissant.json").exists()  # a loader must not take it for data
    monkeypatch.chdir(tmp_path)
    train = load_dataset("out", cache_dir=str(tmp_path / "cache"))["train"]
    assert isinstance(train.features["image"], Image)
    assert {row["image_id"]: row["image"] and row["image"].size for row in train} == {
        kept["image_id"]: (120, 90),
        held["image_id"]: None,
    }
    both = assembled(tmp_path / "all", [held, kept], left_out="all")
    assert (both / "images" / told["path"]).read_bytes() == held["bytes"]
    assert (both / "meta" / "images_left_out.jsonl").read_text() == ""


def test_two_images_that_share_a_path_are_not_mixed_up(tmp_path: Path) -> None:
    one, two = image(RACE, 1), image(RACE, 2)
    two["image_id"] = one["image_id"][:8] + two["image_id"][8:]
    out = assembled(tmp_path, [one, two])
    rows = list(read_rows(shard(out, RACE)))
    failed = list(read_rows(out / "meta" / "failures.parquet"))
    assert [f["reason"] for f in failed] == ["image path taken"] * 2
    [stayed] = {row["image_id"] for row in rows}
    assert {row["image"]["bytes"] for row in rows} == {
        i["bytes"] for i in (one, two) if i["image_id"] == stayed
    }
    assert {f["detail"].rpartition(" ")[2] for f in failed} == {stayed}


def test_pictures_in_shards_are_not_compressed_again_and_kept_once(tmp_path: Path) -> None:
    one = image(RACE, 1)
    group = pq.ParquetFile(shard(assembled(tmp_path, [one], queries=50), RACE)).metadata.row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    pictures = columns.pop("image.bytes")
    assert pictures.compression == "UNCOMPRESSED"
    assert pictures.total_compressed_size < 2 * len(one["bytes"])
    assert {column.compression for column in columns.values()} == {"ZSTD"}


def in_place(root: Path) -> Path:
    """Puts what was assembled where the runner does, and gives the folder."""
    workspace = Workspace(root)
    folder = workspace.stage_dir("assemble")
    shutil.rmtree(folder, ignore_errors=True)
    (root / "out").rename(folder)
    files = [path for path in folder.rglob("*") if path.is_file()]
    outs = {str(path.relative_to(folder)): _stamp(path) for path in files}
    write_json(workspace.state / "stages" / "assemble.json", {"outs": outs})
    return folder


def test_what_is_as_it_was_is_taken_over_and_the_rest_written(tmp_path: Path) -> None:
    root = tmp_path / "root"
    out = assembled(root, [image(name, number) for name in (RACE, ADVICE) for number in range(2)])
    whole = {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}

    def again() -> set[str]:
        """Shards and images that were written and not taken over; all are as a first build has them."""
        folder = in_place(root)
        run(Workspace(root), root / "out", Silent())
        assert {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()} == whole
        there = [path.relative_to(out) for kind in ("data", "images") for path in (out / kind).rglob("*.*")]
        return {str(p) for p in there if (out / p).stat().st_ino != (folder / p).stat().st_ino}

    assert again() == set()
    spoilt = shard(out, RACE)
    loose = next((out / "images").rglob("*.jpg"))
    folder = in_place(root)
    for path in (spoilt, loose):
        file = folder / path.relative_to(out)
        file.write_bytes(b"x" + file.read_bytes()[1:])
        os.utime(file, (1, 1))
    run(Workspace(root), root / "out", Silent())
    assert {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()} == whole
    # Something that a row says is said otherwise.
    table = Workspace(root).stage_dir("respond") / "responses.parquet"
    rows = list(read_rows(table))
    changed = rows[0]["pair_id"]
    write_rows(
        table, RESPONSES, [row | {"response": "Other"} if row["pair_id"] == changed else row for row in rows]
    )
    folder = in_place(root)
    run(Workspace(root), root / "out", Silent())
    shards = [path.relative_to(out) for path in (out / "data").rglob("*.parquet")]
    new = [path for path in shards if (out / path).stat().st_ino != (folder / path).stat().st_ino]
    assert len(new) == 1
    assert "Other" in {row["response"] for row in read_rows(out / new[0])}
