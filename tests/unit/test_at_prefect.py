"""Neither a build nor Prefect's server takes the other along into the unknown."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from prefect.exceptions import TerminationSignal
from prefect.server.api.server import SubprocessASGIServer
from prefect.utilities.engine import capture_sigterm

from flows.at_prefect import at_prefect, termination_is_heard
from tests.conftest import REPOSITORY

KILLED = """
import os, subprocess, sys
from prefect.server.api.server import SubprocessASGIServer
from flows.at_prefect import at_prefect

def slow(self):
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])

SubprocessASGIServer._run_uvicorn_command = slow
with at_prefect():
    print(SubprocessASGIServer()._run_uvicorn_command().pid, flush=True)
    os.kill(os.getpid(), 9)
"""


def test_the_server_of_a_build_that_is_killed_ends() -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == -9, done.stderr
    server = Path("/proc") / done.stdout.strip()
    deadline = time.monotonic() + 20
    while server.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not server.exists()


def test_a_server_that_is_lost_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SubprocessASGIServer, "_instances", {})
    with pytest.raises(RuntimeError, match=r"server was lost \(ConnectError: refused\)"), at_prefect():
        raise httpx.ConnectError("refused")


class Dying:
    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_termination_that_a_destructor_swallows_is_heard_all_the_same() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # which Prefect gives it to at the end

    def run() -> None:
        with capture_sigterm(), termination_is_heard():
            Dying()
            time.sleep(20)

    try:
        with pytest.raises(TerminationSignal):
            run()
    finally:
        signal.signal(signal.SIGTERM, before)
