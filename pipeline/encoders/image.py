"""Images and texts in one space: an image-text encoder built inside open_clip.

The default joins two networks that were never trained together: EfficientNet-Lite2, which knows the 1,000
classes of ImageNet, and MiniLM, which embeds sentences. An image is placed among the texts by the sum of

* the embeddings of the names of its ten likeliest classes, weighted by their probabilities (ConSE), and
* a linear head on the network's 1,280 features, trained on captioned drawings (docs/encoder.md).

It is far weaker than encoders trained on hundreds of millions of pairs, and its cosines have a scale of
their own: calibrate thresholds. `OpenClipEncoder` puts any open_clip checkpoint in its place.
"""

from __future__ import annotations

import json
import tempfile
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pipeline.encoders._common import (
    FloatArray,
    cosines,
    fingerprint,
    fixed_threads,
    in_threads,
    on_white,
    quiet,
    require,
    unit,
)
from pipeline.encoders.text import TextEncoder
from pipeline.extras import needs
from pipeline.parallel import usable_cores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from PIL.Image import Image

HEAD = Path(__file__).with_name("head.npz")
"""The linear head that ships with the package."""

_ARCH = "holisafe-efficientnet-lite2-minilm"
_FEATURES = 1280
_SIDE = 260
_MEAN = 127 / 255
_STD = 128 / 255
_RESIZE = "longest"
_TOP = 10


class ImageTextEncoder(Protocol):
    """Whatever places images and texts in one space."""

    @property
    def identity(self) -> str:
        """Name of the weights, for cache keys."""

    def embed(self, images: Sequence[Image]) -> FloatArray:
        """Return (n, d) float32 image embeddings with rows of length 1."""

    def embed_each(self, loads: Iterable[Callable[[], Image]]) -> Iterator[FloatArray | str]:
        """Load and embed images as they come; yield a row for each, or why it did not load."""

    def embed_texts(self, texts: Sequence[str]) -> FloatArray:
        """Return (n, d) float32 text embeddings with rows of length 1."""

    def objects(self, images: Sequence[Image], k: int = 5) -> list[list[tuple[str, float]]]:
        """Return the k likeliest ImageNet classes of each image as (name, probability), best first."""

    def similarity(self, images: Sequence[Image], texts: Sequence[str]) -> FloatArray:
        """Return (n, m) float32 cosines of images and texts, -1..1."""


def class_names() -> list[str]:
    """Return the 1,000 ImageNet class names, in the order of the classifier."""
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES

    return list(IMAGENET_CLASSNAMES)


def best(probabilities: FloatArray, names: Sequence[str], k: int) -> list[list[tuple[str, float]]]:
    """The k likeliest of each row as (name, probability), best first; ties keep their order."""
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return [[(names[i], float(row[i])) for i in top] for row, top in zip(probabilities, order, strict=True)]


def _each(items: Sequence[Any] | FloatArray, function: Callable[[Any], Any], width: int) -> FloatArray:
    """Apply a torch function that gives (1, width) to one item after another, and stack the rows.

    One at a time: on a processor batches gain a tenth at most, and alone no score depends on companions.
    """
    out = np.zeros((len(items), width), np.float32)
    for row, item in zip(out, items, strict=True):
        with fixed_threads():
            row[:] = function(item).numpy()[0]
    return out


def _build(text_dir: Path, dim: int) -> tuple[Any, Any]:
    """Return (model, preprocess) with a random image tower and the text tower's weights."""
    import open_clip

    config = {
        "embed_dim": dim,
        "vision_cfg": {
            "timm_model_name": "tf_efficientnet_lite2",
            "timm_model_pretrained": False,
            "timm_pool": "avg",
            "timm_proj": "linear",
            "timm_proj_bias": True,
            "image_size": _SIDE,
        },
        "text_cfg": {
            "hf_model_name": str(text_dir),
            "hf_tokenizer_name": str(text_dir),
            "hf_pooler_type": "mean_pooler",
            "hf_proj_type": None,
        },
    }
    # open_clip takes architectures only as files, and this one holds a path.
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{_ARCH}.json"
        file.write_text(json.dumps(config), encoding="utf-8")
        open_clip.add_model_config(file)
        with quiet():
            model, _, preprocess = open_clip.create_model_and_transforms(
                _ARCH,
                pretrained=None,
                image_mean=(_MEAN,) * 3,
                image_std=(_STD,) * 3,
                image_interpolation="bicubic",
                image_resize_mode=_RESIZE,
            )
    return model.eval(), preprocess


class ImageEncoder:
    """EfficientNet-Lite2 and MiniLM as one image-text encoder."""

    def __init__(self, weights_path: Path, text_dir: Path, head_path: Path | None = HEAD) -> None:
        """Build the encoder and load its weights.

        Args:
            weights_path: State dictionary of EfficientNet-Lite2 trained on ImageNet-1k (.pth).
            text_dir: Directory of MiniLM, as for `TextEncoder`.
            head_path: The trained linear head (.npz): `weight` (text dimension, 1280), `bias` (text
                dimension), and `mix`, its share in the sum, 0..1. None: class names alone.
        """
        import torch

        require(weights_path, "the ImageNet weights of EfficientNet-Lite2")
        require(text_dir, "a sentence encoder", directory=True)
        config = require(text_dir / "config.json", "the shape of the sentence encoder").read_text("utf-8")
        self._files = [weights_path]
        self._model, self._preprocess = _build(text_dir, json.loads(config)["hidden_size"])
        self._classifier = torch.nn.Linear(_FEATURES, 1000).eval()
        self._load_tower(weights_path)
        self._mix = 0.0
        if head_path is not None:
            self._load_head(head_path)
        self.text = TextEncoder(text_dir, self._model.text)
        self._names = class_names()
        self._name_vectors = torch.from_numpy(self.text.embed(self._names))

    def _load_tower(self, path: Path) -> None:
        import torch

        stored = list(torch.load(path, map_location="cpu", weights_only=True).values())
        wanted = [*self._model.visual.trunk.state_dict().items(), *self._classifier.state_dict().items()]
        # The file names its tensors in its own way, but in the same order.
        shapes = [tuple(t.shape) for t in stored]
        if shapes != [tuple(t.shape) for _, t in wanted]:
            raise ValueError(f"{path}: not EfficientNet-Lite2 for 1,000 classes; give its state dictionary.")
        loaded = {name: tensor for (name, _), tensor in zip(wanted, stored, strict=True)}
        self._classifier.load_state_dict({name: loaded.pop(name) for name in ("weight", "bias")})
        self._model.visual.trunk.load_state_dict(loaded)

    def _load_head(self, path: Path) -> None:
        import torch

        with np.load(require(path, "the trained linear head (scripts/train_encoder_head.py)")) as arrays:
            weight, bias = (arrays[name].astype(np.float32) for name in ("weight", "bias"))
            mix = float(arrays["mix"])
        proj = self._model.visual.head.proj
        if (weight.shape, bias.shape) != (proj.weight.shape, proj.bias.shape) or not 0 <= mix <= 1:
            raise ValueError(
                f"{path}: weight {weight.shape}, bias {bias.shape}, mix {mix}; needed are "
                f"{tuple(proj.weight.shape)}, {tuple(proj.bias.shape)} and 0..1. "
                "Train the head with scripts/train_encoder_head.py."
            )
        with torch.no_grad():
            proj.weight.copy_(torch.from_numpy(weight))
            proj.bias.copy_(torch.from_numpy(bias))
        self._mix = mix
        self._files.append(path)

    @cached_property
    def identity(self) -> str:
        """Name of the weights, for cache keys: changes when a file of the encoder does."""
        return f"efficientnet-lite2-{fingerprint(self._files)}+{self.text.identity}"

    @property
    def dim(self) -> int:
        """Length of the embeddings."""
        return self.text.dim

    def features(self, images: Sequence[Image]) -> FloatArray:
        """Return the network's features before any head, (n, 1280) float32; they may be stored."""
        return _each(
            images, lambda i: self._model.visual.trunk(self._preprocess(on_white(i))[None]), _FEATURES
        )

    def probabilities(self, features: FloatArray) -> FloatArray:
        """Return the ImageNet class probabilities of features (n, 1280), (n, 1000) float32."""
        return self._rows(features, lambda x: self._classifier(x).softmax(-1), 1000)

    def from_classes(self, features: FloatArray) -> FloatArray:
        """Embed features (n, 1280) by the names of their likeliest classes alone (ConSE)."""

        def conse(x: Any) -> Any:
            best = self._classifier(x).softmax(-1).topk(_TOP, dim=-1)
            return (best.values.unsqueeze(-1) * self._name_vectors[best.indices]).sum(1)

        return unit(self._rows(features, conse, self.dim))

    def from_head(self, features: FloatArray) -> FloatArray:
        """Embed features (n, 1280) by the trained linear head alone."""
        return unit(self._rows(features, self._model.visual.head, self.dim))

    def embed_features(self, features: FloatArray) -> FloatArray:
        """Embed features (n, 1280): the weighted sum of class names and head, (n, 384) of length 1."""
        names = self.from_classes(features)
        return unit((1 - self._mix) * names + self._mix * self.from_head(features)) if self._mix else names

    def _rows(self, features: FloatArray, function: Callable[[Any], Any], width: int) -> FloatArray:
        import torch

        return _each(features, lambda row: function(torch.from_numpy(row)[None]), width)

    def embed(self, images: Sequence[Image]) -> FloatArray:
        """Return image embeddings in the text encoder's space, (n, 384) float32, rows of length 1."""
        return self.embed_features(self.features(images))

    def embed_each(self, loads: Iterable[Callable[[], Image]]) -> Iterator[FloatArray | str]:
        """Load and embed images as they come, on all cores; yield as `ImageTextEncoder` says."""

        def embedded(load: Callable[[], Image]) -> FloatArray | str:
            try:
                image = load()
            except (OSError, ValueError) as error:
                return f"the image does not load: {error}"
            row: FloatArray = self.embed([image])[0]
            return row

        return in_threads(embedded, loads, usable_cores())

    def embed_texts(self, texts: Sequence[str]) -> FloatArray:
        """Return text embeddings, (n, 384) float32, rows of length 1."""
        return self.text.embed(texts)

    def objects(self, images: Sequence[Image], k: int = 5) -> list[list[tuple[str, float]]]:
        """Return the k likeliest ImageNet classes of each image as (name, probability), best first."""
        return best(self.probabilities(self.features(images)), self._names, k)

    def similarity(self, images: Sequence[Image], texts: Sequence[str]) -> FloatArray:
        """Return (n, m) float32 cosines of images and texts, -1..1."""
        return cosines(self.embed(images), self.embed_texts(texts))


def load_image_encoder() -> ImageEncoder:
    """Load the default encoder from the local model store, with the head that ships with the package."""
    from pipeline.models import locate

    needs("open_clip", "torch", "transformers")
    return ImageEncoder(locate("efficientnet-lite2"), locate("all-minilm-l6-v2"))
