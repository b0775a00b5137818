"""The client under measurement: asks numbered questions and says what came of them, as one line of JSON.

python -m benchmarks.engine.load URL BACKEND_ID CACHE --count 4000
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from pipeline.engine import Answer, Engine, RemoteEndpoint, Request, Terms, open_cache

SYSTEM = "You judge requests. Answer as JSON with a reason and a verdict. Template {template}."


class Verdict(BaseModel):
    """The answer that is asked for."""

    model_config = ConfigDict(extra="forbid")

    reason: str
    unsafe: bool


def requests(backend_id: str, first: int, count: int, template: str) -> Iterator[Request]:
    """Numbered questions."""
    system = {"role": "system", "content": SYSTEM.format(template=template)}
    params = {"temperature": 0, "max_tokens": 64}
    for number in range(first, first + count):
        messages = [system, {"role": "user", "content": f"item {number}"}]
        yield Request(backend_id, "judge", messages, params, Verdict)


def resident() -> float:
    """Resident megabytes of this process, now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 1e6


def main() -> None:
    """Ask, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("backend_id")
    parser.add_argument("cache")
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--timeout-s", type=float, default=60)
    parser.add_argument("--template", default="A")
    parser.add_argument("--sample-at", type=int, default=0, help="note the memory after so many answers")
    args = parser.parse_args()
    terms = Terms(concurrency=args.concurrency, timeout_s=args.timeout_s)
    statuses: Counter[str] = Counter()
    wrong = 0
    table = hashlib.sha256()
    kept: dict[int, str] = {}
    next_row = 0
    sampled = 0.0
    done = 0

    def take(index: int, answer: Answer) -> None:
        # The table is hashed row by row in its order: only rows that wait for an earlier one are kept.
        nonlocal wrong, next_row, sampled, done
        statuses[answer.status] += 1
        said = answer.value.reason if isinstance(answer.value, Verdict) else None
        wrong += answer.status == "ok" and said != f"item {args.first + index}"
        kept[index] = f"{index} {answer.status} {answer.raw}\n"
        while next_row in kept:
            table.update(kept.pop(next_row).encode())
            next_row += 1
        done += 1
        if done == args.sample_at:
            sampled = resident()

    with open_cache(args.cache) as cache:
        engine = Engine(cache, RemoteEndpoint(args.backend_id, args.url, "none", terms))
        began = time.perf_counter()
        engine.ask_each(requests(args.backend_id, args.first, args.count, args.template), take, stage="load")
        seconds = time.perf_counter() - began
    result = {
        "seconds": seconds,
        "sent": engine.stats.sent,
        "cached": engine.stats.cached,
        "statuses": dict(statuses),
        "wrong": wrong,
        "rows": next_row,
        "table": table.hexdigest(),
        "sampled_mb": sampled,
        "end_mb": resident(),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
