"""The encoders' real code on tiny networks with random weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.encoders import ImageEncoder, OpenClipEncoder, TextEncoder

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "cat", "dog", "knife", "photo", "of", "the"]


@pytest.fixture(scope="module")
def text_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("text")
    torch.manual_seed(0)
    shape = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    BertModel(shape, add_pooling_layer=False).save_pretrained(folder)
    words = {word: i for i, word in enumerate(WORDS)}
    tokens = BertWordPieceTokenizer(words)  # type: ignore[arg-type]
    BertTokenizerFast(tokenizer_object=tokens._tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import timm
    import torch

    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("tower") / "lite2.pth"
    state = timm.create_model("tf_efficientnet_lite2", pretrained=False).state_dict()
    torch.save({f"other.{i}": tensor for i, tensor in enumerate(state.values())}, file)
    return file


def write_head(file: Path, **changes: Any) -> Path:
    rng = np.random.default_rng(0)
    arrays = {
        "weight": rng.normal(size=(32, 1280)).astype(np.float16),
        "bias": np.zeros(32, np.float16),
        "mix": np.float32(0.5),
    }
    np.savez(file, **(arrays | changes))
    return file


def pictures(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(1)
    return [Image.fromarray(rng.integers(0, 255, (40 + i, 60, 3), np.uint8)) for i in range(count)]


def test_text_is_the_same_in_any_company(text_dir: Path) -> None:
    encoder = TextEncoder(text_dir)
    texts = ["a cat", "the dog of the cat " * 3, "", "knife " * 300, "a \ud800 cat"] * 5
    together = encoder.embed(texts)
    assert together.shape == (25, 32)
    assert together.dtype == np.float32
    assert np.allclose(np.linalg.norm(together, axis=1), 1)
    assert np.array_equal(together, np.concatenate([encoder.embed([t]) for t in texts]))
    assert np.array_equal(together[::-1], encoder.embed(texts[::-1]))
    assert encoder.embed([]).shape == (0, 32)
    assert encoder.identity == TextEncoder(text_dir).identity


def test_image_encoder(text_dir: Path, tower: Path, tmp_path: Path) -> None:
    encoder = ImageEncoder(tower, text_dir, write_head(tmp_path / "head.npz"))
    images = pictures(3)
    vectors = encoder.embed(images)
    assert vectors.shape == (3, encoder.dim) == (3, 32)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    assert np.array_equal(vectors, np.concatenate([encoder.embed([i]) for i in images]))
    features = encoder.features(images)
    assert np.array_equal(encoder.embed_features(features), vectors)
    probabilities = encoder.probabilities(features)
    assert np.allclose(probabilities.sum(1), 1)
    (best,) = encoder.objects(images[:1], k=3)
    assert len(best) == 3
    assert [p for _, p in best] == sorted((p for _, p in best), reverse=True)
    assert encoder.similarity(images, ["a cat", "a dog"]).shape == (3, 2)
    assert encoder.embed([]).shape == (0, 32)

    alone = ImageEncoder(tower, text_dir, None)
    assert np.array_equal(alone.embed(images), alone.from_classes(features))
    assert not np.allclose(alone.embed(images), vectors)
    assert alone.identity != encoder.identity


def test_wrong_weights_are_refused(text_dir: Path, tower: Path, tmp_path: Path) -> None:
    import torch

    other = tmp_path / "other.pth"
    torch.save({"a": torch.zeros(2)}, other)
    with pytest.raises(ValueError, match=r"other\.pth: not EfficientNet-Lite2"):
        ImageEncoder(other, text_dir, None)
    for changes in ({"weight": np.zeros((384, 1280), np.float16)}, {"mix": np.float32(2)}):
        head = write_head(tmp_path / "head.npz", **changes)
        with pytest.raises(ValueError, match=r"head\.npz: weight .* Train the head"):
            ImageEncoder(tower, text_dir, head)


def test_any_open_clip_checkpoint(tmp_path: Path) -> None:
    import json

    import open_clip
    import torch

    shape = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    }
    config = tmp_path / "tiny-random.json"
    config.write_text(json.dumps(shape))
    open_clip.add_model_config(config)
    torch.manual_seed(0)
    checkpoint = tmp_path / "tiny.pt"
    torch.save(open_clip.create_model("tiny-random", load_weights=False).state_dict(), checkpoint)

    encoder = OpenClipEncoder("tiny-random", checkpoint)
    images = pictures(3)
    vectors = encoder.embed(images)
    assert vectors.shape == (3, 16)
    assert np.array_equal(vectors, np.concatenate([encoder.embed([i]) for i in images]))
    assert encoder.similarity(images, ["a cat", "a dog"]).shape == (3, 2)
    assert encoder.embed([]).shape == (0, 16)
    assert encoder.embed_texts([]).shape == (0, 16)
    (best,) = encoder.objects(images[:1], k=2)
    assert len(best) == 2
    with pytest.raises(ValueError, match="no architecture"):
        OpenClipEncoder("no-such-thing", checkpoint)
