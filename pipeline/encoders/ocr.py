"""Text read from images by RapidOCR, whose package carries its models."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.encoders._common import THREADS, on_white

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image


LONGEST = 512
MIN_CHARS = 4
MIN_CONFIDENCE = 0.7


@dataclass(frozen=True)
class ReadText:
    """Text found in an image.

    Attributes:
        text: Lines in reading order, joined by newlines; empty when nothing was found.
        confidence: Mean confidence of the pieces weighted by their length, 0..1; 0 when nothing was found.
    """

    text: str
    confidence: float


@dataclass(frozen=True)
class Piece:
    """One piece of text: its words, confidence 0..1, and box in pixels."""

    text: str
    score: float
    left: float
    top: float
    bottom: float


def reading_order(pieces: Sequence[Piece]) -> str:
    """Join pieces from top to bottom and left to right; pieces side by side make one line."""
    lines: list[list[Piece]] = []
    for piece in sorted(pieces, key=lambda p: ((p.top + p.bottom) / 2, p.left)):
        middle = (piece.top + piece.bottom) / 2
        # Only the first piece of a line counts, or slanted text would creep down the page.
        if lines and lines[-1][0].top <= middle <= lines[-1][0].bottom:
            lines[-1].append(piece)
        else:
            lines.append([piece])
    return "\n".join(" ".join(p.text for p in sorted(line, key=lambda p: p.left)) for line in lines)


class TextReader:
    """RapidOCR with the models that its package carries; reads Latin and Chinese print."""

    def __init__(self) -> None:
        """Make the reader; its models are loaded when it first reads."""
        # rapidocr sets its own level on import and again on start; this handles what it says in between.
        logging.getLogger("RapidOCR").setLevel(logging.CRITICAL)
        from rapidocr import RapidOCR

        self._engine: Any = RapidOCR(
            params={
                "Global.log_level": "critical",
                "EngineConfig.onnxruntime.intra_op_num_threads": THREADS,
                "EngineConfig.onnxruntime.inter_op_num_threads": 1,
                # Small images as they are: by default they are enlarged, which takes three times as long and
                # reads no letter more of print.
                "Det.limit_side_len": LONGEST,
                "Det.limit_type": "max",
            }
        )

    @property
    def identity(self) -> str:
        """Name and release of the reader, for cache keys."""
        from importlib.metadata import version

        return f"rapidocr-{version('rapidocr')}"

    def read(self, image: Image) -> ReadText:
        """Read the text in an image."""
        # RapidOCR takes arrays as BGR.
        found = self._engine(np.ascontiguousarray(np.asarray(on_white(image))[:, :, ::-1]))
        if not found.txts or found.boxes is None:
            return ReadText("", 0.0)
        pieces = [
            Piece(
                text=text.strip(),
                score=float(score),
                left=float(box[:, 0].min()),
                top=float(box[:, 1].min()),
                bottom=float(box[:, 1].max()),
            )
            for text, score, box in zip(found.txts, found.scores, np.asarray(found.boxes), strict=True)
            if text.strip()
        ]
        if not pieces:
            return ReadText("", 0.0)
        length = sum(len(p.text) for p in pieces)
        confidence = sum(p.score * len(p.text) for p in pieces) / length
        text = reading_order(pieces)
        # Strokes of a drawing are read as a letter or two; what is that short or unsure is no text.
        if len(text) < MIN_CHARS or confidence < MIN_CONFIDENCE:
            return ReadText("", 0.0)
        return ReadText(text, confidence)
