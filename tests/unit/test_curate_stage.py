"""The stage as it grows: what was there stays where it was, and copies stay together."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image, ImageDraw, ImageFont

from pipeline.curate import run
from pipeline.runner import _key_parts, _stamp
from pipeline.stages import STAGES
from pipeline.store import read_rows, sha256_bytes, write_json, write_rows
from pipeline.workspace import Silent, Workspace
from schemas.errors import InputError
from schemas.rows import RAW_IMAGES
from tests.conftest import make_workspace
from tests.images import encoded, picture

Rows = dict[str, dict[str, Any]]


class Curated:
    """A workspace whose collected images are given."""

    def __init__(self, root: Path, **curate: Any) -> None:
        self.root = make_workspace(root, ["property_crime"])
        self.change(**({"signals": []} | curate))

    def change(self, **curate: Any) -> None:
        path = self.root / "params.yaml"
        params = yaml.safe_load(path.read_text())
        params["curate"] |= curate
        path.write_text(yaml.safe_dump(params))

    def run(self, images: dict[str, bytes], licences: dict[str, str] | None = None) -> tuple[Rows, Rows]:
        """The kept rows and the failures, by source."""
        space = Workspace(self.root)
        empty = {f.name: "" for f in RAW_IMAGES} | {"objects": [], "redistributable": "yes"}
        rows = [
            empty
            | {
                "image_id": sha256_bytes(data), "source_uri": name, "intended_class": "property_crime",
                "intended_safe": True, "bytes": data,
                "redistributable": (licences or {}).get(name, "yes"),
            }
            for name, data in images.items()
        ]  # fmt: skip
        for stage, some in (("collect", rows), ("generate", [])):
            write_rows(space.stage_dir(stage) / "images.parquet", RAW_IMAGES, some)
        out = self.root / "out"
        shutil.rmtree(out, ignore_errors=True)
        run(space, out, Silent())
        return (
            {row["source_uri"]: row for row in read_rows(out / "images.parquet")},
            {row["source"]: row for row in read_rows(out / "failures.parquet")},
        )


def png(seed: int, width: int = 300) -> bytes:
    return encoded(picture(width, width * 2 // 3, seed), "PNG")


def test_a_larger_copy_takes_the_side_of_the_picture(tmp_path: Path) -> None:
    curated = Curated(tmp_path)
    small = {f"{n}": png(n) for n in range(8)}
    first, _ = curated.run(small)
    assert {row["split"] for row in first.values()} == {"train", "test"}
    second, failures = curated.run(small | {f"large {n}": png(n, 600) for n in range(8)})
    assert {row["reason"] for row in failures.values()} == {"near-duplicate"}
    assert {name.removeprefix("large "): row["split"] for name, row in second.items()} == {
        name: row["split"] for name, row in first.items()
    }
    third, _ = curated.run(small)
    assert {name: row["split"] for name, row in third.items()} == {
        name: row["split"] for name, row in first.items()
    }


def test_of_the_same_file_the_one_with_the_better_known_licence_stays(tmp_path: Path) -> None:
    same = png(1)
    said = {"a": "unknown", "b": "no", "c": "yes", "d": "yes"}
    kept, failures = Curated(tmp_path).run(dict.fromkeys(said, same), said)
    assert list(kept) == ["c"]
    assert {name: (row["reason"], row["detail"]) for name, row in failures.items()} == dict.fromkeys(
        "abd", ("exact duplicate", "c")
    )


def card(width: int, number: str) -> bytes:
    image = Image.new("RGB", (1280, 800), "lightblue")
    draw = ImageDraw.Draw(image)
    draw.text((60, 60), "LIBRARY OF RIVERTOWN", fill="black", font=ImageFont.load_default(90))
    draw.text((60, 300), "Member: Robin Doe", fill="black", font=ImageFont.load_default(80))
    draw.text((60, 500), f"Valid until {number}", fill="black", font=ImageFont.load_default(60))
    return encoded(image.resize((width, width * 800 // 1280)), "PNG")


def test_copies_whose_text_is_read_otherwise_stay_on_one_side(tmp_path: Path) -> None:
    curated = Curated(tmp_path, signals=["text"])
    others = {f"other {n}": png(n) for n in range(6)}
    rows, _ = curated.run(others | {"card": card(1280, "2031"), "worn copy": card(1280, "031")})
    assert "worn copy" in rows, "a number differs, so it is no duplicate"
    assert rows["card"]["leak_group"] == rows["worn copy"]["leak_group"]
    assert rows["card"]["split"] == rows["worn copy"]["split"]


def test_a_torn_ledger_names_its_line(tmp_path: Path) -> None:
    curated = Curated(tmp_path)
    curated.run({"a": png(1)})
    ledger = curated.root / ".holisafe" / "splits.jsonl"
    ledger.write_text(ledger.read_text() + '{"image_id": "x"')
    with pytest.raises(InputError, match=r"splits\.jsonl: line 2: "):
        curated.run({"a": png(1)})


def test_what_was_read_from_an_image_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def here(function: Any, jobs: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        for job in jobs:
            done.append(job.row["source_uri"])
            yield job, function(job)

    monkeypatch.setattr("pipeline.curate.stage.in_processes", here)
    some, more = (
        {"a": png(1), "b": png(2, 900)},
        {"new": png(3), "a": png(1), "again": png(1), "b": png(2, 900)},
    )
    grown, alone = Curated(tmp_path / "grown"), Curated(tmp_path / "alone")
    grown.run(some)
    assert done == ["a", "b"]
    in_place(grown)
    done.clear()
    rows, failures = grown.run(more)
    assert done == ["new", "again"]
    assert failures["again"]["reason"] == "exact duplicate"
    expected, _ = alone.run(more)
    sides = {"split": "", "leak_group": ""}  # which the order of coming decides
    assert {name: row | sides for name, row in rows.items()} == {n: r | sides for n, r in expected.items()}
    in_place(grown)
    done.clear()
    grown.change(jpeg_quality=80)
    grown.run(some)
    assert done == ["a", "b"], "with another param all is read again"


def in_place(curated: Curated) -> None:
    """Puts what was curated where the runner does."""
    workspace = Workspace(curated.root)
    folder = workspace.stage_dir("curate")
    shutil.rmtree(folder, ignore_errors=True)
    (curated.root / "out").rename(folder)
    parts = _key_parts(workspace, replace(STAGES["curate"], inputs=()))
    outs = {path.name: _stamp(path) for path in folder.iterdir()}
    write_json(workspace.state / "stages" / "curate.json", {"outs": outs, "parts": parts})
