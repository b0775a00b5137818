"""What the surface of pictures tells of their label."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.surface import FILE, PIXELS, main, measured, one_hot, surface, told
from pipeline.anyset import open_anyset


def png(colour: tuple[int, ...], size: tuple[int, int] = (40, 20)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGBA" if len(colour) == 4 else "RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def dataset(folder: Path, tells: bool, n: int = 60) -> Path:
    rng = np.random.default_rng(3)
    rows = []
    (folder / "images").mkdir(parents=True)
    for i in range(n):
        unsafe = i % 2 == 1
        shade = (40 if unsafe else 200) if tells else 120
        colour = tuple(int(c) for c in rng.integers(shade - 40, shade + 40, 3))
        (folder / "images" / f"{i}.png").write_bytes(png(colour))
        rows.append(
            {
                "id": i, "image": f"{i}.png", "query": "What is it?", "type": "USU" if unsafe else "SSS",
                "category": "violence", "subcategory": "terrorism", "image_safe": not unsafe,
                "image_safety_label": 15 if unsafe else 0, "source": "a", "leak_group": i // 2,
            }
        )  # fmt: skip
    (folder / "holisafe_bench.json").write_text(json.dumps(rows), "utf-8")
    return folder


def test_statistics_of_a_plain_picture() -> None:
    pixels, file = measured(png((255, 0, 0)))
    found = dict(zip(PIXELS, pixels, strict=True))
    assert found["red mean"] == found["red 5 %"] == 255
    assert found["green mean"] == found["edges"] == found["white"] == 0
    assert found["saturation mean"] == 255
    assert dict(zip(FILE, file, strict=True))["aspect"] == pytest.approx(np.log(2))


def test_what_is_transparent_is_white() -> None:
    pixels, _ = measured(png((0, 0, 0, 0)))
    assert dict(zip(PIXELS, pixels, strict=True))["white"] == 1


def test_what_cannot_be_decoded_is_an_error() -> None:
    with pytest.raises(OSError, match="identify"):
        measured(b"no picture")


def test_a_column_for_each_value() -> None:
    assert one_hot(["b", "a", "b"]).tolist() == [[0, 1], [1, 0], [0, 1]]


def test_source_and_group_are_read_from_the_file(tmp_path: Path) -> None:
    found = told(open_anyset(str(dataset(tmp_path / "d", tells=False, n=4))))
    assert found == {f"{n}.png": ("a", f"group {n // 2}") for n in range(4)}


def test_a_picture_without_a_group_is_alone(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "d", tells=False, n=4)
    rows = json.loads((folder / "holisafe_bench.json").read_text())
    for row in rows[:3]:
        row["leak_group"] = None
    del rows[0]["leak_group"]
    (folder / "holisafe_bench.json").write_text(json.dumps(rows))
    groups = [group for _, group in told(open_anyset(str(folder))).values()]
    assert sorted(groups) == ["group 1", "image 0.png", "image 1.png", "image 2.png"]


def test_an_unreadable_picture_is_counted(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "d", tells=False, n=4)
    (folder / "images" / "0.png").write_bytes(b"")
    seen = surface(open_anyset(str(folder)))
    assert (seen.unreadable, len(seen.unsafe), seen.pixels.shape) == (1, 3, (3, len(PIXELS)))


@pytest.mark.parametrize("tells", [True, False])
def test_the_exit_code_says_whether_the_surface_tells(
    tmp_path: Path, tells: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(dataset(tmp_path / "d", tells)), "--most", "0.75"]) == int(tells)
    assert ("above 0.75" if tells else "at most 0.75") in capsys.readouterr().out
