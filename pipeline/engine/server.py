"""The embedded model server: llama.cpp in a process of its own, which may crash without us."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from filelock import FileLock

from pipeline.engine.endpoint import Connection, ServerDiedError, Terms

__all__ = ["LlamaServer"]

TURN = Path(tempfile.gettempdir()) / f"holisafe-llama-{os.getuid()}.lock"
"""One local server computes at a time, whoever started it."""


class LlamaServer:
    """llama.cpp's OpenAI-compatible server on this machine, started when it is first needed.

    It listens on 127.0.0.1 on a free port with a random key, has one slot, and ends with this process
    whichever way that ends. Servers of several processes take turns: a second one starts when the first
    ends. Use it as a context manager, or call `close`.
    """

    terms = Terms(concurrency=1, image_tokens=0)

    def __init__(
        self,
        weights: Path,
        sha256: str,
        *,
        log: Path,
        threads: int = 2,
        ctx_size: int = 4096,
        gpu_layers: int = 0,
        start_timeout_s: float = 300.0,
    ) -> None:
        """Take note of what to run; nothing starts yet.

        Args:
            weights: a GGUF file, whose hash was checked by who located it.
            sha256: its hash; the backend id, so that answers belong to the weights.
            log: the file that gets llama.cpp's log, appended.
            threads: computing threads. More than there are cores is many times slower.
            ctx_size: tokens of prompt and answer together.
            gpu_layers: layers on a GPU, where llama.cpp was built for one.
            start_timeout_s: how long loading may take.
        """
        self.backend_id = f"sha256:{sha256}"
        self._weights = weights
        self._log = log
        self._settings = {"threads": threads, "ctx_size": ctx_size, "gpu_layers": gpu_layers}
        self._start_timeout_s = start_timeout_s
        self._lock = threading.Lock()
        self._turn = FileLock(TURN, thread_local=False)
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    @property
    def base_url(self) -> str:
        """The URL, started if need be."""
        return self.start().base_url

    @property
    def api_key(self) -> str:
        """The random key, started if need be."""
        return self.start().api_key

    @property
    def pid(self) -> int | None:
        """The server's process, while there is one."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> Connection:
        """Start it if it does not run yet, and wait until the weights are loaded.

        Raises:
            ServerDiedError: when it ended, now or earlier. It is not started twice: a crash would repeat.
        """
        with self._lock:
            self.check()
            if self._connection is None:
                self._connection = self._start()
            return self._connection

    def check(self) -> None:
        """Raise ServerDiedError if the process has ended."""
        if self._process is not None and self._process.poll() is not None:
            raise self._died("has died")

    def close(self) -> None:
        """End it. What it was computing is lost; what was answered is not."""
        with self._lock:
            process, self._process, self._connection = self._process, None, None
            if process is None:
                return
            _end(process)
            self._turn.release()

    def __enter__(self) -> Self:
        """Nothing starts yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the server."""
        self.close()

    def _start(self) -> Connection:
        # Waits while another process computes: two on the same cores are ten times slower, not twice.
        self._turn.acquire()
        try:
            return self._launch()
        except BaseException:
            self._turn.release()
            raise

    def _launch(self) -> Connection:
        key = secrets.token_urlsafe(32)
        config = {"weights": str(self._weights), "api_key": key, **self._settings}
        self._log.parent.mkdir(parents=True, exist_ok=True)
        ready, ready_child = os.pipe()
        try:
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(  # noqa: S603 - our own module, and no secret in argv
                    [sys.executable, "-m", "pipeline.engine._llama_child", str(ready_child)],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    pass_fds=[ready_child],
                    env=_environment(),
                    # Ctrl-C is for us to handle: the server must live until the last answer is in.
                    start_new_session=True,
                )
            os.close(ready_child)
            ready_child = -1
            self._tell(json.dumps(config).encode() + b"\n")
            address = self._wait(ready)
        except BaseException:
            if self._process is not None:
                _end(self._process)
            raise
        finally:
            os.close(ready)
            if ready_child != -1:
                os.close(ready_child)
        return Connection(f"{address}/v1", key)

    def _tell(self, line: bytes) -> None:
        assert self._process is not None  # noqa: S101 - started by the caller
        assert self._process.stdin is not None  # noqa: S101 - opened with PIPE
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except BrokenPipeError as error:
            self._process.wait()
            raise self._died("did not start") from error

    def _wait(self, ready: int) -> str:
        assert self._process is not None  # noqa: S101 - started by the caller
        deadline = time.monotonic() + self._start_timeout_s
        received = b""
        while not received.endswith(b"\n"):
            readable, _, _ = select.select([ready], [], [], max(0.0, deadline - time.monotonic()))
            if not readable:
                raise ServerDiedError(
                    f"the model server was not ready after loading {self._weights.name} for "
                    f"{self._start_timeout_s:.0f} s and was stopped; see {self._log}, or give it more time "
                    "(start_timeout_s)"
                )
            chunk = os.read(ready, 4096)
            if not chunk:
                self._process.wait()
                raise self._died("did not start")
            received += chunk
        return str(json.loads(received)["address"])

    def _died(self, what: str) -> ServerDiedError:
        code = self._process.returncode if self._process else None
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        return ServerDiedError(
            f"the model server ({self._weights.name}) {what} ({how}); its log is {self._log}. "
            "What was answered is kept: run the same command again to go on. Signal 9 usually means that "
            "memory ran out: use the smaller model or a smaller ctx_size"
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    # The end of its stdin is its order to leave; a process that does not obey is killed.
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):  # it is gone already
            process.stdin.close()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _environment() -> Mapping[str, str]:
    # The child must find this package wherever we were imported from.
    root = str(Path(__file__).resolve().parents[2])
    path = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        "PYTHONPATH": f"{root}{os.pathsep}{path}" if path else root,
        "PYTHONUNBUFFERED": "1",
    }
