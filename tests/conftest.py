"""What tests share: workspaces made from the repository's own configuration."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, settings

# How fast examples come says more about the machine than about them.
settings.register_profile("shared", suppress_health_check=[HealthCheck.too_slow], deadline=None)
settings.load_profile("shared")

REPOSITORY = Path(__file__).parent.parent
HOLISAFE = str(Path(sys.executable).with_name("holisafe"))

IMAGES_PER_SIDE = 11  # of each class: every one of them is a model call


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Where everything is required, a test that was skipped is a failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if os.environ.get("HOLISAFE_REQUIRE_ALL") and skipped and exitstatus == pytest.ExitCode.OK:
        reporter.write_line(f"{len(skipped)} skipped, and here nothing may be skipped", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def make_workspace(root: Path, classes: list[str], **changes: Any) -> Path:
    """A workspace with the repository's taxonomy and prompts, and some seed images of `classes`."""
    (root / "schemas").mkdir(parents=True)
    for name in ("taxonomy.yaml", "taxonomy.lock.jsonl"):
        shutil.copy(REPOSITORY / "schemas" / name, root / "schemas")
    shutil.copytree(REPOSITORY / "prompts", root / "prompts")
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    params |= {"only_classes": classes} | changes
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    shutil.copy(REPOSITORY / "dvc.yaml", root / "dvc.yaml")
    seed = REPOSITORY / "data" / "seed"
    lines = []
    taken: Counter[tuple[str, bool]] = Counter()
    for line in (seed / "metadata.jsonl").read_text().splitlines():
        side = json.loads(line)["class"], json.loads(line)["safe"]
        if side[0] in classes and taken[side] < IMAGES_PER_SIDE:
            taken[side] += 1
            lines.append(line)
    for line in lines:
        name = json.loads(line)["file_name"]
        (root / "data" / "seed" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(seed / name, root / "data" / "seed" / name)
    (root / "data" / "seed" / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return root


def holisafe(
    cwd: Path, *arguments: str, check: bool = True, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command line in `cwd`."""
    done = subprocess.run(
        [HOLISAFE, *arguments],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )
    if check and done.returncode:
        raise AssertionError(
            f"holisafe {' '.join(arguments)} gave {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
    return done


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A small workspace of two classes, nothing built yet."""
    return make_workspace(tmp_path, ["weapon_related_violence", "medical_advice"])
