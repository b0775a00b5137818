"""How time and memory of whole builds grow with the pairs, up to a hundred thousand of them.

    python -m benchmarks.growth [--scale 0.128 0.385 1.285 6.43] [--work DIR] [--out FILE]

Builds of the profile `rehearsal`, its quotas and cards times each `--scale`: about 2,000, 6,000, 20,000 and
100,000 pairs. A scripted endpoint answers for every model, so what is measured is the pipeline and no model.
Each build begins in an empty folder with DVC, and runs in a process of its own. Memory is what its processes
held, sampled five times a second, with a page that two of them share counted for both; of a stage it is the
most while it ran. What no stage took is Prefect, DVC, hashing what stages left, and starting.
"""

from __future__ import annotations

import argparse
import json
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
SCALES = (0.128, 0.385, 1.285, 6.43)
HOURS, MEGABYTES, OVERHEAD, GROWTH = 3.0, 2000, 0.10, 1.15
SAMPLE_S = 0.2


def with_dvc(root: Path) -> Path:
    """A workspace that records its builds with DVC, as a dataset that is kept does."""
    dvc = str(Path(sys.executable).with_name("dvc"))
    subprocess.run([dvc, "init", "--no-scm", "--quiet"], cwd=root, check=True)
    return root


def stages_of(root: Path) -> dict[str, tuple[float, float]]:
    """Seconds that each stage took by its own account, and when it was done."""
    records = sorted((root / ".holisafe" / "stages").glob("*.json"), key=lambda path: path.stat().st_mtime)
    return {
        record.stem: (float(json.loads(record.read_text())["seconds"]), record.stat().st_mtime)
        for record in records
    }


def measured(root: Path) -> Result:
    """Build a workspace; its time, and the most memory of one process and of all, also stage by stage.

    Raises:
        SystemExit: when the build fails.
    """
    log = root / "build.log"
    one = 0
    held: list[tuple[float, int]] = []
    began = time.monotonic()
    with log.open("w") as said:
        # A session of its own, so that all processes of the build are found, and no other.
        build = subprocess.Popen(
            [HOLISAFE, "build"], cwd=root, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            while build.poll() is None:
                pages = list(resident(build.pid))
                one = max([one, *pages])
                held.append((time.time(), sum(pages)))
                with suppress(subprocess.TimeoutExpired):
                    build.wait(SAMPLE_S)
        finally:
            if build.poll() is None:  # whoever stops the measurement stops the build
                os.killpg(build.pid, signal.SIGKILL)
    seconds = time.monotonic() - began
    if build.returncode:
        raise SystemExit(f"the build failed:\n{log.read_text()[-2000:]}")
    page, stages = os.sysconf("SC_PAGESIZE") / 1e6, stages_of(root)
    # A stage begins when the one before it has left its tables: its own seconds are without that.
    begins = dict(zip(stages, [0.0, *(done for _, done in stages.values())], strict=False))
    pairs = len(json.loads((root / "data" / "dataset" / "holisafe_bench.json").read_text()))
    return {
        "pairs": pairs,
        "seconds": seconds,
        "ms_per_pair": 1000 * seconds / pairs,
        "peak_one_mb": one * page,
        "peak_mb": max(pages for _, pages in held) * page,
        "stages": {
            name: {
                "seconds": took,
                "peak_mb": max((p for at, p in held if begins[name] <= at <= done), default=0) * page,
            }
            for name, (took, done) in stages.items()
        },
        "overhead": 1 - sum(took for took, _ in stages.values()) / seconds,
    }


def summary(sizes: Sequence[Result]) -> Result:
    """What is held to bounds, of builds in the order of their sizes."""
    small, large = sizes[0], sizes[-1]
    return {
        "sizes": list(sizes),
        "largest": large,
        "per_pair_ratio": large["ms_per_pair"] / small["ms_per_pair"],
        "hours": large["seconds"] / 3600,
        "memory_ratio": large["peak_mb"] / small["peak_mb"],
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
        f"at most {OVERHEAD:.0%} outside of stages": large["overhead"] <= OVERHEAD,
        f"the largest in {HOURS:g} hours": report["hours"] <= HOURS,
    }
    for bound, holds in bounds.items():
        print("ok  " if holds else "MISS", bound)
    if args.out:
        write_json(args.out, report)
    return 0 if all(bounds.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
