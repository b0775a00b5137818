"""What benchmarks say of where they ran, and the environments of their own that peers get."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

__all__ = ["FailedError", "Installed", "environment", "install", "last_line", "resident"]


class FailedError(Exception):
    """A program that could not be installed or did not come to its end."""


@dataclass(frozen=True)
class Installed:
    """A virtual environment: its Python, and the versions of what is in it."""

    python: Path
    packages: dict[str, str]


def environment(packages: Sequence[str]) -> dict[str, Any]:
    """Where this is measured, and the versions of some packages."""
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "")
    return {
        "cpu": cpu.partition(":")[2].strip(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: version(name) for name in packages},
        "load_before": os.getloadavg()[0],
    }


def install(name: str, pins: Sequence[str], envs: Path) -> Installed:
    """An environment with these packages, made when it is not there or other versions are asked for now.

    Raises:
        FailedError: when it cannot be.
    """
    home = envs.absolute() / name
    python, pinned = home / "bin" / "python", home / "pins.txt"
    wanted = "\n".join(pins)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    if not python.exists() or not pinned.exists() or pinned.read_text() != wanted:
        print(f"installing {name} in {home}", flush=True)
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(home)],
            [*pip, "install", *pins],
        ):
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise FailedError(last_line(done.stderr or done.stdout))
        pinned.write_text(wanted)
    listed = subprocess.run([*pip, "list", "--format", "json"], capture_output=True, text=True)
    return Installed(python, {each["name"]: each["version"] for each in json.loads(listed.stdout)})


def resident(group: int) -> Iterator[int]:
    """Resident pages of each process of a group."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # a process that has ended since
            fields = stat.read_bytes().rpartition(b")")[2].split()
            if int(fields[2]) == group:
                yield int(fields[21])


def last_line(text: str) -> str:
    """The last line that says something."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it said nothing")
