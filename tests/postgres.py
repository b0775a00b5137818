"""A PostgreSQL server of a test's own."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest


def _program(name: str) -> str | None:
    """A program of PostgreSQL: Debian keeps them outside PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(found[-1]) if found else None)


class PostgresServer:
    """One cluster in a folder, on a free port of 127.0.0.1, with a password."""

    def __init__(self, folder: Path) -> None:
        initdb, postgres = _program("initdb"), _program("postgres")
        if initdb is None or postgres is None:
            if os.environ.get("HOLISAFE_REQUIRE_ALL"):
                raise AssertionError("no PostgreSQL, and here nothing may be skipped")
            pytest.skip("no PostgreSQL here; `apt-get install postgresql` brings it")
        self._postgres = postgres
        self.folder = folder / "cluster"
        self.password = secrets.token_hex(12)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        # PostgreSQL does not run as root.
        self._user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        secret = folder / "password"
        secret.write_text(self.password)
        if self._user:
            for path in [folder, *folder.parents]:
                if path != Path("/tmp") and path.owner() == "root" and path.is_relative_to("/tmp"):  # noqa: S108
                    path.chmod(0o755)
            for path in (folder, secret):
                shutil.chown(path, "postgres", "postgres")
        command = [
            initdb,
            "-D",
            str(self.folder),
            "-U",
            "tester",
            "-A",
            "scram-sha-256",
            f"--pwfile={secret}",
        ]
        subprocess.run([*self._user, *command], check=True, capture_output=True, cwd=folder)
        self.url = f"postgresql://tester:{self.password}@127.0.0.1:{self.port}/postgres"
        self.start()

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        log = (self.folder.parent / "log").open("ab")
        options = ["-D", str(self.folder), "-p", str(self.port), "-h", "127.0.0.1", "-k", str(self.folder)]
        self._process = subprocess.Popen(
            [*self._user, self._postgres, *options], stdout=log, stderr=log, cwd=self.folder.parent
        )
        log.close()
        ready = _program("pg_isready")
        assert ready is not None
        for _ in range(200):
            asked = subprocess.run([ready, "-q", "-h", "127.0.0.1", "-p", str(self.port)], check=False)
            if asked.returncode == 0:
                return
            assert self._process.poll() is None, (self.folder.parent / "log").read_text()
            time.sleep(0.1)
        raise AssertionError("PostgreSQL did not start")

    def pid(self) -> int:
        """The server's own process."""
        return int((self.folder / "postmaster.pid").read_text().splitlines()[0])

    def kill(self) -> None:
        """kill -9 of it and of all its helpers."""
        pid = self.pid()
        children = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
        for each in (pid, *map(int, children.stdout.split())):
            with suppress(ProcessLookupError):  # it saw the server die
                os.kill(each, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """Stop it, if it runs."""
        if self._process.poll() is None:
            os.kill(self.pid(), signal.SIGINT)
            self._process.wait()
