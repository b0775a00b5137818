"""How far the surface of pictures gives their label away: statistics of pixels, file, source; no content.

    python -m benchmarks.surface DATASET [--most 0.60] [--seed 0] [--out FILE]

DATASET is whatever `holisafe audit` opens. A logistic regression guesses whether a picture is unsafe, judged
on pictures of leak groups that it did not see (`leak_group` of a `holisafe_bench.json`, else the image). The
exit code is 1 where the AUC of all statistics together is above `--most`.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.anyset import AnySet, open_anyset
from pipeline.audit.judging import auc, auc_draws, held_out, interval95
from pipeline.audit.logistic import NumberModel
from pipeline.store import write_json

MOST = 0.60
PERCENTILES = (5, 25, 50, 75, 95)
WHITE, EDGE = 250, 16
DETAIL = 256
PIXELS = (
    *(f"{channel} {what}" for channel in ("red", "green", "blue", "saturation")
      for what in ("mean", "spread", *(f"{p} %" for p in PERCENTILES))),
    "edges", "white",
)  # fmt: skip
FILE = ("aspect", "pixels", "bytes")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Surface:
    """What is looked at of each picture.

    Attributes:
        pixels: `PIXELS` of each.
        file: `FILE` of each, as logarithms.
        source: a column for each source and each extension, 1 where it is that of the picture.
        unsafe: its label.
        groups: a number for each leak group.
        unreadable: pictures that could not be looked at, and are left out.
    """

    pixels: Floats
    file: Floats
    source: Floats
    unsafe: NDArray[np.bool_]
    groups: NDArray[np.int64]
    unreadable: int


def measured(data: bytes) -> tuple[Floats, Floats]:
    """Statistics of a picture's pixels and of its file; transparency counts as white.

    Raises:
        OSError: if it cannot be decoded.
    """
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
        image.thumbnail((DETAIL, DETAIL))
        layer = image.convert("RGBA")
    rgb = np.asarray(
        Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB"), float
    )
    most, least = rgb.max(-1), rgb.min(-1)
    channels = [*np.moveaxis(rgb, -1, 0), 255 * (most - least) / np.maximum(most, 1)]
    grey = rgb.mean(-1)
    steps = np.concatenate([np.abs(np.diff(grey, axis=axis)).ravel() for axis in (0, 1)])
    numbers = [n for c in channels for n in (c.mean(), c.std(), *np.percentile(c, PERCENTILES))]
    edges = float((steps > EDGE).mean()) if steps.size else 0.0
    pixels = np.array([*numbers, edges, (least > WHITE).mean()], np.float64)
    return pixels, np.log(np.array([width / height, width * height, len(data)], np.float64))


def one_hot(values: Sequence[str]) -> Floats:
    """A column for each value, 1 where it stands."""
    names = sorted(set(values))
    return np.array([[float(v == n) for n in names] for v in values], np.float64).reshape(
        len(values), len(names)
    )


def told(opened: AnySet) -> dict[str, tuple[str, str]]:
    """Source and leak group of each image, where the dataset names them; else none, and the image itself."""
    rows: list[Mapping[Any, Any]] = [*opened.rows.to_dict("records")]
    extra: dict[Any, Mapping[str, Any]] = {}
    if opened.kind == "bench":
        path = Path(opened.place)
        path = path / "holisafe_bench.json" if path.is_dir() else path
        listed = json.loads(path.read_text("utf-8-sig"))
        extra = {row["id"]: row for row in listed if isinstance(row, dict) and "id" in row}
    found = {}
    for row in rows:
        more = {**row, **extra.get(row["id"], {})}
        source = more.get("source") or more.get("source_package") or ""
        group = more.get("leak_group")
        alone = group is None or group != group  # a missing cell is None, or not a number
        found[row["image"]] = (str(source), f"image {row['image']}" if alone else f"group {group}")
    return found


def surface(opened: AnySet) -> Surface:
    """Look at each image of a dataset once."""
    labels = dict(zip(opened.rows["image"], ~opened.rows["image_safe"].to_numpy(bool), strict=True))
    about = told(opened)
    keys, pixels, files, unreadable = [], [], [], 0
    for key, data in opened.pictures.read(list(labels)):
        try:
            pixel, file = measured(data or b"")
        except OSError:
            unreadable += 1
            continue
        keys.append(key)
        pixels.append(pixel)
        files.append(file)
    names = {g: i for i, g in enumerate(dict.fromkeys(about[k][1] for k in keys))}
    endings = one_hot([Path(k).suffix.lower() for k in keys])
    return Surface(
        np.array(pixels).reshape(len(keys), len(PIXELS)),
        np.array(files).reshape(len(keys), len(FILE)),
        np.hstack([one_hot([about[k][0] for k in keys]), endings]),
        np.array([labels[k] for k in keys], bool),
        np.array([names[about[k][1]] for k in keys], np.int64),
        unreadable,
    )


def guessed(numbers: Floats, seen: Surface, seed: int) -> tuple[float, float | None, float | None]:
    """AUC of guessing the label out of fold by leak group, and its 95 % interval (cluster bootstrap)."""
    scores = held_out(
        seen.unsafe,
        seen.groups,
        seed,
        lambda train, known, test: NumberModel(numbers[train], known).predict(numbers[test]),
    )
    value = auc(seen.unsafe, scores)
    return value, *interval95(auc_draws(seen.unsafe, scores, seen.groups, seed))


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; 1 where any of it gives the label away."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("dataset")
    parser.add_argument("--most", type=float, default=MOST, help="largest AUC that is passed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="where to write all figures as JSON")
    args = parser.parse_args(argv)
    seen = surface(open_anyset(args.dataset))
    print(
        f"{len(seen.unsafe)} images, {seen.unsafe.sum()} unsafe, {len(np.unique(seen.groups))} leak groups, "
        f"{seen.unreadable} unreadable"
    )
    print(f"{'what is looked at':24}{'numbers':>8}{'AUC':>7}   95 %")
    worst, tables = 0.0, {}
    for name, numbers in (
        ("source and extension", seen.source),
        ("file and shape", seen.file),
        ("pixels", seen.pixels),
        ("all together", np.hstack([seen.pixels, seen.file, seen.source])),
    ):
        value, low, high = guessed(numbers, seen, args.seed)
        worst = max(worst, value)
        tables[name] = {"numbers": numbers.shape[1], "auc": value, "low": low, "high": high}
        print(f"{name:24}{numbers.shape[1]:>8}{value:>7.3f}   {low} to {high}")
    print(f"{'above' if worst > args.most else 'at most'} {args.most}")
    if args.out:
        write_json(args.out, {"images": len(seen.unsafe), "unreadable": seen.unreadable, "tables": tables})
    return int(worst > args.most)


if __name__ == "__main__":
    sys.exit(main())
