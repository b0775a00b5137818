"""Any open_clip architecture with weights from a local file.

Several batches run at the same time, each on one core from the decoding of its files to its embeddings. A
batch has a fixed size and one thread, so that an embedding depends neither on the images beside it nor on how
many batches run at once; and nobody waits for another, as the threads of one batch do.
"""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

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
from pipeline.encoders.image import best, class_names
from pipeline.store import canonical_json, sha256_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from PIL.Image import Image

__all__ = ["OpenClipEncoder"]


class OpenClipEncoder:
    """An image-text encoder of open_clip."""

    def __init__(
        self,
        arch: str | Path,
        checkpoint: Path,
        *,
        pretrained_tag: str | None = None,
        tokenizer: Path | None = None,
        precision: str = "fp32",
        batch: int = 16,
        threads: int = 1,
        device: str = "cpu",
    ) -> None:
        """Build the architecture and load its weights.

        Args:
            arch: name of an architecture, such as ViT-B-32, or a model-config file (.json).
            checkpoint: the weights.
            pretrained_tag: open_clip's name for these weights, where it knows them: it says how images are
                prepared and which GELU they were trained with. By default images are prepared as for most
                of the architecture's known weights.
            tokenizer: folder of tokenizer files, where open_clip would fetch them.
            precision: fp32 or bf16.
            batch: images that run through the network together.
            threads: batches that run at the same time, each on one core.
            device: as torch names it.

        Raises:
            FileNotFoundError: when a file is missing.
            ValueError: when there is no such architecture, or the file does not hold its weights.
        """
        import open_clip

        require(checkpoint, f"open_clip weights for {arch}")
        self._files = [checkpoint]
        self.arch = arch if isinstance(arch, str) else self._register(arch)
        if self.arch not in open_clip.list_models():
            raise ValueError(f"{arch}: no architecture of open_clip; open_clip.list_models() names them all.")
        self.batch, self.threads, self._precision, self._device = batch, threads, precision, device
        self._model, self._preprocess = self._build(checkpoint, pretrained_tag)
        self._tokenizer = self._load_tokenizer(tokenizer)
        self.dim: int = open_clip.get_model_config(self.arch)["embed_dim"]

    def _register(self, config: Path) -> str:
        """Make a model-config file known to open_clip by a name that follows its bytes."""
        import json
        import tempfile
        from pathlib import Path

        import open_clip

        self._files.append(require(config, "an open_clip model config"))
        name = f"{config.stem}-{fingerprint([config])}"
        try:
            shape = json.loads(config.read_text("utf-8"))
            # Files on model hubs wrap the shape, and say beside it how images are prepared.
            self._prepared = shape.get("preprocess_cfg", {})
            shape = shape.get("model_cfg", shape)
            missing = {"embed_dim", "vision_cfg", "text_cfg"} - shape.keys()
        except (ValueError, AttributeError) as error:
            raise ValueError(f"{config}: no open_clip model config: {error}") from error
        if missing:
            raise ValueError(f"{config}: no open_clip model config: lacks {', '.join(sorted(missing))}")
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"{name}.json"
            file.write_text(json.dumps(shape), encoding="utf-8")
            open_clip.add_model_config(file)
        return name

    _prepared: dict[str, Any] | None = None

    def _build(self, checkpoint: Path, tag: str | None) -> tuple[Any, Any]:
        import open_clip

        prepared, quick_gelu = self._preparation(tag)
        self._quick_gelu = quick_gelu
        try:
            with quiet():
                model, _, preprocess = open_clip.create_model_and_transforms(
                    self.arch,
                    pretrained=str(checkpoint),
                    precision=self._precision,
                    device=self._device,
                    force_quick_gelu=quick_gelu,
                    image_mean=prepared.get("mean"),
                    image_std=prepared.get("std"),
                    image_interpolation=prepared.get("interpolation"),
                    image_resize_mode=prepared.get("resize_mode"),
                )
        except Exception as error:  # torch, pickle, safetensors and numpy each have errors of their own
            what = " ".join(str(error).split())[:300] or type(error).__name__
            raise ValueError(f"{checkpoint}: holds no weights of {self.arch}: {what}") from error
        return model.eval(), preprocess

    def _preparation(self, tag: str | None) -> tuple[dict[str, Any], bool]:
        """How images are prepared, and whether the weights were trained with the quick GELU."""
        from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

        known = {t: get_pretrained_cfg(self.arch, t) for t in list_pretrained_tags_by_model(self.arch)}
        if tag is not None:
            if tag not in known:
                names = ", ".join(known) or "none"
                raise ValueError(f"pretrained_tag {tag}: no weights of {self.arch}; there are: {names}")
            return known[tag], bool(known[tag].get("quick_gelu"))
        if self._prepared is not None:
            return self._prepared, False
        fields = ("mean", "std", "interpolation", "resize_mode")
        ways = Counter(tuple((name, cfg.get(name)) for name in fields) for cfg in known.values())
        return dict(ways.most_common(1)[0][0]) if ways else {}, False

    def _load_tokenizer(self, folder: Path | None) -> Any:
        import open_clip

        said = open_clip.get_model_config(self.arch)["text_cfg"]
        if folder is not None:
            require(folder, "tokenizer files", directory=True)
        elif not said.get("hf_tokenizer_name"):
            return open_clip.get_tokenizer(self.arch)
        length = said.get("context_length", 77)
        mode, more = said.get("tokenizer_mode"), said.get("tokenizer_kwargs") or {}
        name = str(folder or said["hf_tokenizer_name"])
        try:
            with quiet():
                return open_clip.tokenizer.HFTokenizer(
                    name, context_length=length, tokenizer_mode=mode, local_files_only=True, **more
                )
        except (OSError, ValueError) as error:
            what = " ".join(str(error).split())[:200]
            raise ValueError(
                f"tokenizer {name} is not here; put its files in a folder and name that: {what}"
            ) from error

    @cached_property
    def identity(self) -> str:
        """Name of what makes the embeddings, for cache keys: weights, precision, preparation, GELU."""
        how = dict(self._model.visual.preprocess_cfg) | ({"quick_gelu": True} if self._quick_gelu else {})
        prepared = sha256_text(canonical_json(how))[:8]
        where = "" if self._device == "cpu" else "-cuda"
        return f"{self.arch}-{self._precision}{where}-{prepared}-{fingerprint(self._files)}"

    @cached_property
    def _class_vectors(self) -> FloatArray:
        return self.embed_texts([f"a photo of a {name}." for name in class_names()])

    def embed_each(self, loads: Iterable[Callable[[], Image]]) -> Iterator[FloatArray | str]:
        """Load and embed images as they come, in their order; no more than a few batches are in memory.

        Yields:
            A row of length 1 for each image, or why it did not load.
        """
        rest = iter(loads)
        batches = iter(lambda: list(islice(rest, self.batch)), [])
        for found in in_threads(self._embed_batch, batches, self.threads):
            yield from found

    def _embed_batch(self, loads: Sequence[Callable[[], Image]]) -> list[FloatArray | str]:
        import open_clip
        import torch

        found: list[FloatArray | str] = []
        pixels: list[Any] = []
        for load in loads:
            try:
                pixels.append(self._preprocess(on_white(load())))
                found.append("")
            except (OSError, ValueError) as error:
                found.append(f"the image does not load: {error}")
        if not pixels:
            return found
        full = torch.zeros(self.batch, *pixels[0].shape)
        torch.stack(pixels, out=full[: len(pixels)])
        dtype = open_clip.get_input_dtype(self._precision)
        with torch.inference_mode():
            rows = iter(unit(self._model.encode_image(full.to(self._device, dtype)).float().cpu().numpy()))
        return [why or next(rows) for why in found]

    def embed(self, images: Sequence[Image]) -> FloatArray:
        """Return image embeddings, (n, d) float32, rows of length 1."""
        rows = list(self.embed_each(image.copy for image in images))
        return np.array(rows, np.float32).reshape(len(images), self.dim)

    def embed_texts(self, texts: Sequence[str]) -> FloatArray:
        """Return text embeddings, (n, d) float32, rows of length 1."""
        out = np.zeros((len(texts), self.dim), np.float32)
        for row, text in zip(out, texts, strict=True):
            with fixed_threads():
                tokens = self._tokenizer([text]).to(self._device)
                row[:] = self._model.encode_text(tokens).float().cpu().numpy()[0]
        return unit(out)

    def objects(self, images: Sequence[Image], k: int = 5) -> list[list[tuple[str, float]]]:
        """Return the k likeliest ImageNet classes, told from their names (zero-shot), best first."""
        scale = float(self._model.logit_scale.detach().exp())
        logits = scale * cosines(self.embed(images), self._class_vectors).astype(np.float64)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        return best((weights / weights.sum(axis=1, keepdims=True)).astype(np.float32), class_names(), k)

    def similarity(self, images: Sequence[Image], texts: Sequence[str]) -> FloatArray:
        """Return (n, m) float32 cosines of images and texts, -1..1."""
        return cosines(self.embed(images), self.embed_texts(texts))
