"""Where people's faces are in an image, by the CenterFace network."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.encoders._common import THREADS, FloatArray, fingerprint, on_white, require

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from PIL.Image import Image

_MULTIPLE = 32
"""What both sides of the input must be a multiple of."""
_OVERLAP = 0.3
"""Of two boxes that share more than this of their union the likelier is kept."""


@dataclass(frozen=True, slots=True)
class Face:
    """A face: how sure the network is (0..1), and its box as shares of the image's width and height."""

    score: float
    left: float
    top: float
    right: float
    bottom: float

    @property
    def area(self) -> float:
        """Its share of the image, 0..1."""
        return (self.right - self.left) * (self.bottom - self.top)


class FaceDetector:
    """CenterFace through onnxruntime: faces of people in photographs; of drawn ones it knows few."""

    def __init__(self, path: Path, threshold: float = 0.5) -> None:
        """Load the network from its ONNX file.

        Args:
            path: (1, 3, h, w) RGB in 0..255 in; heat, log of height and width, and offset of the centre by
                cell out, as Xu et al. describe (arXiv 1911.03599).
            threshold: heat from which there is a face.
        """
        import onnx
        import onnxruntime

        self.path = require(path, "the CenterFace network (ONNX)")
        self._threshold = threshold
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # the file lists its weights as inputs, and each would be warned of
        network = _any_size(onnx.load(path))
        self._session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
        self._input: str = self._session.get_inputs()[0].name

    @cached_property
    def identity(self) -> str:
        """Name of the weights, for cache keys."""
        return f"centerface-{fingerprint([self.path])}"

    def find(self, images: Sequence[Image]) -> list[list[Face]]:
        """Return the faces of each image, the surest first.

        Images run one at a time, since they differ in size.
        """
        found = []
        for image in images:
            heat, scale, offset, _ = self._session.run(None, {self._input: _prepare(image)})
            found.append(faces_in(heat[0, 0], scale[0], offset[0], self._threshold))
        return found


def faces_in(heat: FloatArray, scale: FloatArray, offset: FloatArray, threshold: float) -> list[Face]:
    """Read the network's output.

    Args:
        heat: how likely a face has its centre in a cell, (rows, columns).
        scale: log of its height and width in cells, (2, rows, columns).
        offset: of its centre from the cell's, in cells, down and to the right, (2, rows, columns).
        threshold: heat from which there is a face.

    Returns:
        Faces, the surest first; none overlaps a surer one much, none leaves the image.
    """
    rows, columns = heat.shape
    cells = sorted(zip(*np.where(heat >= threshold), strict=True), key=lambda cell: (-heat[cell], cell))
    faces: list[Face] = []
    for row, column in cells:
        height, width = np.exp(scale[:, row, column])
        middle = row + 0.5 + offset[0, row, column], column + 0.5 + offset[1, row, column]
        top, bottom = (float(np.clip((middle[0] + s * height / 2) / rows, 0, 1)) for s in (-1, 1))
        left, right = (float(np.clip((middle[1] + s * width / 2) / columns, 0, 1)) for s in (-1, 1))
        face = Face(float(heat[row, column]), left, top, right, bottom)
        if face.area and all(_overlap(face, other) <= _OVERLAP for other in faces):
            faces.append(face)
    return faces


def load_face_detector() -> FaceDetector:
    """Load CenterFace from the local model store."""
    from pipeline.models import locate

    return FaceDetector(locate("centerface"))


def _prepare(image: Image) -> FloatArray:
    """Return (1, 3, h, w), stretched to multiples of 32."""
    from PIL import Image as Images

    width, height = (-(-side // _MULTIPLE) * _MULTIPLE for side in image.size)
    stretched = on_white(image).resize((width, height), Images.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(stretched, np.float32).transpose(2, 0, 1)[None])


def _overlap(one: Face, other: Face) -> float:
    """The share of their union that both cover."""
    width = min(one.right, other.right) - max(one.left, other.left)
    height = min(one.bottom, other.bottom) - max(one.top, other.top)
    both = max(0.0, width) * max(0.0, height)
    return both / (one.area + other.area - both)


def _any_size(model: Any) -> bytes:
    """The network for one image of any size: it was saved for ten of 32 by 32."""
    for value in (model.graph.input[0], *model.graph.output):
        shape = value.type.tensor_type.shape
        shape.dim[0].dim_value = 1
        for axis in (2, 3):
            shape.dim[axis].dim_param = f"{value.name}.{axis}"
    return bytes(model.SerializeToString())
