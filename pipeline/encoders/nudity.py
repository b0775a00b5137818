"""How likely an image is pornographic, by Yahoo's Open-NSFW network."""

from __future__ import annotations

import io
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from pipeline.encoders._common import THREADS, FloatArray, fingerprint, on_white, require

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from PIL.Image import Image

_SIDE = 256
_CROP = 224
_MEAN_BGR = (104.0, 117.0, 123.0)


def _prepare(image: Image) -> FloatArray:
    """Return what the network was trained on: (1, 224, 224, 3) float32, BGR less the mean."""
    from PIL import Image as Images

    small = on_white(image).resize((_SIDE, _SIDE), Images.Resampling.BILINEAR)
    # It was trained on pictures that had been saved as JPEG after scaling, and scores shift without that.
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG")
    margin = (_SIDE - _CROP) // 2
    with Images.open(buffer) as again:
        pixels = np.asarray(again.crop((margin, margin, margin + _CROP, margin + _CROP)), np.float32)
    return (pixels[None, :, :, ::-1] - np.array(_MEAN_BGR, np.float32)).astype(np.float32)


class NudityClassifier:
    """Open-NSFW through onnxruntime. It knows pornography and nothing else: violence scores low."""

    def __init__(self, path: Path) -> None:
        """Load the network from an ONNX file: (n, 224, 224, 3) in, (n, 2) out, P(pornographic) second."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        options.inter_op_num_threads = 1
        self.path = require(path, "the Open-NSFW network (ONNX)")
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._input: str = self._session.get_inputs()[0].name

    @cached_property
    def identity(self) -> str:
        """Name of the weights, for cache keys."""
        return f"open-nsfw-{fingerprint([self.path])}"

    def score(self, images: Sequence[Image]) -> list[float]:
        """Return P(pornographic) in 0..1 for each image; its makers read < .2 as safe and > .8 as unsafe.

        Images run one at a time: on a processor that is as fast, and no score depends on companions.
        """
        return [float(self._session.run(None, {self._input: _prepare(image)})[0][0, 1]) for image in images]


def load_nudity_classifier() -> NudityClassifier:
    """Load Open-NSFW from the local model store."""
    from pipeline.models import locate

    return NudityClassifier(locate("open-nsfw"))
