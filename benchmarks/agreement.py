"""Agreement: published coefficients come out, and a million votes are measured in time.

    python -m benchmarks.agreement --reference DIR
    python -m benchmarks.agreement --size [--votes 1000000 …] [--values 3] [--annotators 6] [--scale nominal]
        [--groups 0] [--rounds 1000] [--out FILE]

`--reference` names a folder with rating tables and `expected_irrcac_python.json`: a list of `dataset`,
`weights`, `coefficient` and `coefficient_value`. Each is held against ours to three places. `--size` makes
seeded votes, of which one in twenty is missing, and measures them from the CSV to the figures in a process of
its own; memory is the most that this held.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.surroundings import environment, last_line
from pipeline.agreement import measure
from pipeline.agreement.coefficients import (
    Floats,
    Seen,
    alpha,
    fleiss,
    gwet,
    ordinal_weights,
    patterns_of,
    quadratic_weights,
    sums,
)
from pipeline.store import write_json

FILES = {
    "raw_4raters": "cac.raw4raters.csv",
    "raw_5observers": "cac.raw5obser.csv",
    "raw_g1g2": "cac.raw.g1g2.csv",
    "raw_gender": "cac.raw.gender.csv",
    "raw_ben_gerry": "cac.ben.gerry.csv",
}
NO_RATERS = {"Group", "Unit", "Units"}
COEFFICIENTS: dict[str, Callable[..., Floats]] = {"fleiss": fleiss, "gwet": gwet, "krippendorff": alpha}
CUSTOM = 0.375
"""What all different values agree in the references with weights of their own."""


def _custom(categories: int) -> Floats:
    return np.where(np.eye(categories) > 0, 1.0, CUSTOM)


def _linear(categories: int) -> Floats:
    x = np.arange(categories, dtype=float)
    return 1 - np.abs(x[:, None] - x) / max(categories - 1, 1)


def _radical(categories: int) -> Floats:
    return 1 - np.sqrt(1 - _linear(categories))


def _ratio(categories: int) -> Floats:
    x = np.arange(1, categories + 1, dtype=float)
    apart = np.square((x[:, None] - x) / (x[:, None] + x))
    return 1 - apart / apart.max()


def _circular(categories: int) -> Floats:
    x = np.arange(categories, dtype=float)
    apart = np.square(np.sin(np.pi * (x[:, None] - x) / categories))
    return 1 - apart / apart.max()


def _bipolar(categories: int) -> Floats:
    x = np.arange(categories, dtype=float)
    sides = (x[:, None] + x) * (2 * (categories - 1) - x[:, None] - x)
    apart = np.divide(np.square(x[:, None] - x), sides, out=np.zeros((categories,) * 2), where=sides > 0)
    return 1 - apart / apart.max()


WEIGHTS: dict[str, Callable[[int], Floats]] = {
    "identity": np.eye,
    "ordinal": ordinal_weights,
    "quadratic": lambda q: quadratic_weights(np.arange(q, dtype=float)),
    # The command does not use these; they check that the formulas hold for any weights.
    "linear": _linear,
    "radical": _radical,
    "ratio": _ratio,
    "circular": _circular,
    "bipolar": _bipolar,
    "custom": _custom,
}


def read_table(path: Path) -> tuple[list[int], list[str]]:
    """Item and value of each vote of a table with a row for each item and a column for each rater."""
    items, values = [], []
    with path.open(encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.DictReader(file)):
            for name, value in row.items():
                if name not in NO_RATERS and (value or "").strip():
                    items.append(number)
                    values.append(value.strip())
    return items, values


def check_references(folder: Path) -> bool:
    """Print every reference beside ours; whether all that we offer come out."""
    tables = {name: read_table(folder / file) for name, file in FILES.items()}
    missed = matched = absent = 0
    for wanted in json.loads((folder / "expected_irrcac_python.json").read_text("utf-8")):
        coefficient = COEFFICIENTS.get(wanted["coefficient"])
        weights = "custom" if "custom" in wanted["test"] else wanted["weights"]
        label = f"{wanted['dataset']:<15} {wanted['coefficient']:<13} {weights:<10}"
        if coefficient is None or weights not in WEIGHTS:
            absent += 1
            print(f"{label} {wanted['coefficient_value']:>7.3f}           not offered")
            continue
        items, values = tables[wanted["dataset"]]
        names, codes = np.unique(values, return_inverse=True)
        patterns = patterns_of(np.array(items), codes, len(names))
        seen = Seen(patterns, WEIGHTS[weights](len(names)))
        (ours,) = coefficient(sums(seen, patterns.items[None, :].astype(np.float64)))
        good = f"{ours:.3f}" == f"{wanted['coefficient_value']:.3f}"
        matched, missed = matched + good, missed + (not good)
        print(f"{label} {wanted['coefficient_value']:>7.3f} {ours:>9.5f} {'' if good else 'MISSED'}")
    print(f"{matched} of {matched + missed} come out; {absent} are of coefficients that are not offered")
    return not missed and matched > 0


def write_votes(path: Path, votes: int, options: argparse.Namespace) -> None:
    """Votes of annotators that see an item's value through noise, four an item, some missing."""
    rng = np.random.default_rng(7)
    each = min(4, options.annotators)
    items = -(-votes // each)
    truth = rng.integers(0, options.values, items)
    names = [f"value{k:03}" if options.scale == "nominal" else str(k) for k in range(options.values)]
    families = ["qwen", "llama", "people:a", "people:b"]
    head = ["item_id", "annotator", "value", "family", "scale", *(["group"] if options.groups else [])]
    written = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        for item in range(items):
            noise = rng.random(each)
            other = rng.integers(0, options.values, each)
            for turn in range(min(each, votes - written)):
                voter = (item + turn) % options.annotators
                value = "" if noise[turn] < 0.05 else names[other[turn] if noise[turn] < 0.3 else truth[item]]
                row = [f"item-{item:08}", f"annotator-{voter}", value, families[voter % 4], options.scale]
                writer.writerow([*row, f"group-{item % options.groups}"] if options.groups else row)
                written += 1


def measure_size(votes: int, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds and memory of a process that measures a file of votes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "votes.csv"
        write_votes(path, votes, options)
        command = [sys.executable, "-m", "benchmarks.agreement", "--file", str(path)]
        done = subprocess.run(
            [*command, "--rounds", str(options.rounds)], capture_output=True, text=True, check=True
        )
    found: dict[str, Any] = json.loads(last_line(done.stdout))
    return found


def measure_file(path: Path, rounds: int) -> None:
    """Print how long the figures of a file take, and the most memory."""
    started, busy = time.perf_counter(), time.process_time()
    found = measure(path, rounds=rounds)
    taken = {
        "rows": found.rows,
        "seconds": round(time.perf_counter() - started, 2),
        "cpu_seconds": round(time.process_time() - busy, 2),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    print(json.dumps(taken))


def main() -> int:
    """Check references, or measure time and memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--reference", type=Path)
    parser.add_argument("--size", action="store_true")
    parser.add_argument("--votes", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--values", type=int, default=3)
    parser.add_argument("--annotators", type=int, default=6)
    parser.add_argument("--scale", choices=("nominal", "ordinal", "interval"), default="nominal")
    parser.add_argument("--groups", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.file:
        measure_file(options.file, options.rounds)
    if options.size:
        where, sizes = environment(["numpy", "pandas"]), []
        for votes in sorted(options.votes):
            sizes.append(measure_size(votes, options))
            print(json.dumps(sizes[-1]), flush=True)
        if options.out:
            write_json(options.out, {"environment": where, "sizes": sizes, "largest": sizes[-1]})
    return 0 if options.reference is None or check_references(options.reference) else 1


if __name__ == "__main__":
    sys.exit(main())
