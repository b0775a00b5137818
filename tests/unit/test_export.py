"""Exports of a built dataset: what goes out, what is left out, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import call, create_autospec

import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipeline.built import Side
from pipeline.export import Exported, export_bench, export_llava, plan_upload, upload
from pipeline.prove import Cell, Proof, rows_hash, write_proof
from pipeline.prove.proof import Figure, Trial
from pipeline.store import read_rows
from pipeline.workspace import Silent
from schemas.errors import InputError
from tests.built import built, row
from tests.conftest import holisafe

FIELDS = ["id", "image", "query", "type", "category", "subcategory", "image_safe", "image_safety_label"]
GUN = "weapon_related_violence"


def mixed(folder: Path) -> Path:
    """One row of everything that exports tell apart."""
    return built(
        folder,
        [
            row(1),
            row(2, "SSU"),
            row(3, "SSU", ssu_unverified=True),
            row(4, "SUU", name=GUN),
            row(5, "USU", name=GUN),
            row(6, "UUU", grade_image="borderline"),
            row(7, "USU", grade_joint="borderline", expected="safe_complete"),
            row(8, "SSU", grade_joint="borderline"),
            row(9, "SUU", grade_text="borderline"),
            row(10, "UUU", image=None, redistributable="no"),
            row(11, split="train"),
            row(12, "UUU", split="train", name=GUN),
            row(13, split="train", query="What does <image> mean?"),
        ],
    )


def bench(dataset: Path, out: Path, split: Side = "test", with_unverified: bool = False) -> Exported:
    return export_bench(dataset, out, split=split, with_unverified=with_unverified, progress=Silent())


def llava(dataset: Path, out: Path, split: Side = "train", rationale: bool = False) -> list[dict[str, Any]]:
    export_llava(dataset, out, split=split, rationale=rationale, progress=Silent())
    said: list[dict[str, Any]] = json.loads((out / "llava.json").read_text())
    return said


def files(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("split", ["train", "test", "all"])
def test_the_strict_export_is_holisafes_format(tmp_path: Path, split: Side) -> None:
    dataset, out = mixed(tmp_path / "set"), tmp_path / "out"
    bench(dataset, out, split, with_unverified=True)
    rows = json.loads((out / "holisafe_bench.json").read_text())
    assert rows
    assert all(list(r) == FIELDS for r in rows)
    assert len({r["id"] for r in rows}) == len(rows)
    for r in rows:
        assert isinstance(r["id"], int)
        assert r["query"].strip()
        assert (out / "images" / r["image"]).read_bytes() == (dataset / "images" / r["image"]).read_bytes()
        assert r["image_safe"] is r["type"].startswith("S")
        assert (r["image_safety_label"] == 0) is r["image_safe"]
    assert files(out / "images") == {r["image"] for r in rows}


def test_the_strict_export_leaves_out_what_holisafe_cannot_say(tmp_path: Path) -> None:
    dataset = mixed(tmp_path / "set")
    done = bench(dataset, tmp_path / "out")
    rows = json.loads((tmp_path / "out" / "holisafe_bench.json").read_text())
    assert {r["id"]: r["type"] for r in rows} == {1: "SSS", 2: "SSU", 4: "SUU", 5: "USU", 6: "UUU", 7: "USU"}
    assert json.loads((tmp_path / "out" / "left_out.json").read_text()) == {
        "split": "test",
        "rows": 10,
        "kept": 6,
        "kept_by_type": {"SSS": 1, "SSU": 1, "SUU": 1, "USU": 2, "UUU": 1},
        "left_out": {"image not released": 1, "SSU not verified": 1, "borderline grade": 2},
        "images": 6,
    }
    assert done.rows == done.kept.total() + done.left_out.total()
    assert bench(dataset, tmp_path / "more", with_unverified=True).kept["SSU"] == 2
    assert bench(dataset, tmp_path / "all", split="all").rows == 13


def test_an_image_of_two_rows_is_copied_once(tmp_path: Path) -> None:
    one, two = row(1), row(2)
    two["image"] = {"bytes": None, "path": one["image"]["path"]}
    assert bench(built(tmp_path / "set", [one, two]), tmp_path / "out").images == 1


def test_conversations_are_what_llava_reads(tmp_path: Path) -> None:
    dataset = mixed(tmp_path / "set")
    one, two = llava(dataset, tmp_path / "out")
    assert one == {
        "id": "11",
        "image": "hate/race/race_11.jpg",
        "conversations": [
            {"from": "human", "value": "<image>\nWhat is this, number 11?"},
            {"from": "gpt", "value": "Answer 11."},
        ],
        "type": "SSS",
        "image_safety_label": 0,
    }
    assert (two["id"], two["type"], two["image_safety_label"]) == ("12", "UUU", 9)
    assert files(tmp_path / "out" / "images") == {one["image"], two["image"]}
    said = json.loads((tmp_path / "out" / "left_out.json").read_text())
    assert said["left_out"] == {"image not released": 0, "<image> in the text": 1}
    reasons = llava(dataset, tmp_path / "with", split="all", rationale=True)
    assert {r["id"]: r["rationale"] for r in reasons}["11"] is None
    assert {r["id"]: r["rationale"] for r in reasons}["12"] == {"class": GUN, "why": "harm"}
    assert len(reasons) == 11


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": " "}, "row 2: query: empty"),
        ({"image_safe": False}, "row 2: image_safe: False in a row of type SSS"),
        ({"image_safety_label": 3}, "row 2: image_safety_label: 3"),
        ({"type": "USS"}, "row 2: type: 'USS'"),
        ({"id": 1}, "row 1: id: another row has it"),
        ({"image": {"bytes": None, "path": "../../escaped.jpg"}}, "row 2: image.path"),
    ],
)
def test_a_row_that_no_build_makes_is_an_error_and_nothing_is_left(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    dataset = built(tmp_path / "set", [row(1), row(2) | change])
    with pytest.raises(InputError, match="test-00000.parquet: " + message):
        bench(dataset, tmp_path / "to" / "out")
    assert list((tmp_path / "to").iterdir()) == []


def test_an_image_that_is_missing_is_named(tmp_path: Path) -> None:
    dataset = built(tmp_path / "set", [row(1)])
    (dataset / "images" / "hate" / "race" / "race_1.jpg").unlink()
    with pytest.raises(InputError, match=r"row 1: image.path: there is no .*race_1.jpg"):
        bench(dataset, tmp_path / "out")


def test_the_folder_must_be_new_and_what_a_killed_export_left_does_not_hinder(tmp_path: Path) -> None:
    dataset = built(tmp_path / "set", [row(1)])
    (tmp_path / ".out.partial" / "images").mkdir(parents=True)
    (tmp_path / ".out.partial" / "images" / "stale.jpg").write_bytes(b"x")
    bench(dataset, tmp_path / "out")
    assert files(tmp_path / "out") == {
        "holisafe_bench.json",
        "left_out.json",
        "images/hate/race/race_1.jpg",
        "lmms_eval/holisafe_export.yaml",
        "lmms_eval/official_rule.json",
        "lmms_eval/utils.py",
    }
    assert not (tmp_path / ".out.partial").exists()
    with pytest.raises(InputError, match="is there already"):
        bench(dataset, tmp_path / "out")
    with pytest.raises(InputError, match="is in the dataset"):
        bench(dataset, dataset / "out")


def test_a_side_without_rows_gives_empty_lists(tmp_path: Path) -> None:
    dataset = built(tmp_path / "set", [row(1)])
    assert llava(dataset, tmp_path / "out") == []
    assert (tmp_path / "out" / "images").is_dir()


def test_folders_that_are_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="name the folder that `holisafe build` makes"):
        bench(tmp_path / "nothing", tmp_path / "out")
    dataset = built(tmp_path / "set", [row(1)])
    [shard] = dataset.glob("data/*/*/*.parquet")
    table = pq.read_table(shard)
    pq.write_table(table.drop_columns("query"), shard)
    with pytest.raises(InputError, match=r"test-00000.parquet: query: no such column"):
        bench(dataset, tmp_path / "out")
    pq.write_table(table.set_column(0, "id", pa.array(["one"])), shard)
    with pytest.raises(InputError, match="id: is string, and int64 is wanted"):
        bench(dataset, tmp_path / "out")
    pq.write_table(table, shard)
    whole = shard.read_bytes()
    shard.write_bytes(bytes(len(whole) // 2) + whole[len(whole) // 2 :])  # the footer is as it was
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        bench(dataset, tmp_path / "out")
    shard.write_bytes(b"PAR1")
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        bench(dataset, tmp_path / "out")


def test_an_upload_is_private_gated_and_complete_before_it_is_public(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = mixed(tmp_path / "set")
    # The real signatures: a parameter that the library does not know is an error here too.
    api = create_autospec(huggingface_hub.HfApi, instance=True)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda token: api)
    plan = plan_upload(dataset, "lab/set", public=False, progress=Silent())
    assert (plan.private, plan.gating, plan.rows, plan.left_out) == (True, "manual", 13, 1)
    assert set(plan.files) == files(dataset)
    upload(dataset, plan, "secret")
    assert [c[0] for c in api.method_calls] == [
        "create_repo",
        "update_repo_settings",
        "upload_file",
        "upload_folder",
    ]
    assert api.create_repo.call_args.kwargs["private"] is True
    assert api.update_repo_settings.call_args == call(
        "lab/set", repo_type="dataset", gated="manual", private=True
    )
    assert api.upload_folder.call_args.kwargs["ignore_patterns"] == ["README.md"]
    api.reset_mock()
    upload(dataset, plan_upload(dataset, "lab/set", public=True, progress=Silent()), "secret")
    assert api.create_repo.call_args.kwargs["private"] is True
    assert [c[0] for c in api.method_calls][-2:] == ["upload_folder", "update_repo_settings"]
    assert api.update_repo_settings.call_args == call("lab/set", repo_type="dataset", private=False)


def test_the_card_that_is_uploaded_asks_for_agreement(tmp_path: Path) -> None:
    dataset = built(tmp_path / "set", [row(1)])
    before = (dataset / "README.md").read_text()
    plan = plan_upload(dataset, "lab/set", public=False, progress=Silent())
    _, front, body = plan.card.split("---\n", 2)
    said = yaml.safe_load(front)
    assert said["gated"] is True
    assert "unsafe images" in said["extra_gated_prompt"]
    kinds = {"text", "checkbox", "date_picker", "country", "select"}
    assert set(said["extra_gated_fields"].values()) <= kinds
    assert said["configs"] == yaml.safe_load(before.split("---\n")[1])["configs"]
    assert body == "# A card\n"
    assert (dataset / "README.md").read_text() == before
    (dataset / "README.md").write_text(plan.card.replace("Agree and ask for access", "Yes"))
    again = plan_upload(dataset, "lab/set", public=False, progress=Silent()).card
    assert again == (dataset / "README.md").read_text()


@pytest.mark.parametrize("said", ["no", "unknown"])
def test_images_that_may_not_be_given_away_never_go(tmp_path: Path, said: str) -> None:
    dataset = built(tmp_path / "set", [row(1), row(2, redistributable=said)])
    with pytest.raises(InputError, match=rf"row 2: redistributable: {said}, .*assemble: .*redistributable"):
        plan_upload(dataset, "lab/set", public=False, progress=Silent())
    held = built(tmp_path / "held", [row(1), row(2, image=None, redistributable=said)])
    assert plan_upload(held, "lab/set", public=False, progress=Silent()).left_out == 1
    # Its row has no image, and a loose file of it would go all the same.
    (held / "images" / "hate" / "race" / "race_2.jpg").write_bytes(b"x")
    with pytest.raises(InputError, match=r"race_2.jpg: no row says"):
        plan_upload(held, "lab/set", public=False, progress=Silent())


def test_files_of_other_kinds_never_go(tmp_path: Path) -> None:
    dataset = built(tmp_path / "set", [row(1)])
    (dataset / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes.txt: no build writes this file"):
        plan_upload(dataset, "lab/set", public=False, progress=Silent())
    (dataset / "notes.txt").unlink()
    (dataset / "meta" / "failures.parquet").symlink_to("/etc/hostname")
    with pytest.raises(InputError, match=r"failures.parquet: a link"):
        plan_upload(dataset, "lab/set", public=False, progress=Silent())
    (dataset / "meta" / "failures.parquet").unlink()
    (dataset / "README.md").write_text("no front matter")
    with pytest.raises(InputError, match=r"README.md: no front matter"):
        plan_upload(dataset, "lab/set", public=False, progress=Silent())


def test_the_command_line(tmp_path: Path) -> None:
    dataset = mixed(tmp_path / "set")
    said = holisafe(tmp_path, "export", "holisafe-bench", "set", "--out", "bench").stdout
    assert "6 of 10 rows (test) with 6 images" in said
    assert "2 left out: borderline grade" in said
    said = holisafe(tmp_path, "export", "llava", "set", "--out", "llava", "--rationale").stdout
    assert "2 of 3 rows (train)" in said
    # No name can be looked up and no proxy be reached: what it says it knows from the folder alone.
    alone = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN": ""}
    said = holisafe(tmp_path, "export", "hub", "set", "--repo", "lab/set", "--dry-run", **alone).stdout
    assert "lab/set: private, gated" in said
    assert "Nothing was sent" in said
    for arguments, message in [
        (("holisafe-bench", "set", "--out", "bench"), "--out: bench is there already"),
        (("holisafe-bench", "nowhere", "--out", "new"), "nowhere: no data/"),
        (("hub", "set", "--repo", "lab/set"), "--token-env: HF_TOKEN is not set"),
        (("hub", "set", "--repo", "set", "--dry-run"), "--repo: 'set' is not OWNER/NAME"),
    ]:
        done = holisafe(tmp_path, "export", *arguments, check=False, **alone)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert message in done.stderr
    rows = [r for shard in sorted(dataset.glob("data/*/*/*.parquet")) for r in read_rows(shard, ["id"])]
    assert len(rows) == 13


def test_a_proof_stands_in_the_card_of_the_dataset_that_it_is_of(tmp_path: Path) -> None:
    dataset = built(tmp_path / "set", [row(1), row(2, "UUU", name=GUN)])
    figure = Figure(0.75, 0.6, 0.9)
    nothing = Figure(None, None, None)
    figures = {"AUC": figure} | dict.fromkeys(("SSU", "USU", "SUU", "UUU"), nothing)
    proof = Proof(
        rows_hash([(2, "UUU"), (1, "SSS")]),
        50,
        (0, 1, 2),
        [{"name": "set", "are": 60, "unsafe": 0.5}],
        [Trial("other", "there", {"SSS": 10, "UUU": 12}, 3, 0)],
        [Cell("set", "other", figures, nothing)],
    )
    write_proof(proof, tmp_path / "proof")
    card = plan_upload(dataset, "lab/set", public=False, progress=Silent(), proof=tmp_path / "proof").card
    assert card.startswith("---\n")
    assert card.rstrip().endswith("| set | .75 (.60 to .90) | – | – | – | – | – |")
    assert "Tested on **other** (10 SSS, 12 UUU; 3 left out, whose picture is trained on)" in card
    more = built(tmp_path / "more", [row(1), row(2, "UUU", name=GUN), row(3)])
    with pytest.raises(InputError, match="a proof of other rows than these"):
        plan_upload(more, "lab/set", public=False, progress=Silent(), proof=tmp_path / "proof")
