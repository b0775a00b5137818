"""In how much memory and time assemble writes a dataset: shards, loose images, bench file, card.

    python -m benchmarks.assemble [--out FILE] [--sizes 30 60] [--images 6800] [--pairs 15000] [--work DIR]

The stages before it are stood in for by their tables: images of noise, as large as `--sizes` says in kB, in
no order of class; each pair with eight votes, an answer and a rationale. The stage runs in a process of its
own; memory is the most that this held. It must not grow with the images.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.surroundings import environment, last_line
from pipeline.assemble import run
from pipeline.store import sha256_text, write_json, write_rows
from pipeline.workspace import Silent, Workspace
from schemas.rows import CLASS_NONE, IMAGE_LABELS, IMAGES, PAIRS, RESPONSES, VOTES

Result = dict[str, Any]
Row = dict[str, Any]
ROOT = Path(__file__).parents[1]
SIDES = ("train", "train", "train", "test")


def make_workspace(root: Path, images: int, pairs: int, size: int) -> None:
    """A workspace whose stages before assemble have given this many images, of `size` bytes, and pairs."""
    (root / "data" / "seed").mkdir(parents=True)
    for name in ("schemas", "prompts"):
        shutil.copytree(ROOT / name, root / name)
    shutil.copy(ROOT / "params.yaml", root)
    workspace = Workspace(root)
    names = [info.name for info in workspace.taxonomy.classes()]

    def table(stage: str, name: str, schema: pa.Schema, rows: Iterator[Mapping[str, Any]]) -> None:
        blank = {field.name: [] if pa.types.is_list(field.type) else None for field in schema}
        words = {field.name: f"a {field.name}" for field in schema if pa.types.is_string(field.type)}
        write_rows(workspace.stage_dir(stage) / name, schema, (blank | words | row for row in rows))

    made = [_image(number, names) for number in range(images)]
    asked = [_pair(number, made[number % images]) for number in range(pairs)]
    noise = random.Random(7)  # noqa: S311 - nothing here is secret
    labels = (
        {f: i[f] for f in ("image_id", "image_class")} | {"image_safe": i["intended_safe"]} for i in made
    )
    files = (
        {k: v for k, v in i.items() if k != "image_class"} | {"bytes": noise.randbytes(size)} for i in made
    )
    table("curate", "images.parquet", IMAGES, files)
    table("label_images", "labels.parquet", IMAGE_LABELS, labels)
    table("label_images", "votes.parquet", VOTES, _votes([i["image_id"] for i in made], 4))
    judged = [item for p in asked for item in (p["pair_id"], sha256_text(p["query"]))]
    table("label_pairs", "pairs.parquet", PAIRS, iter(asked))
    table("label_pairs", "votes.parquet", VOTES, _votes(judged, 2))
    answers = ({"pair_id": p["pair_id"], "response": "Yes. " * 60, "rationale": "{...}" * 60} for p in asked)
    table("respond", "responses.parquet", RESPONSES, answers)


def _image(number: int, names: list[str]) -> Row:
    image_id = sha256_text(f"image {number}")
    name, safe = names[int(image_id, 16) % len(names)], bool(number % 2)
    return {
        "image_id": image_id,
        "image_class": CLASS_NONE if safe else name,
        "intended_class": name,
        "intended_safe": safe,
        "redistributable": "yes",
        "retrieved_at": "2026-11-30T12:00:00+00:00",
        "width": 640,
        "height": 480,
        "caption": "what is to be seen " * 6,
        "split": SIDES[number % len(SIDES)],
    }


def _pair(number: int, image: Row) -> Row:
    return {
        "pair_id": sha256_text(f"pair {number}"),
        "image_id": image["image_id"],
        "query": f"question {number} " + "of some words " * 8,
        "harm_class": image["intended_class"],
        "split": image["split"],
        "type": "SSS" if image["intended_safe"] else "USU",
        "expected": "comply",
        "agreement": 1.0,
        "ssu_unverified": False,
    }


def _votes(items: list[str], each: int) -> Iterator[Row]:
    return ({"item_id": item, "score": n / each} for item in items for n in range(each))


def measured(root: Path) -> Result:
    """Run the stage in a process of its own, and ask what it held."""
    command = [sys.executable, "-m", "benchmarks.assemble", "--child", str(root)]
    child = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: Result = json.loads(last_line(child.stdout))
    return figures


def most_held() -> float:
    """The most memory that this process held, in MB; `getrusage` would count its parent's too."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found  # noqa: S101 - every Linux says it
    return int(found[1]) * 1024 / 1e6


def assembled(root: Path) -> Result:
    """Run the stage here."""
    out = root / "out"
    workspace, began, before = Workspace(root), time.monotonic(), most_held()
    run(workspace, out, Silent())
    figures = {"seconds": time.monotonic() - began, "peak_mb": most_held(), "before_mb": before}
    for name, pattern in (("shards", "data/**/*.parquet"), ("images", "images/**/*.jpg")):
        found = [path.stat().st_size for path in out.glob(pattern)]
        figures |= {name: len(found), f"{name}_mb": sum(found) / 1e6}
    return figures


def main() -> int:
    """Measure, print, and say whether every bound held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, help="where to write all figures as JSON")
    parser.add_argument("--sizes", type=int, nargs=2, default=[30, 60], help="of the images, in kB")
    parser.add_argument("--images", type=int, default=6800)
    parser.add_argument("--pairs", type=int, default=15_000)
    parser.add_argument("--work", type=Path, default=Path(".holisafe/assemble"), help="where tables are made")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child is not None:
        print(json.dumps(assembled(args.child)))
        return 0
    report: Result = {"environment": environment(("datasets", "pyarrow")), "sizes": {}}
    for size in args.sizes:
        root = args.work / str(size)
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        make_workspace(root, args.images, args.pairs, size * 1000)
        report["sizes"][size] = measured(root)
        print(f"{args.images:,} images of {size} kB", report["sizes"][size], flush=True)
        shutil.rmtree(root)
    small, large = (report["sizes"][size] for size in args.sizes)
    report |= {"largest": large, "memory_ratio": large["peak_mb"] / small["peak_mb"]}
    bounds = {
        "at most 500 MB": large["peak_mb"] <= 500,
        "memory flat (within 20 %)": report["memory_ratio"] <= 1.2,
    }
    for bound, holds in bounds.items():
        print("ok  " if holds else "MISS", bound)
    if args.out:
        write_json(args.out, report)
    return 0 if all(bounds.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
