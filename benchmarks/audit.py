"""How long the audit of a large dataset takes, votes included and images left out, and what it holds.

    python -m benchmarks.audit [--pairs 100000] [--votes-each 4] [--seed 0] [--out FILE]

A dataset without flaws (`clean_set` of the self-test) is written as `holisafe_bench.json` without its images,
with a file of votes of which most are right, and audited by the command line. The exit code says whether the
bounds held: at most 5 minutes and 2 GB, of all processes together.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.surroundings import environment, resident
from pipeline.audit.selftest import clean_set
from pipeline.store import write_json

SECONDS = 300
BYTES = 2e9
FIELDS = ["id", "image", "query", "type", "category", "subcategory", "image_safe", "image_safety_label"]


def make(folder: Path, pairs: int, each: int, seed: int) -> None:
    """Write `holisafe_bench.json` and `votes.csv`: `each` votes on a pair, 90 % of them right."""
    rows = clean_set(pairs, seed).rows
    random = np.random.default_rng([seed, 1])
    classes = random.integers(0, 18, len(rows))
    rows["category"] = [f"category {c % 7}" for c in classes]
    rows["subcategory"] = [f"class {c}" for c in classes]
    rows["image"] = [f"{name.replace(' ', '_')}.jpg" for name in rows["image"]]
    (folder / "holisafe_bench.json").write_text(json.dumps(rows[FIELDS].to_dict("records")))
    unsafe = np.repeat((rows["type"] != "SSS").to_numpy(bool), each)
    said = unsafe ^ (random.random(len(unsafe)) < 0.1)
    rater = np.tile(np.arange(each), len(rows))
    pd.DataFrame(
        {
            "item_id": np.repeat(rows["id"].to_numpy(), each),
            "question": "pair_safe",
            "annotator": [f"model {r}" for r in rater],
            "family": [f"family {r}" for r in rater],
            "value": np.where(said, "unsafe", "safe"),
        }
    ).to_csv(folder / "votes.csv", index=False)


def audited(folder: Path) -> tuple[float, int]:
    """Seconds and the most resident bytes of all processes of an audit."""
    command = [str(Path(sys.executable).parent / "holisafe"), "audit", str(folder / "holisafe_bench.json")]
    began, peak = time.monotonic(), 0
    process = subprocess.Popen(
        [*command, "--votes", str(folder / "votes.csv"), "--out", str(folder / "out")], start_new_session=True
    )
    while process.poll() is None:
        peak = max(peak, sum(resident(process.pid)) * os.sysconf("SC_PAGESIZE"))
        time.sleep(0.2)
    if process.returncode:
        raise SystemExit(f"the audit ended with exit code {process.returncode}")
    return time.monotonic() - began, peak


def main() -> None:
    """Print the figures, write them, and say by the exit code whether the bounds held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--votes-each", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, arguments.pairs, arguments.votes_each, arguments.seed)
        seconds, peak = audited(folder)
        report = (folder / "out" / "index.html").stat().st_size
    figures = {
        "pairs": arguments.pairs,
        "votes": arguments.pairs * arguments.votes_each,
        "seconds": round(seconds, 1),
        "peak_mb": round(peak / 1e6),
        "report_mb": round(report / 1e6, 2),
    }
    print(figures)
    bounds = {f"at most {SECONDS} s": seconds <= SECONDS, f"at most {BYTES / 1e9:g} GB": peak <= BYTES}
    for name, held in bounds.items():
        print(f"{'held  ' if held else 'missed'} {name}")
    if arguments.out:
        write_json(arguments.out, environment(["numpy", "pandas"]) | figures | {"bounds": bounds})
    raise SystemExit(not all(bounds.values()))


if __name__ == "__main__":
    main()
