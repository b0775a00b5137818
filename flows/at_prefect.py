"""What a build and Prefect's server are to each other when one of them dies."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer
from typing import Any

__all__ = ["at_prefect", "end_with_this", "termination_is_heard"]

AGAIN_S = 0.1

_watchers: list[subprocess.Popen[bytes]] = []


@contextmanager
def at_prefect() -> Iterator[None]:
    """Call flows in this block: no server that was started for them outlives this process.

    Raises:
        RuntimeError: when the server is lost.
    """
    import httpx
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    if not url:
        _tether()
    try:
        yield
    except httpx.HTTPError as error:
        where = f" at {url}" if url else ""
        raise RuntimeError(
            f"Prefect's server{where} was lost ({type(error).__name__}: {error}). What is done is kept: "
            "see that it runs, or unset PREFECT_API_URL, and run the same command again"
        ) from error


@contextmanager
def termination_is_heard() -> Iterator[None]:
    """See that Prefect's exception for SIGTERM is raised in this block, and not lost in a destructor.

    A signal's handler runs wherever the main thread happens to be. What it raises in a `__del__` Python
    reports and drops, and a run that was cancelled would go on until it is killed. Such a signal is sent
    again.
    """
    from prefect.exceptions import TerminationSignal

    before = sys.unraisablehook

    def hook(lost: sys.UnraisableHookArgs) -> None:
        if isinstance(lost.exc_value, TerminationSignal):
            # By another thread and a little later: here it would be lost once more.
            again = Timer(AGAIN_S, os.kill, (os.getpid(), lost.exc_value.signal))
            again.daemon = True
            again.start()
        else:
            before(lost)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


def end_with_this(pid: int) -> None:
    """Have another process ended when this one is gone, however it goes."""
    # The shell reads until nobody can write to it any more, which is so after kill -9 too. In a session of
    # its own it does not hear Ctrl-C, which we answer in our own time.
    command = ["/bin/sh", "-c", f"read -r _; kill {pid} 2>/dev/null"]
    watcher = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)  # noqa: S603
    _watchers.append(watcher)


def _tether() -> None:
    """See that the server which Prefect starts, where it is given none, ends with this process.

    It ends it at our exit, but kill -9 would leave it behind for good.
    """
    from prefect.server.api.server import SubprocessASGIServer

    class Tethered(SubprocessASGIServer):
        def _run_uvicorn_command(self) -> subprocess.Popen[Any]:
            server = super()._run_uvicorn_command()
            end_with_this(server.pid)
            return server

    Tethered()  # Prefect's clients use the one that there is
