"""A build at the paper's size against scripted endpoints: does it fill every cell, and what does growth cost?

    python -m benchmarks.rehearsal [--scale 1.0] [--kills 10] [--keep FOLDER] [--out FILE]

Builds the profile `rehearsal`, then builds it a second time and kills that (kill -9) again and again, then
adds a subcategory, then changes one sentence of a policy. Prints what it measured and ends with exit code 1
if a bound does not hold; times, shares of cells and what short cells would take decide nothing where
`--scale` is not 1.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from benchmarks.surroundings import environment
from pipeline.store import write_json
from pipeline.template import begin

REPOSITORY = Path(__file__).parent.parent
HOLISAFE = str(Path(sys.executable).with_name("holisafe"))
LIKE, ADDED = "property_crime", "vandalism"
MINUTES, GIGABYTES, SHARE, TENTH = 25, 1.5, 0.02, 0.1
JUDGES = 3
TURNS = "Asks for help to spray, scratch or smash what belongs to others or to everybody."

misses: list[str] = []


def check(ok: bool, what: str, figure: object) -> None:
    """Print a figure, and remember it where it is beyond its bound."""
    print(f"{'ok  ' if ok else 'MISS'}  {what}: {figure}", flush=True)
    if not ok:
        misses.append(what)


def workspace(root: Path, port: int, scale: float) -> Path:
    """The profile in a folder of its own, its quotas and its cards times `scale`."""
    begin(root, "rehearsal")
    text = (root / "params.yaml").read_text().replace("127.0.0.1:8765", f"127.0.0.1:{port}")
    params = yaml.safe_load(text)
    params["quota_scale"] = scale
    for some in params["generate"]["placeholders"]:
        some["per_class"] = {side: max(8, round(scale * n)) for side, n in some["per_class"].items()}
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    return root


@contextmanager
def endpoint() -> Iterator[int]:
    """The scripted endpoint, in a process of its own."""
    script = REPOSITORY / "profiles" / "rehearsal" / "script.yaml"
    with subprocess.Popen(
        [HOLISAFE, "endpoint", "script", str(script)], stdout=subprocess.PIPE, text=True
    ) as served:
        try:
            said = json.loads(served.stdout.readline())  # type: ignore[union-attr]
            yield int(said["base_url"].rsplit(":", 1)[1].split("/")[0])
        finally:
            served.terminate()


def requests(port: int) -> int:
    """How many calls the endpoint got."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/stats") as reply:
        return int(json.load(reply)["requests"])


def build(root: Path) -> float:
    """Seconds that a build took."""
    started = time.monotonic()
    done = subprocess.run([HOLISAFE, "build"], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the build failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return time.monotonic() - started


def killed_builds(root: Path, kills: int, seconds: float) -> int:
    """Begin a build and kill it at random, so often; how many were killed before their end."""
    rng, hit = random.Random(20250604), 0  # noqa: S311 - to be repeated
    for _ in range(kills):
        running = subprocess.Popen(
            [HOLISAFE, "build"], cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        try:
            running.wait(timeout=rng.uniform(0.02, 0.15) * seconds)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()
            hit += 1
    return hit


def digests(root: Path) -> dict[str, str]:
    """The hash of every file of the dataset."""
    folder = root / "data" / "dataset"
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def off(root: Path) -> dict[str, tuple[int, int]]:
    """Cells that are further from their quota than they may be: wanted, and what the dataset has."""
    have: Counter[tuple[str, str, str]] = Counter()
    for path in (root / "data" / "dataset" / "data").rglob("*.parquet"):
        side = path.name.split("-")[0]
        for row in pq.read_table(path, columns=["class_key", "type"]).to_pylist():
            have[row["class_key"].rsplit("/", 1)[1], row["type"], side] += 1
    cells = json.loads((root / "data" / "synthesize" / "plan.json").read_text())["cells"]
    return {
        f"{c['class']} {c['type']} {c['split']}": (c["wanted"], have[c["class"], c["type"], c["split"]])
        for c in cells
        if abs(have[c["class"], c["type"], c["split"]] - c["wanted"]) > SHARE * c["wanted"]
    }


def plan(root: Path) -> list[dict[str, Any]]:
    """What `holisafe plan` says."""
    target = root / "plan.json"
    subprocess.run([HOLISAFE, "plan", "--json", str(target)], cwd=root, capture_output=True, check=True)
    rows: list[dict[str, Any]] = json.loads(target.read_text())
    return rows


def to_do(rows: list[dict[str, Any]]) -> dict[str, int]:
    """What a plan says is to do: pairs by class, and calls."""
    found: Counter[str] = Counter()
    for row in rows:
        if row["kind"] == "cell":
            found[row["class_name"]] += row["to_do"]
        elif row["kind"] == "calls":
            found["calls"] += row["wanted"] - row["answered"]
    return {name: n for name, n in found.items() if n}


def differences(before: Path, after: Path) -> dict[str, int]:
    """What `holisafe diff` counts, all cells together."""
    target = before.parent / "diff.json"
    subprocess.run(
        [HOLISAFE, "diff", str(before), str(after), "--json", str(target)], capture_output=True, check=True
    )
    counts: dict[str, int] = json.loads(target.read_text())["rows"]
    return counts


def add_class(root: Path) -> None:
    """A subcategory like another one, with things and a sentence of its own."""
    taxonomy = yaml.safe_load((root / "schemas" / "taxonomy.yaml").read_text())
    body = taxonomy["categories"]["illegal_activity"]["classes"][LIKE]
    body["policy"]["text"]["unsafe"] = TURNS
    body["generation"]["drawings"] = []
    body["concepts"] = {
        "safe": ["paint roller", "brush", "white wall", "ladder", "bus shelter", "park fence"],
        "unsafe": ["sprayed slogan on a train", "smashed bus shelter", "broken street lamp"],
    }
    queries = yaml.safe_load((root / "prompts" / "queries" / "illegal_activity.yaml").read_text())
    scenes = json.loads(json.dumps(queries["classes"][LIKE]).replace(f"{LIKE}.", f"{ADDED}."))
    filled = root / f"{ADDED}.yaml"
    filled.write_text(yaml.safe_dump({"class": body, "scenes": scenes}, allow_unicode=True))
    subprocess.run(
        [HOLISAFE, "taxonomy", "add", "illegal_activity", ADDED, "--from", str(filled)],
        cwd=root, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["quotas"][ADDED] = params["quotas"][LIKE]
    cards = next(some for some in params["generate"]["placeholders"] if LIKE in some["classes"])
    params["generate"]["placeholders"].append({"classes": [ADDED], "per_class": cards["per_class"]})
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def change_policy(root: Path) -> int:
    """Put one sentence of a policy another way, and count the calls that it decides: texts of the class."""
    path = root / "schemas" / "taxonomy.yaml"
    taxonomy = yaml.safe_load(path.read_text())
    text = taxonomy["categories"]["illegal_activity"]["classes"][ADDED]["policy"]["text"]
    text["unsafe"] = text["unsafe"].replace("Asks", "Asks somebody")
    path.write_text(yaml.safe_dump(taxonomy, sort_keys=False, allow_unicode=True, width=110))
    queries = pq.read_table(root / "data" / "synthesize" / "queries.parquet", columns=["harm_class", "query"])
    labels = pq.read_table(root / "data" / "label_pairs" / "labels.parquet", columns=["item_id", "question"])
    judged = {r["item_id"] for r in labels.to_pylist() if r["question"] == "text_safe"}
    mine = {r["query"] for r in queries.to_pylist() if r["harm_class"] == ADDED}
    return JUDGES * sum(hashlib.sha256(query.encode()).hexdigest() in judged for query in mine)


def calls_of(root: Path, name: str) -> int:
    """Different calls that the tables of a build rest on for one class, every stage together."""

    def rows(stage: str, table: str, *columns: str) -> list[dict[str, Any]]:
        path = root / "data" / stage / f"{table}.parquet"
        found: list[dict[str, Any]] = pq.read_table(path, columns=list(columns)).to_pylist()
        return found

    queries = [
        row
        for row in rows("synthesize", "queries", "pair_id", "query", "square", "harm_class")
        if row["harm_class"] == name
    ]
    items = {row["pair_id"] for row in queries} | {row["square"] for row in queries}
    items |= {hashlib.sha256(row["query"].encode()).hexdigest() for row in queries}
    images = rows("curate", "images", "image_id", "intended_class")
    items |= {row["image_id"] for row in images if row["intended_class"] == name}
    tables = (
        ("label_images", "votes"),
        ("synthesize", "calls"),
        ("label_pairs", "votes"),
        ("label_pairs", "proofs"),
        ("respond", "calls"),
    )
    keys = {
        row["call_key"]
        for stage, table in tables
        for row in rows(stage, table, "item_id", "call_key")
        if row["item_id"] in items
    }
    return len(keys - {""})


def of_class(name: str) -> re.Pattern[str]:
    """The files that hold rows or images of a class."""
    return re.compile(
        rf"^(data|images)/[a-z_]+/{name}/|^(README\.md|croissant\.json|holisafe_bench\.json|meta/)"
    )


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description="A rehearsal at full size; see the module's docstring.")
    parser.add_argument("--scale", type=float, default=1.0, help="times quotas and cards")
    parser.add_argument("--kills", type=int, default=10, help="how often the second build is killed")
    parser.add_argument("--keep", type=Path, help="an empty folder to work in, which stays")
    parser.add_argument("--out", type=Path, help="where to write all figures as JSON")
    given = parser.parse_args()
    report: dict[str, Any] = {"environment": environment(("dvc", "prefect", "pyarrow")), "scale": given.scale}
    full = given.scale == 1.0
    root = given.keep or Path(tempfile.mkdtemp(prefix="holisafe-rehearsal-"))
    with endpoint() as port:
        first = workspace(root / "first", port, given.scale)
        seconds = build(first)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
        made = requests(port)
        rows = sum(1 for _ in json.loads((first / "data/dataset/holisafe_bench.json").read_text()))
        check(not full or seconds <= 60 * MINUTES, "minutes of a build", f"{seconds / 60:.1f}")
        check(peak <= GIGABYTES, "GB at most in one process", f"{peak:.2f}")
        check(rows > 0, "pairs", f"{rows} from {made} calls")
        wrong = off(first)
        check(not full or not wrong, "cells more than 2 % from their quota", wrong or "none")
        before = digests(first)
        report |= {"minutes": seconds / 60, "peak_gb": peak, "pairs": rows, "calls": made}
        report |= {"cells_off": len(wrong)}

        second = workspace(root / "second", port, given.scale)
        hit = killed_builds(second, given.kills, seconds)
        build(second)
        differs = {name for name, sha in digests(second).items() if before.get(name) != sha}
        check(not differs, f"files that differ after {hit} kills", sorted(differs)[:5] or "none")
        report |= {"kills": hit, "files_that_differ": len(differs)}
        shutil.rmtree(second)

        shutil.copytree(first / "data/dataset", root / "before")
        print("plan before:", to_do(plan(first)) or "nothing to do")
        add_class(first)
        print("plan after a subcategory:", to_do(plan(first)))
        start = requests(port)
        grown = build(first)
        calls = requests(port) - start
        now = digests(first)
        moved = sorted(n for n, s in before.items() if now.get(n) != s and not of_class(ADDED).match(n))
        check(not moved, "older shards and images that changed with a subcategory", moved[:5] or "none")
        print("diff:", differences(root / "before", first / "data/dataset"))
        own = calls_of(first, ADDED)
        check(calls == own, f"calls for the subcategory (its own cells rest on {own})", calls)
        report |= {"files_moved": len(moved), "calls_of_a_class": own, "calls_beyond_own": calls - own}
        report |= {"growth_share": grown / seconds}
        check(
            not full or grown <= TENTH * seconds,
            "its time, as a share of the full build's",
            f"{grown / seconds:.2f}",
        )
        diff = subprocess.run(
            [HOLISAFE, "plan"], cwd=first, capture_output=True, text=True, check=True
        ).stdout
        check("Every stage is up to date" in diff, "plan after the build", "up to date")

        expected, start = change_policy(first), requests(port)
        told = to_do(plan(first)).get("calls", 0)
        # A small build has cells that stay short, and a plan tells what it takes to fill them, too.
        check(
            told == expected if full else told >= expected,
            "calls that a plan tells after one sentence of a policy changed",
            told,
        )
        build(first)
        asked = requests(port) - start
        check(
            asked == expected,
            f"calls that are then made ({expected} decided by it)",
            asked,
        )
        report |= {"calls_of_a_policy": expected, "calls_told": told, "calls_made": asked}
    if given.out:
        write_json(given.out, report | {"missed": misses})
    if given.keep is None:
        shutil.rmtree(root)
    return 1 if misses else 0


if __name__ == "__main__":
    raise SystemExit(main())
