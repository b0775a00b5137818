"""Encoders of open_clip that params name: their own shapes, in any company, and what is wrong with files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter

from pipeline.encoders import OpenClipEncoder, check_encoder, encoder_identity, load_encoder
from schemas.errors import InputError
from schemas.params import Encoder
from tests.clips import SIGLIP, SIGLIP_PREPARED, VIT, SavedClip, save_clip, save_tokenizer


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> SavedClip:
    return save_clip(tmp_path_factory.mktemp("vit"), "small-vit", VIT)


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> SavedClip:
    return save_clip(
        tmp_path_factory.mktemp("siglip"), "small-siglip", SIGLIP, preprocess_cfg=SIGLIP_PREPARED
    )


def pictures(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(1)
    return [Image.fromarray(rng.integers(0, 255, (40 + i, 90, 3), np.uint8)) for i in range(count)]


def loads(images: list[Image.Image]) -> list[Callable[[], Image.Image]]:
    return [image.copy for image in images]


def broken() -> Image.Image:
    raise OSError("no pixels")


def said(saved: SavedClip, **changes: Any) -> Any:
    """What params say of it."""
    fields = {
        "kind": "open_clip", "arch": str(saved.config), "checkpoint": str(saved.checkpoint),
        "family": "small", "temperature": 0.05, "offset": 0.0, **changes,
    }  # fmt: skip
    return TypeAdapter(Encoder).validate_python(fields)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_row_hangs_on_its_image_alone(vit: SavedClip, precision: str) -> None:
    images = pictures(23)
    one = OpenClipEncoder(vit.config, vit.checkpoint, precision=precision, batch=4, threads=1)
    two = OpenClipEncoder(vit.config, vit.checkpoint, precision=precision, batch=4, threads=3)
    together = one.embed(images)
    assert together.shape == (23, 32)
    assert np.allclose(np.linalg.norm(together, axis=1), 1)
    assert np.array_equal(together, two.embed(images)), "threads"
    assert np.array_equal(together[::-1], one.embed(images[::-1])), "order"
    assert np.array_equal(together, np.concatenate([one.embed([i]) for i in images])), "company"
    texts = ["a cat", "a dog"]
    scores = one.similarity(images, texts)
    wide = OpenClipEncoder(vit.config, vit.checkpoint, precision=precision, batch=9, threads=2)
    assert np.abs(scores - wide.similarity(images, texts)).max() < 0.0005, "batch"


def test_other_threads_keep_their_number(vit: SavedClip) -> None:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        OpenClipEncoder(vit.config, vit.checkpoint, threads=2).embed(pictures(3))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_an_image_that_does_not_load_is_told_in_its_place(vit: SavedClip) -> None:
    images = pictures(5)
    encoder = OpenClipEncoder(vit.config, vit.checkpoint, batch=2, threads=2)
    rows = list(encoder.embed_each([broken, *loads(images), broken]))
    assert rows[0] == rows[-1] == "the image does not load: no pixels"
    assert np.array_equal(np.array(rows[1:-1]), encoder.embed(images))
    assert list(encoder.embed_each([])) == []


def test_few_images_are_in_memory(vit: SavedClip) -> None:
    encoder = OpenClipEncoder(vit.config, vit.checkpoint, batch=2, threads=2)
    taken = 0

    def endless() -> Any:
        nonlocal taken
        while True:
            taken += 1
            yield pictures(1)[0].copy

    rows = encoder.embed_each(endless())
    for _ in range(10):
        next(rows)
    assert taken <= 10 + 2 * (2 + 1)
    rows.close()  # type: ignore[attr-defined]


def test_a_siglip_with_its_own_preparation_and_tokenizer(siglip: SavedClip, tmp_path: Path) -> None:
    words = save_tokenizer(tmp_path / "words")
    encoder = OpenClipEncoder(siglip.config, siglip.checkpoint, tokenizer=words, batch=4)
    images = pictures(5)
    vectors = encoder.embed(images)
    assert vectors.shape == (5, 64)
    texts = encoder.embed_texts(["a photo of a cat", "a photo of a dog", "A photo of a CAT!"])
    assert not np.allclose(texts[0], texts[1])
    assert np.allclose(texts[0], texts[2]), "cleaned as the config says"
    assert encoder._model.visual.preprocess_cfg["resize_mode"] == "squash"
    assert encoder._model.visual.preprocess_cfg["mean"] == [0.5] * 3
    other = save_clip(tmp_path, "other", SIGLIP, preprocess_cfg={**SIGLIP_PREPARED, "resize_mode": "longest"})
    otherwise = OpenClipEncoder(other.config, siglip.checkpoint, tokenizer=words, batch=4)
    assert otherwise.identity != encoder.identity
    assert not np.allclose(otherwise.embed(images), vectors)


def test_known_weights_say_how_images_are_prepared(tmp_path: Path) -> None:
    """Whoever has a checkpoint of a published architecture need not know what it was trained with."""
    import open_clip

    encoder = OpenClipEncoder.__new__(OpenClipEncoder)
    encoder.arch = "ViT-B-16-SigLIP"
    assert encoder._preparation(None)[0]["resize_mode"] == "squash"
    encoder.arch = "ViT-L-14"
    assert encoder._preparation(None)[0].get("mean") == open_clip.OPENAI_DATASET_MEAN
    assert encoder._preparation("laion2b_s32b_b82k")[0]["mean"] == (0.5,) * 3
    assert encoder._preparation("openai")[1], "these were trained with the quick GELU"
    with pytest.raises(ValueError, match="pretrained_tag nobody: no weights of ViT-L-14; there are: openai"):
        encoder._preparation("nobody")


def test_wrong_files_are_one_clear_error(vit: SavedClip, siglip: SavedClip, tmp_path: Path) -> None:
    (tmp_path / "noise.pt").write_bytes(b"no weights at all")
    (tmp_path / "noise.safetensors").write_bytes(b"no weights at all")
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "half.json").write_text('{"embed_dim": 8}')
    (tmp_path / "list.json").write_text("[]")
    for changes, told in (
        ({"checkpoint": "gone.pt"}, "encoder.checkpoint: there is no gone.pt; correct the path"),
        ({"arch": "gone.json"}, "encoder.arch: there is no gone.json"),
        ({"arch": "ViT-Z-99"}, "encoder: ViT-Z-99: no architecture of open_clip"),
        ({"arch": "half.json"}, "half.json: no open_clip model config: lacks text_cfg, vision_cfg"),
        ({"arch": "list.json"}, "list.json: no open_clip model config"),
        ({"checkpoint": "noise.pt"}, "noise.pt: holds no weights of small-vit"),
        ({"checkpoint": "noise.safetensors"}, "noise.safetensors: holds no weights of small-vit"),
        ({"checkpoint": "empty.pt"}, "empty.pt: holds no weights of small-vit"),
        ({"checkpoint": str(siglip.checkpoint)}, "holds no weights of small-vit"),
        ({"tokenizer": "gone"}, "encoder.tokenizer: there is no gone"),
        ({"pretrained_tag": "x"}, "encoder: pretrained_tag x: no weights of small-vit"),
    ):
        with pytest.raises(InputError) as wrong:
            load_encoder(said(vit, **changes), tmp_path)
        assert told in str(wrong.value)
        assert str(wrong.value).startswith(str(tmp_path / "params.yaml"))
        assert "\n" not in str(wrong.value)
    with pytest.raises(InputError, match="tokenizer nobody/has-this is not here"):
        load_encoder(said(siglip), tmp_path)


def test_the_identity_follows_files_and_not_speed(vit: SavedClip, tmp_path: Path) -> None:
    copy = tmp_path / "weights.pt"
    copy.write_bytes(vit.checkpoint.read_bytes())
    first = encoder_identity(said(vit), tmp_path)
    assert encoder_identity(said(vit, batch=3, threads=7, checkpoint="weights.pt"), tmp_path) == first
    assert encoder_identity(said(vit, temperature=0.1), tmp_path) != first
    copy.write_bytes(copy.read_bytes() + b"x")
    assert encoder_identity(said(vit, checkpoint="weights.pt"), tmp_path) != first
    with pytest.raises(InputError, match=r"encoder\.checkpoint"):
        check_encoder(said(vit, checkpoint="gone"), tmp_path)
