"""Parts of the encoders that need no weights."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.encoders import ImageEncoder, NudityClassifier, OpenClipEncoder, TextEncoder
from pipeline.encoders._common import cosines, fingerprint, on_white, padded, unit
from pipeline.encoders.image import best
from pipeline.encoders.ocr import Piece, reading_order


def test_import_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'open_clip', 'transformers', 'onnxruntime', 'rapidocr'}"
    code = f"import sys, pipeline.encoders; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_padded_batches_have_one_size() -> None:
    assert list(padded([1, 2, 3], 2, 0)) == [([1, 2], 2), ([3, 0], 1)]
    assert list(padded([], 2, 0)) == []


def test_transparent_becomes_white() -> None:
    clear = Image.new("RGBA", (2, 2), (200, 0, 0, 0))
    assert on_white(clear).getpixel((0, 0)) == (255, 255, 255)
    palette = clear.convert("P")
    palette.info["transparency"] = palette.getpixel((0, 0))
    assert on_white(palette).getpixel((0, 0)) == (255, 255, 255)
    assert on_white(Image.new("L", (2, 2), 7)).getpixel((0, 0)) == (7, 7, 7)
    assert on_white(Image.new("LA", (2, 2), (7, 255))).mode == "RGB"


def test_unit_and_cosines() -> None:
    rows = unit(np.array([[3, 4], [0, 0]], np.float32))
    assert rows.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0, 0]]
    assert cosines(rows[:1], rows)[0].tolist() == [pytest.approx(1), 0]
    assert cosines(rows, rows[:0]).shape == (2, 0)


def test_fingerprint_follows_bytes(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"one")
    b.write_bytes(b"two")
    first = fingerprint([a, b])
    assert len(first) == 16
    assert fingerprint([b, a]) != first
    b.write_bytes(b"three")
    assert fingerprint([a, b]) != first


def test_best_is_sorted_and_ties_keep_their_order() -> None:
    found = best(np.array([[0.2, 0.5, 0.2]], np.float32), ["a", "b", "c"], 2)
    assert [name for name, _ in found[0]] == ["b", "a"]


def test_missing_files_are_named(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    for make in (
        TextEncoder,
        NudityClassifier,
        lambda p: ImageEncoder(p, p),
        lambda p: OpenClipEncoder("RN50", p),
    ):
        with pytest.raises(FileNotFoundError, match="gone"):
            make(gone)


def test_reading_order_joins_lines() -> None:
    def piece(text: str, left: float, top: float) -> Piece:
        return Piece(text, 0.9, left, top, top + 10)

    pieces = [piece("cat", 50, 2), piece("below", 0, 30), piece("The", 0, 0), piece("sat", 90, 1)]
    assert reading_order(pieces) == "The cat sat\nbelow"
    assert reading_order([]) == ""


def test_reading_order_does_not_creep_along_a_slope() -> None:
    pieces = [Piece(str(i), 0.9, i * 10.0, i * 4.0, i * 4.0 + 10) for i in range(6)]
    assert reading_order(pieces).count("\n") >= 2
