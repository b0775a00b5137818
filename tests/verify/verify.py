"""The slow proofs, on the shipped configuration: `make verify`.

Two clean builds give the same bytes, though one of them is killed (kill -9) on the way and resumed; no call
is paid for twice; a rerun does nothing. Where the repository itself is built (`make run`), that is the first
of the two. Prints what it measured and ends with exit code 1 if a bound does not hold.

With `--share S` the second build begins with the first one's answers, of which that share, drawn anew each
time, is lost: these are asked again, each beside other neighbours than before. With `--every N` both builds
are of every Nth class of the taxonomy, and the bounds on pairs are so much smaller.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from contextlib import closing
from pathlib import Path

import numpy as np
import yaml

from pipeline.template import begin

REPOSITORY = Path(__file__).parent.parent.parent
BIN = Path(sys.executable).parent
TYPES = ("SSS", "SSU", "SUU", "USU", "UUU")

results: list[tuple[bool, str, str]] = []


def check(ok: bool, what: str, figure: object) -> None:
    results.append((ok, what, str(figure)))
    print(f"{'ok  ' if ok else 'MISS'}  {what}: {figure}", flush=True)


def report(ok: bool, what: str, figure: object) -> None:
    """A time: on a shared machine it is worth reading and proves nothing, so it decides nothing."""
    print(f"{'ok  ' if ok else 'slow'}  {what}: {figure}", flush=True)


def workspace(root: Path, every: int) -> Path:
    begin(root)
    (root / ".dvc").mkdir()
    shutil.copy(REPOSITORY / ".dvc/config", root / ".dvc")
    if every > 1:
        params = yaml.safe_load((root / "params.yaml").read_text())
        taxonomy = yaml.safe_load((root / params["taxonomy"]).read_text())
        classes = [name for one in taxonomy["categories"].values() for name in one["classes"]]
        params["only_classes"] = classes[::every]
        (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    subprocess.run(["git", "init", "--quiet", str(root)], check=True)
    return root


def start(root: Path, *command: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"}
    return subprocess.Popen(
        [str(BIN / command[0]), *command[1:]], cwd=root, env=environment, start_new_session=True
    )


def tree_rss(pid: int) -> int:
    """Resident bytes of a process and everything below it."""
    children: dict[int, list[int]] = defaultdict(list)
    rss: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
                children[int(fields[1])].append(int(folder.name))
                rss[int(folder.name)] = int((folder / "statm").read_text().split()[1]) * os.sysconf(
                    "SC_PAGESIZE"
                )
            except (FileNotFoundError, ProcessLookupError):
                continue
    total, todo = 0, [pid]
    while todo:
        current = todo.pop()
        total += rss.get(current, 0)
        todo += children[current]
    return total


def run(root: Path, *command: str) -> tuple[float, int, int]:
    """Run to the end: seconds, peak resident bytes of all its processes, exit code."""
    began, peak = time.monotonic(), 0
    process = start(root, *command)
    while process.poll() is None:
        peak = max(peak, tree_rss(process.pid))
        time.sleep(0.5 if command[1] == "build" else 0.05)
    return time.monotonic() - began, peak, process.returncode


def calls(root: Path) -> Counter[str]:
    path = root / ".holisafe" / "calls.sqlite"
    if not path.exists():
        return Counter()
    try:
        with sqlite3.connect(path, timeout=30) as connection:
            return Counter(
                dict(connection.execute("select key, count(*) from calls group by key").fetchall())
            )
    except sqlite3.OperationalError:  # the table is being made
        return Counter()


def tree(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for stage in ("dataset", "audit")
        for path in sorted((root / "data" / stage).rglob("*"))
        if path.is_file()
    }


def lose(one: Path, two: Path, share: float) -> int:
    """Give the second workspace the first one's answers without a share of them; returns how many it has."""
    seed = int.from_bytes(os.urandom(3))
    with (
        closing(sqlite3.connect(one / ".holisafe" / "calls.sqlite")) as whole,
        closing(sqlite3.connect(two / ".holisafe" / "calls.sqlite")) as part,
    ):
        whole.backup(part)
        keys = sorted(key for (key,) in part.execute("select key from calls"))
        lost = np.random.default_rng(seed).choice(keys, round(share * len(keys)), replace=False).tolist()
        part.executemany("delete from calls where key = ?", [(key,) for key in lost])
        part.commit()
    print(f"the second build has lost {len(lost)} of {len(keys)} answers (seed {seed})", flush=True)
    return len(keys) - len(lost)


def kill_on_the_way(root: Path, until: int) -> int:
    """Start a build, kill -9 all of it when so many calls are answered; returns how many were."""
    process = start(root, "holisafe", "build")
    while process.poll() is None and sum(calls(root).values()) < until:
        time.sleep(1)
    answered = sum(calls(root).values())
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return answered


def check_dataset(root: Path, every: int) -> None:
    rows = json.loads((root / "data" / "dataset" / "holisafe_bench.json").read_text())
    by_type = Counter(row["type"] for row in rows)
    kinds: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        kinds[row["category"]].add(row["type"])
    pairs, of_each = 160 // every, 20 // every
    check(len(rows) >= pairs, f"pairs, at least {pairs}", len(rows))
    check(min(by_type[t] for t in TYPES) >= of_each, f"pairs of each type, at least {of_each}", dict(by_type))
    if every > 1:  # of a category not every class is there
        return
    lacking = {
        c: sorted(set(TYPES) - k) for c, k in kinds.items() if c != "sexual_content" and set(TYPES) - k
    }
    check(
        len(kinds) == 7 and not lacking, "categories without a type (sexual_content aside)", lacking or "none"
    )


def is_built(root: Path) -> bool:
    from pipeline.runner import is_fresh
    from pipeline.stages import STAGES
    from pipeline.workspace import Workspace

    return all(is_fresh(Workspace(root), stage) for stage in STAGES.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("keep", type=Path, nargs="?", help="a folder for the workspaces")
    parser.add_argument("--share", type=float, default=1.0, help="of the answers that are asked for again")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="every Nth class only")
    arguments = parser.parse_args()
    every: int = arguments.every
    keep: Path = arguments.keep or Path(tempfile.mkdtemp(prefix="holisafe-verify-"))
    two = workspace(keep / "two", every)
    if every == 1 and is_built(REPOSITORY):
        one = REPOSITORY
        print("the repository is built already: that is the first build")
    else:
        one = workspace(keep / "one", every)
        seconds, peak, code = run(one, "holisafe", "build")
        check(code == 0, "a clean build ends well", f"exit code {code}")
        report(seconds <= 15 * 60, "its time, at most 15 min", f"{seconds / 60:.1f} min")
        check(peak <= 4 * 2**30, "its memory, at most 4 GiB", f"{peak / 2**30:.2f} GiB")
    check_dataset(one, every)

    known = lose(one, two, arguments.share) if arguments.share < 1 else 0
    answered = kill_on_the_way(two, known + (sum(calls(one).values()) - known) // 3)
    before = set(calls(two))
    _, _, code = run(two, "holisafe", "build")
    check(code == 0, f"a build killed after {answered} calls ends well when run again", f"exit code {code}")
    check(before <= set(calls(two)), "answers lost by the kill", len(before - set(calls(two))))
    others = set(calls(two)) - set(calls(one))
    check(not others, "calls of the second build that the first did not make", len(others))
    first, second = tree(one), tree(two)
    differing = sorted(k for k in first.keys() | second.keys() if first.get(k) != second.get(k))
    check(
        not differing, "files that differ between two clean builds", differing[:5] or f"none of {len(first)}"
    )

    paid = calls(one)
    seconds, _, code = run(one, "holisafe", "build")
    check(code == 0, "nothing changed: holisafe build", f"exit code {code}")
    report(seconds <= 15, "its time, at most 15 s", f"{seconds:.1f} s")
    seconds, _, code = run(one, "dvc", "repro")
    check(code == 0, "nothing changed: dvc repro", f"exit code {code}")
    report(seconds <= 5, "its time, at most 5 s", f"{seconds:.1f} s")
    check(calls(one) == paid and tree(one) == first, "calls and changed files of those two", "none")

    missed = [what for ok, what, _ in results if not ok]
    print(f"\n{len(results) - len(missed)} passed, {len(missed)} failed")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
