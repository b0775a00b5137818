"""Near-duplicates: speed, recall and precision beside cleanvision and imagededup, and a million hashes.

    python -m benchmarks.dedup [--out FILE] [--runs 3] [--folder DIR …] [--envs DIR] [--only PART …]
                               [--sizes N …]

2,400 pictures that are made here, and 600 copies of some of them, resized, as JPEG 30, brighter or darker,
cropped by up to 5 % a side, mirrored, framed, watermarked and grey. A pair is right when it is a copy and its
original. Each program runs in a process of its own, in turn, and times its own call, without imports;
figures are medians. Peers run as they come; each is installed in an environment of its own.

`--folder` names folders of different pictures, where any pair is a false one.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.dedup.pictures import EDITS, write_folder
from benchmarks.surroundings import FailedError, environment, install, last_line
from pipeline.store import write_json

Result = dict[str, Any]

PEERS = {
    "cleanvision": ("cleanvision==0.3.7",),
    "imagededup": ("imagededup==0.3.3.post2", "torch==2.14.1", "torchvision==0.29.1"),
}
PICTURES, COPIES = 2400, 600
PARTS = ("peers", "growth", "folders")
SIZES = (1_000, 10_000, 100_000, 1_000_000)
START = 10_000
"""Below it what is measured is mostly the start, which would flatter the exponent."""
HERE = Path(__file__).parent


def run(command: list[str]) -> Result:
    """The figures that a program prints as its last line.

    Raises:
        FailedError: when it ends with an error.
    """
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PYTHONWARNINGS": "ignore"}
    )
    if done.returncode:
        raise FailedError(last_line(done.stderr))
    found: Result = json.loads(last_line(done.stdout))
    return found


def beside_peers(work: Path, envs: Path, runs: int) -> Result:
    """Each program on the same pictures, in another order each time."""
    folder = work / "pictures"
    truth = write_folder(folder, PICTURES, COPIES)
    edits: dict[str, str] = json.loads(folder.with_suffix(".edits.json").read_text())
    commands = {"ours": [sys.executable, "-m", "benchmarks.dedup.ours", "folder", str(folder)]}
    results: Result = {}
    for name, pins in PEERS.items():
        try:
            python = install(name, pins, envs).python
        except FailedError as error:
            results[name] = {"failed": str(error)}
            continue
        commands[name] = [str(python), str(HERE / f"peer_{name}.py"), str(folder)]
    kept: dict[str, list[Result]] = {name: [] for name in commands}
    for turn in range(runs):
        names = list(commands)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            try:
                kept[name].append(run(commands[name]))
            except FailedError as error:
                results[name] = {"failed": str(error)}
    right = {frozenset(pair) for pair in truth.items()}
    for name, found in kept.items():
        if name in results or not found:
            continue
        pairs = {frozenset(pair) for pair in found[-1]["pairs"]}
        missed = [edits[copy] for copy, original in truth.items() if frozenset((copy, original)) not in pairs]
        results[name] = {
            "images_per_s": (PICTURES + COPIES) / statistics.median(each["seconds"] for each in found),
            "recall": len(right & pairs) / len(right),
            "precision": len(right & pairs) / len(pairs) if pairs else 0.0,
            "missed": {edit: missed.count(edit) for edit in EDITS if edit in missed},
        }
    return results


def beside(peers: Result) -> Result:
    """Our speed and recall beside those of the best peer; nothing where no peer came to its end."""
    ours, others = peers["ours"], [p for name, p in peers.items() if name != "ours" and "failed" not in p]
    if not others or "failed" in ours:
        return {}
    return {
        "speed_ratio": ours["images_per_s"] / max(p["images_per_s"] for p in others),
        "recall_over": ours["recall"] - max(p["recall"] for p in others),
        "peers": len(others),
    }


def growth(sizes: Sequence[int]) -> Result:
    """Random hashes in growing numbers; exponent of time from `START`, or the smallest, to the largest."""
    found = {
        size: run([sys.executable, "-m", "benchmarks.dedup.ours", "hashes", str(size)])
        for size in sorted(set(sizes))
    }
    most = max(found)
    start = START if START in found and most > START else min(found)
    ratio = found[most]["seconds"] / found[start]["seconds"]
    return {
        "sizes": {str(size): figures for size, figures in found.items()},
        "largest": found[most],
        "exponent": math.log(ratio) / math.log(most / start),
    }


def main() -> int:
    """Measure, print, and say whether every bound held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, help="where to write all figures as JSON")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, nargs="*", default=[], help="folders of different pictures")
    parser.add_argument("--work", type=Path, default=Path(".holisafe/dedup"), help="where pictures are made")
    parser.add_argument("--envs", type=Path, default=Path(".holisafe/peers"), help="the peers' environments")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="numbers of hashes")
    args = parser.parse_args()
    if len(set(args.sizes)) < 2:
        parser.error("--sizes: growth is between two sizes at least")
    report: Result = {"environment": environment(("numpy", "pillow")), "runs": args.runs}
    bounds: dict[str, bool] = {}
    if "peers" in args.only:
        report["peers"] = beside_peers(args.work, args.envs, args.runs)
        report["beside"] = beside(report["peers"])
        for name, figures in report["peers"].items():
            print(name, figures, flush=True)
        ours = report["peers"]["ours"]
        bounds |= {
            "at least 500 images/s": ours["images_per_s"] >= 500,
            "recall at least .95": ours["recall"] >= 0.95,
            "precision at least .99": ours["precision"] >= 0.99,
        }
    if "growth" in args.only:
        report["growth"] = growth(args.sizes)
        for size, figures in report["growth"]["sizes"].items():
            print(f"{int(size):,} hashes", figures, flush=True)
        largest, most = report["growth"]["largest"], f"{max(args.sizes):,} hashes"
        bounds |= {
            f"{most} in 5 minutes": largest["seconds"] <= 300,
            f"{most} in 2 GB": largest["peak_mb"] <= 2000,
            "time grows by n^1.6 at most": report["growth"]["exponent"] <= 1.6,
            "at least .97 of planted pairs": largest["recall"] >= 0.97,
        }
    if "folders" in args.only:
        report["folders"] = {
            folder.name: run([sys.executable, "-m", "benchmarks.dedup.ours", "folder", str(folder)])["pairs"]
            for folder in args.folder
        }
        bounds |= {f"no pair in {name}": not pairs for name, pairs in report["folders"].items()}
    for bound, holds in bounds.items():
        print("ok  " if holds else "MISS", bound)
    if args.out:
        write_json(args.out, report)
    return 0 if all(bounds.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
