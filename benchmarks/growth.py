"""How time and memory of whole builds grow with the pairs, and what a hundred thousand of them would take.

    python -m benchmarks.growth [--scale 0.128 0.385 1.285] [--work DIR] [--out FILE]

Builds of the profile `rehearsal`, its quotas and cards times each `--scale`: about 2,000, 6,000 and 20,000
pairs. A scripted endpoint answers for every model, so what is measured is the pipeline and no model. Each
build begins in an empty folder with DVC, and runs in a process of its own. Memory is what its processes
held, sampled five times a second, with a page that two of them share counted for both. What a stage did
not take itself is Prefect, DVC, hashing what it left, and starting.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.rehearsal import HOLISAFE, endpoint, requests, workspace
from benchmarks.surroundings import environment, resident
from pipeline.store import write_json

Result = dict[str, Any]
SCALES = (0.128, 0.385, 1.285)
TARGET = 100_000
HOURS, MEGABYTES, OVERHEAD, GROWTH = 3.0, 2000, 0.10, 1.15
SAMPLE_S = 0.2


def with_dvc(root: Path) -> Path:
    """A workspace that records its builds with DVC, as a dataset that is kept does."""
    dvc = str(Path(sys.executable).with_name("dvc"))
    subprocess.run([dvc, "init", "--no-scm", "--quiet"], cwd=root, check=True)
    return root


def stages_of(root: Path) -> dict[str, float]:
    """Seconds that each stage took by its own account."""
    records = sorted((root / ".holisafe" / "stages").glob("*.json"))
    return {record.stem: float(json.loads(record.read_text())["seconds"]) for record in records}


def measured(root: Path) -> Result:
    """Build a workspace; its time, its stages' times, and the most memory of one process and of all.

    Raises:
        SystemExit: when the build fails.
    """
    log = root / "build.log"
    one = together = 0
    began = time.monotonic()
    with log.open("w") as said:
        # A session of its own, so that all processes of the build are found, and no other.
        build = subprocess.Popen(
            [HOLISAFE, "build"], cwd=root, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            while build.poll() is None:
                held = list(resident(build.pid))
                one, together = max([one, *held]), max(together, sum(held))
                with suppress(subprocess.TimeoutExpired):
                    build.wait(SAMPLE_S)
        finally:
            if build.poll() is None:  # whoever stops the measurement stops the build
                os.killpg(build.pid, signal.SIGKILL)
    seconds = time.monotonic() - began
    if build.returncode:
        raise SystemExit(f"the build failed:\n{log.read_text()[-2000:]}")
    page, stages = os.sysconf("SC_PAGESIZE") / 1e6, stages_of(root)
    pairs = len(json.loads((root / "data" / "dataset" / "holisafe_bench.json").read_text()))
    return {
        "pairs": pairs,
        "seconds": seconds,
        "ms_per_pair": 1000 * seconds / pairs,
        "peak_one_mb": one * page,
        "peak_mb": together * page,
        "stages": stages,
        "overhead": 1 - sum(stages.values()) / seconds,
    }


def hours_of(pairs: int, sizes: Sequence[Result]) -> float:
    """Hours for so many pairs, from the two largest builds.

    Time grows on as it grew between the two, but never by less than in proportion: what starting costs
    would make a small build flatter a large one.
    """
    *_, before, last = sizes
    grew = math.log(last["seconds"] / before["seconds"]) / math.log(last["pairs"] / before["pairs"])
    return float(last["seconds"] * (pairs / last["pairs"]) ** max(1.0, grew) / 3600)


def megabytes_of(pairs: int, sizes: Sequence[Result]) -> float:
    """Memory of all processes for so many pairs, by the straight line through the two largest builds."""
    *_, before, last = sizes
    per_pair = (last["peak_mb"] - before["peak_mb"]) / (last["pairs"] - before["pairs"])
    return float(last["peak_mb"] + max(0.0, per_pair) * (pairs - last["pairs"]))


def summary(sizes: Sequence[Result]) -> Result:
    """What is held to bounds, of builds in the order of their sizes."""
    small, large = sizes[0], sizes[-1]
    return {
        "sizes": list(sizes),
        "largest": large,
        "per_pair_ratio": large["ms_per_pair"] / small["ms_per_pair"],
        f"hours_of_{TARGET}": hours_of(TARGET, sizes),
        f"mb_of_{TARGET}": megabytes_of(TARGET, sizes),
    }


def main() -> int:
    """Measure, print, and say whether every bound held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, help="where to write all figures as JSON")
    parser.add_argument("--scale", type=float, nargs="+", default=list(SCALES), help="times quotas and cards")
    parser.add_argument("--work", type=Path, default=Path(".holisafe/growth"), help="where it is built")
    args = parser.parse_args()
    if len(set(args.scale)) < 2:
        parser.error("--scale: growth is between two sizes at least")
    report: Result = {"environment": environment(("dvc", "prefect", "pyarrow"))}
    sizes = []
    for scale in sorted(set(args.scale)):
        root = args.work.absolute() / f"{scale:g}"
        shutil.rmtree(root, ignore_errors=True)
        # One endpoint a build: what it keeps of the requests of another would be company on the machine.
        with endpoint() as port:
            found = measured(with_dvc(workspace(root, port, scale)))
            sizes.append({"scale": scale, **found, "calls": requests(port)})
        print(f"{found['pairs']:,} pairs", sizes[-1], flush=True)
        shutil.rmtree(root)
    report |= summary(sizes)
    large = report["largest"]
    bounds = {
        f"time for a pair grows by {GROWTH - 1:.0%} at most": report["per_pair_ratio"] <= GROWTH,
        f"at most {MEGABYTES} MB": large["peak_mb"] <= MEGABYTES,
        f"at most {MEGABYTES} MB for {TARGET:,} pairs": report[f"mb_of_{TARGET}"] <= MEGABYTES,
        f"at most {OVERHEAD:.0%} outside of stages": large["overhead"] <= OVERHEAD,
        f"{TARGET:,} pairs in {HOURS:g} hours": report[f"hours_of_{TARGET}"] <= HOURS,
    }
    for bound, holds in bounds.items():
        print("ok  " if holds else "MISS", bound)
    if args.out:
        write_json(args.out, report)
    return 0 if all(bounds.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
