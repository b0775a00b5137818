"""The head that ships: small, described, and not trained on the seed set."""

import csv
import hashlib
import json
from pathlib import Path

import imagehash
import numpy as np
import pytest
from PIL import Image

from pipeline.encoders.image import HEAD

ROOT = Path(__file__).parents[2]
SEED = ROOT / "data" / "seed"
MEND = "was trained on: run scripts/train_encoder_head.py again, it leaves out what is in the seed set"


def test_head_is_small_and_described() -> None:
    assert HEAD.stat().st_size < 1_500_000
    record = json.loads(HEAD.with_suffix(".json").read_text("utf-8"))
    with np.load(HEAD) as head:
        assert head["weight"].shape == (384, 1280)
        assert head["weight"].dtype == np.float16
        assert np.isfinite(head["weight"]).all()
        assert float(head["mix"]) == pytest.approx(record["mix"])
        assert len(head["names"]) == len(head["looks"]) == sum(d["pictures"] for d in record["data"])
    assert all(d["licence"] for d in record["data"])
    scores = record["held_out"]["test"]["recall_at_10"]
    assert scores["sum"] > 2 * scores["class_names"]


@pytest.mark.skipif(not (SEED / "metadata.jsonl").exists(), reason="there is no seed set")
def test_seed_pictures_were_not_trained_on() -> None:
    with np.load(HEAD) as head:
        names, looks = {int(n) for n in head["names"]}, head["looks"]
    with (ROOT / "scripts" / "seed_selection.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            number = int.from_bytes(hashlib.sha256(row["path"].encode()).digest()[:8], "big")
            assert number not in names, f"{row['path']} {MEND}"
    for line in (SEED / "metadata.jsonl").read_text("utf-8").splitlines():
        path = SEED / json.loads(line)["file_name"]
        with Image.open(path) as image:
            seen = image.convert("RGB")
        for turned in (seen, seen.transpose(Image.Transpose.FLIP_LEFT_RIGHT)):
            look = np.uint64(int(str(imagehash.phash(turned)), 16))
            assert np.bitwise_count(looks ^ look).min() > 6, f"{path}, or a picture like it, {MEND}"
