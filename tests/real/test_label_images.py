"""Stage label_images with a checkpoint that params name, after the real stages before it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from pipeline.encoders import OpenClipEncoder
from pipeline.models import ModelMissingError
from pipeline.runner import run_stage, stage_key
from pipeline.stages import STAGES
from pipeline.store import read_rows
from pipeline.workspace import Silent, Workspace
from schemas.errors import InputError
from tests.clips import SIGLIP, SIGLIP_PREPARED, VIT, save_clip, save_tokenizer
from tests.conftest import REPOSITORY, make_workspace
from tests.scripted import scripted

pytestmark = pytest.mark.real

JUDGE = [{"answer": "safe", "logprobs": {"safe": -0.2, "unsafe": -1.8}}]


class Labelled:
    """A workspace whose label_images can be run with other params."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def change(self, **values: Any) -> None:
        path = self.root / "params.yaml"
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | values, sort_keys=False))

    def params(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = yaml.safe_load((self.root / "params.yaml").read_text())[name]
        return found

    def run(self, **encoder: Any) -> bool:
        self.change(encoder=encoder)
        return run_stage(Workspace(self.root), "label_images", Silent())

    def key(self, **encoder: Any) -> str | None:
        self.change(encoder=encoder)
        return stage_key(Workspace(self.root), STAGES["label_images"])

    def votes(self) -> list[dict[str, Any]]:
        rows = pq.read_table(self.root / "data" / "label_images" / "votes.parquet").to_pylist()
        return [row for row in rows if row["annotator"] == "encoder"]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Labelled]:
    root = make_workspace(
        tmp_path_factory.mktemp("labelled"),
        ["weapon_related_violence"],
        annotators={q: ["judge"] for q in ("image_safe", "text_safe", "pair_safe")},
        generate={"drawings": {"safe": 1, "unsafe": 0}},
    )
    save_clip(root / "weights", "vit", VIT)
    save_clip(root / "weights", "siglip", SIGLIP, preprocess_cfg=SIGLIP_PREPARED)
    save_tokenizer(root / "weights" / "words")
    with scripted(answers=JUDGE) as judge:
        (root / "judge.json").write_text(judge.script.model_dump_json())
        made = Labelled(root)
        made.change(
            endpoints={
                "judge": {
                    "kind": "scripted",
                    "script": "judge.json",
                    "base_url": judge.base_url,
                    "model": "m",
                    "family": "judge",
                }
            },
            collect=made.params("collect") | {"per_class": {"safe": 4, "unsafe": 4}},
        )
        try:
            for name in ("collect", "generate", "curate"):
                run_stage(Workspace(root), name, Silent())
        except ModelMissingError as missing:
            pytest.skip(str(missing))
        yield made


SMALL = {"kind": "open_clip", "arch": "weights/vit.json", "checkpoint": "weights/vit.pt", "family": "small"}
TOLD = {"temperature": 0.05, "offset": 0.0}


def test_images_are_labelled_by_the_checkpoint(labelled: Labelled, monkeypatch: pytest.MonkeyPatch) -> None:
    assert labelled.run(**SMALL, **TOLD)
    first = labelled.votes()
    assert len(first) == 2 * 9
    assert {v["family"] for v in first} == {"small"}
    assert {v["status"] for v in first} == {"ok"}

    assert not labelled.run(**SMALL, **TOLD, batch=3, threads=3), "these change no score"
    kept = labelled.root / ".holisafe" / "features" / "features.sqlite"
    assert kept.exists()

    def embeds(*_: Any) -> Any:
        raise AssertionError("an image was embedded again")

    monkeypatch.setattr(OpenClipEncoder, "_embed_batch", embeds)
    assert labelled.run(**SMALL, temperature=0.01, offset=0.01), "another temperature is another label"
    assert [v["score"] for v in labelled.votes()] != [v["score"] for v in first]
    assert labelled.run(**SMALL, **TOLD)
    assert labelled.votes() == first
    monkeypatch.undo()
    kept.unlink()
    labelled.run(**SMALL, temperature=0.02, offset=0.0, batch=3, threads=3)
    labelled.run(**SMALL, **TOLD)
    assert labelled.votes() == first, "embedded anew, in other batches"


def test_thresholds_by_class_are_applied(labelled: Labelled) -> None:
    labelled.run(**SMALL, **TOLD)
    first = labelled.votes()
    weights = labelled.root / "weights"
    encoder = OpenClipEncoder(weights / "vit.json", weights / "vit.pt")
    shipped = json.loads((REPOSITORY / "pipeline" / "encoders" / "calibration.json").read_text())

    def told(threshold: float) -> dict[str, Any]:
        classes = {name: said | {"threshold": threshold} for name, said in shipped["classes"].items()}
        return {"encoder": encoder.identity, **TOLD, "level": 0.9, "classes": classes}

    file = weights / "calibration.json"
    file.write_text(json.dumps(told(0.001)))
    assert labelled.run(**SMALL, **TOLD, calibration="weights/calibration.json")
    after = labelled.votes()
    assert {v["value"] for v in after if v["question"] == "image_safe"} == {"unsafe"}
    named = [[v for v in votes if v["question"] == "image_class"] for votes in (first, after)]
    assert named[0] == named[1], "which class it is hangs on no threshold"
    file.write_text(json.dumps(told(0.999)))
    assert labelled.run(**SMALL, **TOLD, calibration="weights/calibration.json"), "the file is in the key"
    assert {v["value"] for v in labelled.votes() if v["question"] == "image_safe"} == {"safe"}
    file.write_text(json.dumps(told(0.5) | {"encoder": "another"}))
    with pytest.raises(InputError, match="made for encoder another"):
        labelled.run(**SMALL, **TOLD, calibration="weights/calibration.json")


def test_another_encoder_is_another_label(labelled: Labelled) -> None:
    labelled.run(**SMALL, **TOLD)
    first = labelled.votes()
    siglip = {
        "kind": "open_clip",
        "arch": "weights/siglip.json",
        "checkpoint": "weights/siglip.pt",
        "tokenizer": "weights/words",
        "family": "siglip",
    }
    assert labelled.run(**siglip, **TOLD)
    assert {v["family"] for v in labelled.votes()} == {"siglip"}
    assert [v["score"] for v in labelled.votes()] != [v["score"] for v in first]
    key = labelled.key(**siglip, **TOLD)
    words = labelled.root / "weights" / "words" / "tokenizer.json"
    words.write_text(words.read_text() + "\n")
    assert labelled.key(**siglip, **TOLD) != key


def test_a_wrong_checkpoint_is_told_before_any_work(labelled: Labelled) -> None:
    with pytest.raises(InputError, match=r"encoder: .*vit\.pt: holds no weights of"):
        labelled.run(**SMALL | {"arch": "ViT-B-32"}, **TOLD)
    with pytest.raises(InputError, match=r"encoder\.checkpoint: there is no weights/gone\.pt"):
        labelled.run(**SMALL | {"checkpoint": "weights/gone.pt"}, **TOLD)
    with pytest.raises(InputError, match=r"encoder\.checkpoint: there is no weights/gone\.pt"):
        Workspace(labelled.root).check()


def test_the_same_scene_by_its_embedding_stays_on_one_side(labelled: Labelled) -> None:
    def groups() -> set[str]:
        table = labelled.root / "data" / "curate" / "images.parquet"
        return {row["leak_group"] for row in read_rows(table, ["leak_group"])}

    curate = labelled.params("curate")
    labelled.change(encoder={**SMALL, **TOLD})
    run_stage(Workspace(labelled.root), "curate", Silent())
    apart = groups()
    assert len(apart) > 1
    # The small encoder has random weights: to it all pictures are much alike.
    labelled.change(curate=curate | {"leak_cosine": 0.05})
    (labelled.root / ".holisafe" / "splits.jsonl").unlink()
    assert run_stage(Workspace(labelled.root), "curate", Silent())
    assert len(groups()) < len(apart)
    labelled.change(curate=curate)
    (labelled.root / ".holisafe" / "splits.jsonl").unlink()
    assert run_stage(Workspace(labelled.root), "curate", Silent())
    assert groups() == apart
