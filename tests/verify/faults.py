"""One build that is stopped, loses its model server and fills its disk, and then ends: `make faults`.

The workspace lies on a small file system of its own, so this needs root on Linux (`mount -t tmpfs`). After
each fault: exit code 1, one line that says what happened, no process left behind, no answer lost. In the end
the files are those of a build that nothing happened to.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent.parent
sys.path.insert(0, str(REPOSITORY))

from tests.conftest import HOLISAFE, make_workspace  # noqa: E402
from tests.verify.verify import calls, check, results, tree  # noqa: E402

CLASSES = ["weapon_related_violence", "medical_advice"]
MORE_CALLS = 8  # answered before the next fault


def processes(root: Path) -> list[int]:
    """The processes that work in a folder, whoever started them."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if folder.joinpath("cwd").readlink() == root:
                    found.append(int(folder.name))
            except OSError:  # it has ended
                continue
    return found


def model_server() -> int:
    found = subprocess.run(
        ["pgrep", "--full", "pipeline.engine._llama_child"], capture_output=True, text=True, check=False
    )
    return int(found.stdout.split()[0])


def build_with(root: Path, name: str, fault: Callable[[int], None], says: str) -> None:
    """Start a build, let the fault happen after some more answers, and check how it ends."""
    had = set(calls(root))
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [HOLISAFE, "build"],
            cwd=root,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )
        while process.poll() is None and len(calls(root)) < len(had) + MORE_CALLS:
            time.sleep(0.2)
        if process.poll() is None:
            fault(process.pid)
        code = process.wait(timeout=300)
        errors.seek(0)
        said = [line for line in errors.read().splitlines() if line.strip()]
    check(code == 1, f"{name}: exit code", code)
    check(bool(said) and says in said[-1], f"{name}: the last line names it", said[-1:])
    check(
        not any("Traceback" in line for line in said),
        f"{name}: lines of traceback",
        sum("Traceback" in line for line in said),
    )
    time.sleep(3)
    left = processes(root)
    check(not left, f"{name}: processes left behind", left or "none")
    check(had <= set(calls(root)), f"{name}: answers lost", len(had - set(calls(root))))


def main() -> int:
    folder = Path(tempfile.mkdtemp(prefix="holisafe-faults-"))
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)], check=True)
    try:
        root = make_workspace(disk / "build", CLASSES)
        filler = disk / "filler"

        def stop(pid: int) -> None:
            os.kill(pid, signal.SIGTERM)

        def kill_server(_pid: int) -> None:
            os.kill(model_server(), signal.SIGKILL)

        def fill(_pid: int) -> None:
            with filler.open("wb", buffering=0) as file:
                try:
                    while True:
                        file.write(b"\0" * 4096)
                except OSError:
                    return

        build_with(root, "told to stop (SIGTERM)", stop, "stopped")
        build_with(root, "model server killed (kill -9)", kill_server, "model server")
        build_with(root, "disk full", fill, "disk")
        filler.unlink()
        before = set(calls(root))
        done = subprocess.run([HOLISAFE, "build"], cwd=root, capture_output=True, text=True, check=False)
        check(done.returncode == 0, "run again with nothing in the way: exit code", done.returncode)
        check(before <= set(calls(root)), "answers lost", len(before - set(calls(root))))

        calm = make_workspace(folder / "calm", CLASSES)
        subprocess.run([HOLISAFE, "build"], cwd=calm, capture_output=True, check=True)
        check(
            set(calls(calm)) == set(calls(root)),
            "calls that a build without faults did not make",
            len(set(calls(root)) ^ set(calls(calm))),
        )
        first, second = tree(calm), tree(root)
        differing = sorted(k for k in first.keys() | second.keys() if first.get(k) != second.get(k))
        check(not differing, "files that differ from it", differing[:5] or f"none of {len(first)}")
    finally:
        subprocess.run(["umount", str(disk)], check=False)
    missed = sum(not ok for ok, _, _ in results)
    print(f"\n{len(results) - missed} passed, {missed} failed")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
