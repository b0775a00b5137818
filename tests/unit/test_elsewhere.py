"""What a build gives to others comes back as it would have been made here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter

from pipeline.annotators import embedded, image_item
from pipeline.annotators.pixels import NudityAnnotator
from pipeline.encoders import EncoderAt, FeatureStore, load_encoder
from pipeline.encoders.spread import _loaded
from pipeline.parallel import Here, given_to
from pipeline.runner import run_stage
from pipeline.store import read_rows
from pipeline.workspace import Silent, Workspace
from schemas.errors import InputError
from schemas.params import Encoder
from tests.clips import VIT, save_clip
from tests.conftest import make_workspace
from tests.elsewhere import Elsewhere
from tests.images import encoded, picture


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("vit")
    save_clip(root, "small-vit", VIT)
    return root


def said(**changes: Any) -> Any:
    fields = {
        "kind": "open_clip", "arch": "small-vit.json", "checkpoint": "small-vit.pt", "family": "small",
        "temperature": 0.05, "offset": 0.0, "batch": 4, **changes,
    }  # fmt: skip
    return TypeAdapter(Encoder).validate_python(fields)


def images(count: int) -> list[Any]:
    files = [encoded(picture(seed=n), "JPEG") for n in range(count)]
    files[count // 2] = b"no image"
    return [image_item(f"i{n}", None, None, file) for n, file in enumerate(files)]


def test_embeddings_are_those_of_this_machine(root: Path, tmp_path: Path) -> None:
    items, encoder = images(11), load_encoder(said(), root)
    at = EncoderAt(said(), root, encoder.identity)
    here = [row for _, row in embedded(encoder, items, None, at)]
    others = Elsewhere()
    with given_to(others), FeatureStore(tmp_path / "features") as kept:
        for place in (None, kept, kept):
            rows = [row for _, row in embedded(encoder, items, place, at)]
            for one, other in zip(here, rows, strict=True):
                assert type(one) is type(other)
                assert np.array_equal(one, other)
        assert others.asked == {("_embed", 1, False)}
        # Who does not know how it is loaded asks here.
        assert len(list(embedded(encoder, items, None))) == 11
    assert "does not load" in here[5]


def test_embeddings_that_killed_are_told_and_an_encoder_on_cuda_asks_for_a_gpu(root: Path) -> None:
    items, encoder = images(5), load_encoder(said(), root)
    others = Elsewhere(dies=True)
    with given_to(others):
        at = EncoderAt(said(device="cuda"), root, encoder.identity)
        found = list(embedded(encoder, items, None, at))
    assert [row for _, row in found] == ["killed the process that embedded it"] * 5
    assert others.asked == {("_embed", 1, True)}


def test_a_worker_with_other_weights_is_refused(root: Path) -> None:
    with pytest.raises(InputError, match=r"a worker has small-vit-.*, and this machine another"):
        _loaded(EncoderAt(said(), root, "another"))


def test_an_encoder_on_a_gpu_is_another_one_and_one_on_the_processor_as_before() -> None:
    assert "device" not in said().identity()
    assert said(device="cuda:1").identity() == {**said().identity(), "device": "cuda"}


class Scores:
    def score(self, pictures: Sequence[Image.Image]) -> list[float]:
        return [float(np.asarray(one).mean()) / 255 for one in pictures]


def test_nudity_is_that_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.annotators.pixels._nudity", Scores)
    items, others = images(7), Elsewhere()
    here = NudityAnnotator(Scores()).annotate(items, Silent())
    with given_to(others):
        assert NudityAnnotator(Scores()).annotate(items, Silent()) == here
    assert others.asked == {("_nudity_of", 16, False)}
    with given_to(Elsewhere(dies=True)):
        died = NudityAnnotator(Scores()).annotate(items, Silent())
    assert {(vote.status, vote.note) for vote in died} == {("error", "killed the process that looked at it")}


def test_drawings_are_those_of_this_machine(tmp_path: Path) -> None:
    tables = {}
    for name in ("here", "others", "dead"):
        root = make_workspace(tmp_path / name, ["weapon_related_violence"])
        with given_to(Here() if name == "here" else Elsewhere(dies=name == "dead")):
            run_stage(Workspace(root), "generate", Silent())
        tables[name] = root / "data" / "generate"
    images = "images.parquet"
    assert (tables["here"] / images).read_bytes() == (tables["others"] / images).read_bytes()
    assert list(read_rows(tables["others"] / images))
    failures = list(read_rows(tables["dead"] / "failures.parquet"))
    assert {row["detail"] for row in failures} == {"killed the process that made it"}
