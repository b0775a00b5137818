"""Write requirements.lock and requirements-dev.lock: every package with its version.

Usage: python scripts/lock.py [--upgrade]

Without --upgrade the versions that are installed here stay; only what was added or removed changes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

RUN = ("build", "models", "gpu", "postgres")
"""The extras whose packages `make run` installs, beside the core."""

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]


def resolve(requirements: list[str], constraints: Path | None) -> list[str]:
    """What pip would install for `requirements`, as pins in alphabetical order."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [*PIP, "install", "--quiet", "--dry-run", "--ignore-installed", "--report", str(report)]
        if constraints:
            command += ["--constraint", str(constraints)]
        subprocess.run([*command, *requirements], check=True)
        found = json.loads(report.read_text())["install"]
    return sorted(f"{p['metadata']['name'].lower()}=={p['metadata']['version']}" for p in found)


def main() -> None:
    """Resolve both sets and write both files."""
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    run = [
        *project["dependencies"],
        # An extra may name another one of ours, which is here anyway.
        *(want for extra in RUN for want in extras[extra] if not want.startswith(f"{project['name']}[")),
    ]
    build = tomllib.loads(Path("pyproject.toml").read_text())["build-system"]["requires"]
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder) / "here.txt"
        frozen = subprocess.run(
            [*PIP, "freeze", "--exclude-editable"], check=True, capture_output=True, text=True
        )
        here.write_text(frozen.stdout)
        constraints = None if "--upgrade" in sys.argv else here
        core = resolve([*run, *build], constraints)
        everything = resolve([*run, *build, *extras["dev"]], constraints)
    Path("requirements.lock").write_text("\n".join(core) + "\n")
    Path("requirements-dev.lock").write_text("\n".join(p for p in everything if p not in core) + "\n")
    print(f"{len(core)} packages, and {len(everything) - len(core)} for development")


if __name__ == "__main__":
    main()
