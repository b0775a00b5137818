"""A build that DVC cannot record says why, and what to write."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from flows.commands import commit_to_dvc


def test_a_parameter_that_is_not_written_out_is_named(tmp_path: Path) -> None:
    dvc = str(Path(sys.executable).with_name("dvc"))
    subprocess.run([dvc, "init", "--no-scm", "--quiet"], cwd=tmp_path, check=True)
    (tmp_path / "params.yaml").write_text("seed: 1\n")
    (tmp_path / "dvc.yaml").write_text("stages:\n  s:\n    cmd: 'true'\n    params: [seed, votes.kind]\n")
    with pytest.raises(RuntimeError, match=r"(?s)'votes\.kind' are missing.*written out"):
        commit_to_dvc(tmp_path)
