"""Throughput, replay, what is sent again, faults and memory of the engine.

    python -m benchmarks.engine [--out FILE] [--only NAME …] [--runs 3]

The endpoint is `holisafe endpoint script` in a process of its own, and the client (`load`) in another, so
that memory and time are the client's. Times are medians of `--runs`. What has a bound is compared with it,
and the exit code says whether all held.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.surroundings import environment
from pipeline.store import write_json

HOLISAFE = Path(sys.executable).with_name("holisafe")
IN_FLIGHT = 64
CRASHES = 20
SEED = 7
PACKAGES = ("openai", "aiohttp", "httpx2", "pydantic")

Result = dict[str, Any]


class Endpoint:
    """A scripted endpoint that runs, and what it was sent."""

    def __init__(self, base_url: str, backend_id: str) -> None:
        """Note where it is."""
        self.base_url, self.backend_id = base_url, backend_id

    def stats(self) -> Result:
        """What it was sent so far."""
        with urllib.request.urlopen(self.base_url.removesuffix("/v1") + "/stats") as reply:  # noqa: S310
            return dict(json.load(reply))

    def reset(self) -> None:
        """Forget it."""
        url = self.base_url.removesuffix("/v1") + "/reset"
        urllib.request.urlopen(urllib.request.Request(url, method="POST")).close()  # noqa: S310

    def command(self, cache: Path, count: int, **options: Any) -> list[str]:
        """The client's command line."""
        more = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        return [
            *(sys.executable, "-m", "benchmarks.engine.load"),
            *(self.base_url, self.backend_id, str(cache), f"--count={count}", *more),
        ]

    def load(self, cache: Path, count: int, **options: Any) -> Result:
        """Run the client to its end."""
        done = subprocess.run(
            self.command(cache, count, **options), check=True, stdout=subprocess.PIPE, text=True
        )
        return dict(json.loads(done.stdout))


@contextmanager
def endpoint(latency_ms: float = 0, **faults: float) -> Iterator[Endpoint]:
    """A scripted endpoint that answers every item with its number, and what one of the peers asks first."""
    script = {
        "version": 1,
        "seed": SEED,
        "models": ["judge"],
        "latency_ms": latency_ms,
        "answers": [
            {"match": r"item (\d+)", "earlier": True, "answer": {"reason": r"item \1", "unsafe": False}},
            {"match": r"^Jason is 25 years old", "answer": {"name": "Jason", "age": 25}},
        ],
        "faults": faults,
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "script.json"
        path.write_text(json.dumps(script))
        process = subprocess.Popen(
            [str(HOLISAFE), "endpoint", "script", str(path)], stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout is not None  # noqa: S101 - opened with PIPE
            ready = json.loads(process.stdout.readline())
            yield Endpoint(ready["base_url"], ready["backend_id"])
        finally:
            process.terminate()
            process.wait()


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for caches, on a real disk: commits must cost what they cost."""
    folder = Path(tempfile.mkdtemp(prefix="engine-bench-", dir=Path.cwd() / ".holisafe"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def throughput(latency_ms: float, runs: int) -> Result:
    """4,000 distinct requests, 64 at once, with the durable cache."""
    rates, peaks = [], []
    with endpoint(latency_ms) as served, scratch() as folder:
        for run in range(runs):
            result = served.load(folder / f"{run}.sqlite", 4000)
            rates.append(4000 / result["seconds"])
            peaks.append(result["peak_mb"])
    return {"requests_per_s": statistics.median(rates), "all": rates, "peak_mb": max(peaks)}


def replay(runs: int) -> Result:
    """Rows a second where the cache answers everything."""
    count = 20_000
    with endpoint() as served, scratch() as folder:
        served.load(folder / "c.sqlite", count)
        served.reset()
        rates = [count / served.load(folder / "c.sqlite", count)["seconds"] for _ in range(runs)]
        sent = served.stats()["requests"]
    return {"rows_per_s": statistics.median(rates), "all": rates, "sent": sent}


def sent_again(_runs: int) -> Result:
    """What a rerun, an append and a changed template send."""
    sent = {}
    with endpoint() as served, scratch() as folder:
        cache = folder / "c.sqlite"
        served.load(cache, 1000)
        for name, options in {
            "rerun": {"count": 1000},
            "append_100": {"count": 1100},
            "one_template_of_two": {"count": 500, "template": "B"},
            "the_other_template": {"count": 500},
        }.items():
            served.reset()
            served.load(cache, **options)
            sent[name] = served.stats()["requests"]
    return sent


def crash(_runs: int) -> Result:
    """Kill -9 at a random point, and run again to the end: what was sent twice, and is the table the same."""
    count, rng, again, tables = 2000, random.Random(SEED), [], set()  # noqa: S311 - no secret
    with endpoint(20) as served, scratch() as folder:
        calm = served.load(folder / "calm.sqlite", count)
        for number in range(CRASHES):
            served.reset()
            cache = folder / f"{number}.sqlite"
            process = subprocess.Popen(served.command(cache, count), stdout=subprocess.DEVNULL)
            at = rng.randrange(count)
            while served.stats()["requests"] < at and process.poll() is None:
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
            process.wait()
            tables.add(served.load(cache, count)["table"])
            again.append(served.stats()["repeated"])
            print(f"  killed after {at:4} requests: {again[-1]:2} sent again", flush=True)
    return {"sent_again_most": max(again), "sent_again": again, "same_table": tables == {calm["table"]}}


def limited(runs: int) -> Result:
    """2 % answered 429 with Retry-After 1 s: 1,000 requests, 64 at once."""
    seconds, wrong = [], 0
    with endpoint(50, status_429=0.02, retry_after_s=1) as served, scratch() as folder:
        for run in range(runs):
            served.reset()
            result = served.load(folder / f"{run}.sqlite", 1000)
            seconds.append(result["seconds"])
            wrong += result["statuses"] != {"ok": 1000}
    return {"seconds": statistics.median(seconds), "all": seconds, "runs_not_all_ok": wrong}


def faults(_runs: int) -> Result:
    """1 % 500, 1 % stalled, 5 % truncated, 2 % invalid: every row accounted for, none wrong."""
    count = 2000
    shares = {"status_500": 0.01, "stalled": 0.01, "truncated": 0.05, "invalid": 0.02}
    with endpoint(5, **shares) as served, scratch() as folder:
        result = served.load(folder / "c.sqlite", count, timeout_s=2)
        struck = served.stats()["by_outcome"]
    return {"wrong": result["wrong"], "rows": result["rows"], "of": count, "statuses": result["statuses"]} | {
        "struck": struck
    }


def memory(_runs: int) -> Result:
    """200,000 calls through one loop."""
    with endpoint() as served, scratch() as folder:
        result = served.load(folder / "c.sqlite", 200_000, sample_at=20_000)
    growth = result["end_mb"] / result["sampled_mb"] - 1
    return {"at_20000_mb": result["sampled_mb"], "at_end_mb": result["end_mb"], "growth": growth} | {
        "requests_per_s": 200_000 / result["seconds"]
    }


SCENARIOS: dict[str, tuple[Callable[[int], Result], dict[str, Callable[[Any], bool]], str]] = {
    "throughput_50ms": (
        lambda runs: throughput(50, runs),
        {"requests_per_s": lambda v: v >= 850, "peak_mb": lambda v: v <= 150},
        ">= 850 requests/s, <= 150 MB",
    ),
    "throughput_0ms": (
        lambda runs: throughput(0, runs),
        {"requests_per_s": lambda v: v >= 1200},
        ">= 1,200 requests/s",
    ),
    "replay": (
        replay,
        {"rows_per_s": lambda v: v >= 20_000, "sent": lambda v: v == 0},
        ">= 20,000 rows/s, 0 sent",
    ),
    "sent_again": (
        sent_again,
        {
            "rerun": lambda v: v == 0,
            "append_100": lambda v: v == 100,
            "one_template_of_two": lambda v: v == 500,
            "the_other_template": lambda v: v == 0,
        },
        "0, 100, 500, 0",
    ),
    "limited": (
        limited,
        {"seconds": lambda v: v < 3, "runs_not_all_ok": lambda v: v == 0},
        "< 3 s",
    ),
    "faults": (
        faults,
        {"wrong": lambda v: v == 0, "rows": lambda v: v == 2000},
        "0 wrong, every row accounted for",
    ),
    "crash": (
        crash,
        {"sent_again_most": lambda v: v <= IN_FLIGHT, "same_table": lambda v: v is True},
        f"<= {IN_FLIGHT} sent again, the same table",
    ),
    "memory": (memory, {"growth": lambda v: abs(v) <= 0.2}, "within 20 %"),
}


def main() -> int:
    """Run the scenarios, print the table, and say whether every bound held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, help="where to write all figures as JSON")
    parser.add_argument("--only", nargs="*", choices=list(SCENARIOS), default=list(SCENARIOS))
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    (Path.cwd() / ".holisafe").mkdir(exist_ok=True)
    report: Result = {"environment": environment(PACKAGES), "runs": args.runs, "results": {}}
    missed = []
    for name in args.only:
        scenario, bounds, wanted = SCENARIOS[name]
        result = scenario(args.runs)
        report["results"][name] = result
        holds = all(bound(result[figure]) for figure, bound in bounds.items())
        missed += [] if holds else [name]
        shown = {k: round(v, 3) if isinstance(v, float) else v for k, v in result.items() if k != "all"}
        print(f"{'ok  ' if holds else 'MISS'} {name}: {shown} (bound: {wanted})", flush=True)
    if args.out:
        write_json(args.out, report)
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
