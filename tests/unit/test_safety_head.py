"""The safety head in folds, and its votes: nothing is told of an image by what has seen it."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.annotators import SafetyHeadAnnotator, image_item, load_safety_head, save_safety_head
from pipeline.anyset import open_anyset
from pipeline.audit.judging import folds_of
from pipeline.safellava.config import CATEGORIES
from pipeline.safellava.folds import Labelled, fold, labelled_images, trained_head
from pipeline.safellava.folds_written import write_folds
from pipeline.safellava.pictures import Pictures
from pipeline.store import sha256_bytes
from pipeline.workspace import Silent
from schemas.errors import InputError
from tests.conftest import holisafe
from tests.images import encoded, picture

WIDTH = 24
NONE = Pictures({}, {}, {}, {})


def labelled(n: int = 240, seed: int = 0, signal: float = 2.0, group: int = 2) -> Labelled:
    """Half safe, the others of three classes; features that tell the class as far as `signal` goes."""
    random = np.random.default_rng(seed)
    labels = np.where(np.arange(n) // group % 2 == 0, 0, 6 + np.arange(n) // (2 * group) % 3)
    centres = random.normal(0, signal, (len(CATEGORIES), WIDTH))
    features = (centres[labels] + random.normal(0, 1, (n, WIDTH))).astype(np.float32)
    return Labelled([f"{k:04}" for k in range(n)], NONE, features, labels, np.arange(n) // group)


def test_what_features_tell_is_found_and_what_they_do_not_is_not() -> None:
    ways = fold(labelled(), CATEGORIES, 0, Silent()).ways
    head, majority = ways["safety head"], ways["majority"]
    assert list(ways) == ["safety head", "regression", "majority"]
    assert head.auc.value is not None
    assert head.auc.value > 0.95
    assert head.macro_f1.low is not None
    assert majority.macro_f1.high is not None
    assert head.macro_f1.low > majority.macro_f1.high
    assert majority.auc.value is not None
    assert majority.auc.value <= 0.5
    assert {name for name, of in head.classes.items() if of.images} == {CATEGORIES[k] for k in (0, 6, 7, 8)}
    assert sum(of.images for of in head.classes.values()) == 240
    nothing = area(labelled(signal=0.0))
    assert 0.35 < nothing < 0.65


def area(some: Labelled) -> float:
    """The head's AUC."""
    value = fold(some, CATEGORIES, 0, Silent()).ways["safety head"].auc.value
    assert value is not None
    return value


def test_a_copy_of_an_image_tells_nothing_of_it() -> None:
    # Labels by the toss of a coin, and every image twice: who saw the copy would know them all.
    random = np.random.default_rng(3)
    one = random.normal(0, 1, (120, 400)).astype(np.float32)
    labels = random.integers(0, 2, 120) * 7
    names = [str(k) for k in range(240)]
    twice = Labelled(names, NONE, np.repeat(one, 2, axis=0), np.repeat(labels, 2), np.arange(240) // 2)
    assert area(twice) < 0.65
    assert area(dataclasses.replace(twice, groups=np.arange(240))) > 0.9


def test_folds_keep_groups_whole_and_are_about_even() -> None:
    folds = folds_of(np.arange(200) // 8, 1)
    assert all(len(set(folds[start : start + 8])) == 1 for start in range(0, 200, 8))
    assert sorted(np.bincount(folds)) == [40] * 5


def test_the_same_seed_gives_the_same_figures_and_probabilities() -> None:
    first, again, other = (fold(labelled(), CATEGORIES, seed, Silent()) for seed in (5, 5, 6))
    assert first.ways == again.ways
    assert np.array_equal(first.shares, again.shares)
    assert np.allclose(first.shares.sum(1), 1)
    assert not np.array_equal(first.shares, other.shares)


def test_too_few_groups_to_leave_one_out_are_told() -> None:
    few = dataclasses.replace(labelled(), groups=np.arange(240) // 80)
    with pytest.raises(InputError, match="leak groups: 3 are too few to leave a fifth out"):
        fold(few, CATEGORIES, 0, Silent())
    together = dataclasses.replace(labelled(), groups=np.where(labelled().labels > 0, 0, np.arange(240)))
    with pytest.raises(InputError, match="too few to leave a fifth out"):
        fold(together, CATEGORIES, 0, Silent())


def test_a_channel_that_is_silent_in_training_says_nothing_later() -> None:
    some = labelled()
    some.features[:, 3] = 0.25
    head = trained_head(some.features, some.labels, 20, 0, "")
    unseen = some.features[:5].copy()
    before = head.probabilities(unseen)
    unseen[:, 3] = 9.0
    assert np.array_equal(head.probabilities(unseen), before)


def test_groups_of_the_dataset_keep_images_together_and_what_is_written_comes_back(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    rows = []
    for n in range(60):
        (tmp_path / "images" / f"{n}.png").write_bytes(encoded(picture(40, 40, seed=n), "PNG"))
        rows.append(
            {
                "id": n, "image": f"{n}.png", "query": "What is it?", "type": "USU" if n % 2 else "SSS",
                "category": "violence", "subcategory": "terrorism", "image_safe": n % 2 == 0,
                "image_safety_label": 15 if n % 2 else 0,
            }
            | ({"leak_group": f"thing {n // 10}"} if n < 40 else {})
        )  # fmt: skip
    (tmp_path / "holisafe_bench.json").write_text(json.dumps(rows))
    found = open_anyset(str(tmp_path))
    some = labelled_images(found, Encoder(), 20, Silent())
    group = dict(zip(some.keys, some.groups.tolist(), strict=True))
    assert len({group[f"{n}.png"] for n in range(10)}) == 1
    assert len(set(group.values())) == 4 + 20
    assert len(set(labelled_images(found, Encoder(), 20, Silent(), "looks").groups.tolist())) == 60
    folded = fold(some, CATEGORIES, 0, Silent())
    write_folds(tmp_path / "out", some, folded, "encoder-1", 0)
    head = load_safety_head(tmp_path / "out" / "head.npz")
    assert sorted(head.known) == sorted(some.sha256)
    with (tmp_path / "out" / "votes.csv").open() as file:
        votes = {row["item_id"]: row for row in csv.DictReader(file)}
    assert len(votes) == 60
    for key, share in zip(some.keys, folded.shares, strict=True):
        assert float(votes[key]["score"]) == pytest.approx(1 - share[0], abs=6e-4)
        assert votes[key]["value"] == ("unsafe" if float(votes[key]["score"]) >= 0.5 else "safe")
    done = holisafe(tmp_path, "audit", str(tmp_path), "--votes", "out/votes.csv", "--out", "audit")
    assert "metrics.json" in done.stdout
    metrics = json.loads((tmp_path / "audit" / "metrics.json").read_text())
    assert sum(of["n"] for of in metrics["accuracy"]["image_safe"]["safety-head"]) == 60


class Encoder:
    """Gives each picture features of its own."""

    identity = "encoder-1"

    def __init__(self) -> None:
        self.asked = 0

    def features(self, images: Any) -> Any:
        self.asked += len(images)
        return np.stack([np.full(WIDTH, image.width / 50, np.float32) for image in images])


def test_votes_on_known_images_are_those_of_who_had_not_seen_them(tmp_path: Path) -> None:
    known = encoded(picture(50, 40, seed=1), "JPEG")
    some = labelled()
    head = trained_head(some.features, some.labels, 20, 0, "encoder-1", {sha256_bytes(known): 0.8125})
    save_safety_head(tmp_path / "head.npz", head)
    written = (tmp_path / "head.npz").read_bytes()
    save_safety_head(tmp_path / "head.npz", head)
    assert (tmp_path / "head.npz").read_bytes() == written
    encoder = Encoder()
    annotator = SafetyHeadAnnotator(encoder, load_safety_head(tmp_path / "head.npz"))
    new = encoded(picture(60, 40, seed=2), "JPEG")
    items = [image_item("a", "", "", lambda: known), image_item("b", "", "", lambda: new)]
    votes = annotator.annotate([*items, image_item("c", "", "", lambda: b"no image")], Silent())
    assert [(v.item_id, v.family, v.question) for v in votes] == [
        (i, "safellava", "image_safe") for i in "abc"
    ]
    assert (votes[0].value, votes[0].score) == ("unsafe", 0.812)
    assert votes[1].status == "ok"
    assert votes[2].status == "unscorable"
    assert encoder.asked == 1
    expected = 1 - head.probabilities(np.full((1, WIDTH), 60 / 50, np.float32))[0, 0]
    assert votes[1].score == pytest.approx(expected, abs=6e-4)


def test_a_head_of_another_encoder_or_a_broken_file_is_refused(tmp_path: Path) -> None:
    some = labelled()
    head = trained_head(some.features, some.labels, 20, 0, "encoder-2")
    with pytest.raises(InputError, match="trained on encoder-2, and here is encoder-1"):
        SafetyHeadAnnotator(Encoder(), head)
    with pytest.raises(InputError, match="no such file; write it again with `holisafe safellava folds`"):
        load_safety_head(tmp_path / "none.npz")
    (tmp_path / "bad.npz").write_bytes(b"PK nothing")
    with pytest.raises(InputError, match="cannot be read"):
        load_safety_head(tmp_path / "bad.npz")
    save_safety_head(tmp_path / "odd.npz", dataclasses.replace(head, out_bias=head.out_bias[:5]))
    with pytest.raises(InputError, match="do not go together"):
        load_safety_head(tmp_path / "odd.npz")
