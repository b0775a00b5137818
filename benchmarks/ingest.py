"""How fast and in how much memory curate takes images in: decode, normalise, hash, decide, write.

    python -m benchmarks.ingest [--out FILE] [--counts 1000 50000] [--work DIR]

The images are JPEGs of 640 x 480 that are made here, all different; no signals are read from them, which is
models' work. The stage runs in a process of its own, workers and all; memory is the most that its processes
held together, sampled five times a second, with a page that two of them share counted for both.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from benchmarks.dedup.pictures import picture
from benchmarks.surroundings import environment, last_line, resident
from pipeline.curate import run
from pipeline.store import TableWriter, read_rows, sha256_bytes, write_json
from pipeline.workspace import Silent, Workspace
from schemas.rows import RAW_IMAGES

Result = dict[str, Any]
BASES = 64
ROOT = Path(__file__).parents[1]


def different(number: int) -> bytes:
    """A JPEG of its own: one of the made pictures, moved round, and lit otherwise."""
    rng = np.random.default_rng(number)
    pixels = np.roll(_base(number % BASES), (rng.integers(480), rng.integers(640)), (0, 1))
    lit = (pixels.astype(np.uint16) * rng.integers(200, 257, dtype=np.uint16) >> 8).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(lit).save(buffer, "JPEG", quality=88, comment=str(number))
    return buffer.getvalue()


_BASES: dict[int, Any] = {}


def _base(number: int) -> Any:
    if number not in _BASES:
        _BASES[number] = np.asarray(picture(number).resize((640, 480)))
    return _BASES[number]


def make_workspace(root: Path, count: int) -> None:
    """A workspace whose collect stage has given `count` images."""
    (root / "data" / "seed").mkdir(parents=True)
    for name in ("schemas", "prompts"):
        shutil.copytree(ROOT / name, root / name, dirs_exist_ok=True)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["curate"]["signals"] = []
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    with (
        ProcessPoolExecutor() as pool,
        TableWriter(root / "data" / "collect" / "images.parquet", RAW_IMAGES) as images,
    ):
        for number, data in enumerate(pool.map(different, range(count), chunksize=BASES)):
            empty = {field.name: "" for field in RAW_IMAGES}
            images.write(
                empty
                | {
                    "image_id": sha256_bytes(data),
                    "redistributable": "yes",
                    "objects": [],
                    "intended_class": "gender",
                    "intended_safe": bool(number % 2),
                    "bytes": data,
                }
            )
    with TableWriter(root / "data" / "generate" / "images.parquet", RAW_IMAGES):
        pass


def kept(folder: Path) -> int:
    """How many images came out, and none left out as a copy of another's bytes."""
    reasons = Counter(row["reason"] for row in read_rows(folder / "failures.parquet", ["reason"]))
    if reasons.keys() - {"near-duplicate", "would leak across the split"}:
        raise SystemExit(f"images were not taken in: {dict(reasons)}")
    return sum(1 for _ in read_rows(folder / "images.parquet", ["image_id"]))


def measured(root: Path, count: int) -> Result:
    """Run the stage in a process of its own, and sample what it holds."""
    command = [sys.executable, "-m", "benchmarks.ingest", "--child", str(root)]
    peak = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as child:
        while child.poll() is None:
            peak = max(peak, sum(resident(child.pid)))
            with suppress(subprocess.TimeoutExpired):
                child.wait(0.2)
        said = child.communicate()[0]
    if child.returncode:
        raise SystemExit(child.returncode)
    figures: Result = json.loads(last_line(said))
    return figures | {
        "kept": kept(root / "out"),
        "images_per_s": count / figures["seconds"],
        "peak_mb": peak * os.sysconf("SC_PAGESIZE") / 1e6,
    }


def main() -> int:
    """Measure, print, and say whether every bound held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, help="where to write all figures as JSON")
    parser.add_argument("--counts", type=int, nargs=2, default=[1000, 50_000])
    parser.add_argument("--work", type=Path, default=Path(".holisafe/ingest"), help="where images are made")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child is not None:
        out = args.child / "out"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        began = time.monotonic()
        run(Workspace(args.child), out, Silent())
        print(json.dumps({"seconds": time.monotonic() - began}))
        return 0
    report: Result = {"environment": environment(("numpy", "pillow", "pyarrow")), "counts": {}}
    for count in args.counts:
        root = args.work / str(count)
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        make_workspace(root, count)
        report["counts"][count] = measured(root, count)
        print(f"{count:,} images", report["counts"][count], flush=True)
        shutil.rmtree(root)
    few, many = (report["counts"][count] for count in args.counts)
    report |= {"largest": many, "memory_ratio": many["peak_mb"] / few["peak_mb"]}
    bounds = {
        "at least 150 images/s": many["images_per_s"] >= 150,
        "at most 500 MB": many["peak_mb"] <= 500,
        "memory flat (within 20 %)": report["memory_ratio"] <= 1.2,
    }
    for bound, holds in bounds.items():
        print("ok  " if holds else "MISS", bound)
    if args.out:
        write_json(args.out, report)
    return 0 if all(bounds.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
