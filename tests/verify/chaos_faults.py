"""What can befall a build: the faults of `chaos.py`, and the servers that they kill."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from pipeline.engine import open_cache
from pipeline.engine.cache import Record
from pipeline.stages import STAGES
from tests.conftest import HOLISAFE
from tests.postgres import PostgresServer
from tests.s3 import KEYS, Bucket
from tests.verify.faults import processes

NAMES = list(STAGES)
DISK = "64m"
START_S = 600.0
"""Within which a server starts, on however busy a machine."""
DAY = 86_400
MANY = 1_000_000


class MissedError(Exception):
    """The build had ended before the fault could hit it."""


class LeftOutError(Exception):
    """A fault cannot be made here."""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def command_line(pid: int) -> str:
    """How a process was started; empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def kept_images(root: Path) -> dict[str, bytes]:
    """The images in a workspace that were asked for, by the names they have there."""
    folder = root / ".holisafe" / "blobs"
    found = sorted(path for path in folder.glob("??/*") if not path.name.startswith("."))
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


class Endpoint:
    """The scripted endpoint in a process of its own, on one port however often it is started."""

    def __init__(self, script: Path) -> None:
        """Start it."""
        self._script, self._before = script, 0
        self.port = free_port()
        self.start()

    def start(self) -> None:
        """Start it, and wait until it listens."""
        command = [HOLISAFE, "endpoint", "script", str(self._script), "--port", str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise RuntimeError("the scripted endpoint did not start")

    def requests(self) -> int:
        """How many calls it got, in all of its lives."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/stats") as reply:
            return self._before + int(json.load(reply)["requests"])

    def kill(self) -> None:
        """kill -9."""
        self._before = self.requests()
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()


class PrefectServer:
    """A Prefect server, as `prefect server start` runs it, in one process that all builds share."""

    def __init__(self, home: Path) -> None:
        """Start it."""
        off = {"PREFECT_UI_ENABLED": "0", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        self._environment = os.environ | off | {"PREFECT_HOME": str(home)}
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/api"
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen(
            [
                sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app",
                "--host", "127.0.0.1", "--port", str(self.port), "--log-level", "critical",
            ],
            env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            with suppress(OSError), urllib.request.urlopen(f"{self.url}/health") as reply:  # noqa: S310
                if reply.status == 200:
                    return
            if self._process.poll() is not None:
                raise RuntimeError(f"the Prefect server ended with {self._process.returncode} as it started")
            time.sleep(0.2)
        self.kill()
        raise RuntimeError(f"the Prefect server did not answer within {START_S:.0f} s")

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self._process.wait()

    stop = kill


@dataclass
class Reference:
    """A build that nothing happened to.

    Attributes:
        root: its workspace.
        files: the hash of each file of its dataset.
        images: those that were asked for, by name.
        records: what was answered, by key.
        seconds: that each stage took, and under the name "start" what was not in any.
    """

    root: Path
    files: dict[str, str]
    images: dict[str, bytes]
    records: dict[str, Record]
    seconds: dict[str, float]


class Site:
    """A workspace in which builds meet faults, again and again; it begins as a copy of the reference."""

    def __init__(self, root: Path, reference: Reference, endpoint: Endpoint, prefect: PrefectServer) -> None:
        """Copy it."""
        shutil.copytree(reference.root, root)
        self.root, self.reference, self.endpoint, self.prefect = root, reference, endpoint, prefect
        self.environment = {"PREFECT_API_URL": prefect.url}
        self.calls: Path | str = root / ".holisafe" / "calls.sqlite"
        self.postgres: PostgresServer | None = None
        self.bucket: Bucket | None = None

    def keep_images_in(self, bucket: Bucket) -> None:
        """Keep the images that were asked for in a bucket."""
        self.bucket = bucket
        for name, image in kept_images(self.root).items():
            bucket.client.put_object(Bucket=bucket.name, Key=f"blobs/{name}", Body=image)
        shutil.rmtree(self.root / ".holisafe" / "blobs")
        self.environment |= {"HOLISAFE_BLOBS": f"s3://{bucket.name}/blobs", "AWS_ENDPOINT_URL": bucket.url}
        self.environment |= KEYS

    def images(self) -> dict[str, bytes]:
        """The images that were asked for, by name."""
        if self.bucket is not None:
            return {key.removeprefix("blobs/"): image for key, image in self.bucket.files().items()}
        return kept_images(self.root)

    def use(self, server: PostgresServer) -> None:
        """Keep the answers in a database."""
        self.postgres, self.calls = server, server.url
        self.environment["HOLISAFE_CALLS"] = server.url
        with open_cache(server.url) as cache:
            for record in self.reference.records.values():
                cache.put(record)

    def answered(self) -> int:
        """How many answers are stored; -1 while nobody can say."""
        try:
            if self.postgres is None:
                with closing(sqlite3.connect(f"file:{self.calls}?mode=ro", uri=True, timeout=0.1)) as line:
                    return int(line.execute("SELECT count(*) FROM calls").fetchone()[0])
            import psycopg

            with psycopg.connect(self.postgres.url, connect_timeout=5) as connection:
                row = connection.execute("SELECT count(*) FROM calls").fetchone()
                return int(row[0]) if row else -1
        except Exception:  # noqa: BLE001 - locked, dead, or being made
            return -1

    def keys(self) -> set[str]:
        """The calls that are answered."""
        with open_cache(self.calls) as cache:
            return set(cache.keys())

    def next_stage(self) -> int | None:
        """The first stage that a build would run, by its number; None where all have run."""
        for number, name in enumerate(NAMES):
            if not (self.root / ".holisafe" / "stages" / f"{name}.json").exists():
                return number
        return None

    def expected(self) -> float:
        """The seconds that a build would take now, nothing in its way."""
        number = self.next_stage()
        rest = [] if number is None else NAMES[number:]
        return self.reference.seconds["start"] + sum(self.reference.seconds[name] for name in rest)

    def unmake(self, rng: random.Random, last: str) -> int:
        """Take away what some stage and all after it have made, and some of the answers to what they asked.

        Returns:
            How many answers were taken away.
        """
        names = NAMES[rng.randrange(NAMES.index(last) + 1) :]
        state = self.root / ".holisafe"
        for name in names:
            (state / "stages" / f"{name}.json").unlink(missing_ok=True)
            tables = self.root / "data" / ("dataset" if name == "assemble" else name)
            for folder in (tables, state / "parts" / name):
                shutil.rmtree(folder, ignore_errors=True)
        with open_cache(self.calls) as cache:
            records = self.reference.records
            there = [key for key in cache.keys("") if key in records and records[key].stage in names]
            lost = rng.sample(there, round(rng.uniform(0.3, 0.9) * len(there)))
            if lost:
                cache.delete(lost)
        return len(lost)


class Build:
    """A running `holisafe build`."""

    def __init__(self, site: Site, environment: dict[str, str]) -> None:
        """Start it."""
        self._site = site
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by `end`
        self._began = time.monotonic()
        given = os.environ | site.environment | environment
        self.process = subprocess.Popen(
            [HOLISAFE, "build"], cwd=site.root, env={k: v for k, v in given.items() if v},
            stdout=subprocess.DEVNULL, stderr=self._errors, start_new_session=True,
        )  # fmt: skip

    def until(self, so_far: Callable[[], bool]) -> None:
        """Wait for something to be so.

        Raises:
            MissedError: when the build ends before.
        """
        while not so_far():
            if self.process.poll() is not None:
                raise MissedError
            time.sleep(0.1)

    def until_second(self, seconds: float) -> None:
        """Wait until it has run for so long."""
        self.until(lambda: time.monotonic() - self._began >= seconds)

    def until_answers(self, share: float) -> None:
        """Wait until a share of what has no answer yet is answered."""
        missing = len(self._site.reference.records) - max(0, self._site.answered())
        goal = len(self._site.reference.records) - missing + max(1, round(share * missing))
        self.until(lambda: self._site.answered() >= goal)
        if self.process.poll() is not None:
            raise MissedError

    def workers(self) -> list[int]:
        """The processes that it has given work to."""
        return [pid for pid in processes(self._site.root) if "spawn_main" in command_line(pid)]

    def end(self, limit: float) -> tuple[int | None, list[str]]:
        """Wait for its end: exit code and what it said; None where it did not end in time."""
        code: int | None
        try:
            code = self.process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            code = None
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self._errors.seek(0)
        said = [line.rstrip() for line in self._errors if line.strip()]
        self._errors.close()
        return code, said


@dataclass
class Fault(ABC):
    """Something that happens to a build, once.

    Attributes:
        rng: draws all that is left to chance.
        share: how far the build has come, from 0 to 1.
    """

    rng: random.Random
    share: float = field(init=False)
    name: ClassVar[str]
    setting: ClassVar[str] = "folder"
    last: ClassVar[str] = NAMES[-1]
    """The build begins at this stage or before it."""
    asks: ClassVar[bool] = False
    """It hits calls, so that some must be under way."""
    loses: ClassVar[bool] = False
    """Calls that are under way may be lost, and are then made again."""
    ends: ClassVar[Sequence[int]] = (0,)
    """The exit codes with which the build may end."""
    alone: ClassVar[float] = 0.0
    """How often the build starts a Prefect server of its own, as it does where it is given none: slow."""

    def __post_init__(self) -> None:
        """Draw the point."""
        self.share = round(self.rng.uniform(0.02, 0.95), 2)

    def environment(self, site: Site) -> dict[str, str]:
        """What the build is started with; what is empty is taken away."""
        return {"PREFECT_API_URL": ""} if self.rng.random() < self.alone else {}

    @abstractmethod
    def hit(self, site: Site, build: Build) -> str:
        """Wait for the point, and do it.

        Returns:
            What was done, for the log.

        Raises:
            MissedError: when the build ends before.
        """

    def mend(self, site: Site) -> None:  # noqa: B027 - most have nothing to mend
        """Put right what is outside the build, once it has ended."""


class BuilderKilled(Fault):
    """kill -9 of the build itself, and of nothing else."""

    name, ends, loses, alone = "builder killed", (-signal.SIGKILL,), True, 0.5

    def hit(self, site: Site, build: Build) -> str:
        after = self.share * site.expected()
        build.until_second(after)
        build.process.kill()
        if build.process.wait() != -signal.SIGKILL:
            raise MissedError
        return f"after {after:.1f} s"


class WorkerKilled(Fault):
    """kill -9 of a process that works on images for the build."""

    name, last = "worker killed", "curate"

    def hit(self, site: Site, build: Build) -> str:
        build.until(lambda: bool(build.workers()))
        time.sleep(self.share)  # of a second: they live for a few
        workers = build.workers()
        if not workers:
            raise MissedError
        with suppress(ProcessLookupError):
            os.kill(self.rng.choice(workers), signal.SIGKILL)
        return f"one of {len(workers)}"


class EndpointKilled(Fault):
    """kill -9 of who answers; back in a while, or only when the build has given up."""

    name, last, asks, loses, ends = "model endpoint killed", "label_pairs", True, True, (0, 1)

    def hit(self, site: Site, build: Build) -> str:
        build.until_answers(self.share)
        site.endpoint.kill()
        self._away = self.rng.random() < 0.25
        if self._away:
            return "away until the build had ended"
        pause = self.rng.uniform(0, 6)
        time.sleep(pause)
        site.endpoint.start()
        return f"away for {pause:.1f} s and a start"

    def mend(self, site: Site) -> None:
        if self._away:
            site.endpoint.start()


class PostgresKilled(Fault):
    """kill -9 of the database that keeps the answers, and of all its helpers."""

    name, setting, last = "PostgreSQL killed", "postgres", "label_pairs"
    asks, loses, ends = True, True, (0, 1)

    def hit(self, site: Site, build: Build) -> str:
        assert site.postgres is not None
        build.until_answers(self.share)
        site.postgres.kill()
        self._away = self.rng.random() < 0.5
        if not self._away:
            site.postgres.start()
        return "away until the build had ended" if self._away else "started again at once"

    def mend(self, site: Site) -> None:
        assert site.postgres is not None
        if self._away:
            site.postgres.start()


class PrefectKilled(Fault):
    """kill -9 of the Prefect server that the build reports to."""

    name, ends = "Prefect server killed", (0, 1)

    def hit(self, site: Site, build: Build) -> str:
        after = self.share * site.expected()
        build.until_second(after)
        site.prefect.kill()
        return f"after {after:.1f} s"

    def mend(self, site: Site) -> None:
        site.prefect.start()


class DiskFull(Fault):
    """The file system of the workspace has no byte left."""

    name, setting, loses, ends = "disk full", "disk", True, (1,)
    last = "label_pairs"

    def hit(self, site: Site, build: Build) -> str:
        after = self.share * site.expected()
        build.until_second(after)
        with suppress(OSError), self._ballast(site).open("wb", buffering=0) as file:
            while True:
                file.write(b"\0" * 4096)
        return f"after {after:.1f} s"

    def mend(self, site: Site) -> None:
        self._ballast(site).unlink(missing_ok=True)

    def _ballast(self, site: Site) -> Path:
        return site.root.parent / "ballast"


class ClockJumps(Fault):
    """The wall clock jumps under the running build, and files get times of another day."""

    name, alone = "clock jumps", 0.3

    def environment(self, site: Site) -> dict[str, str]:
        self._file = site.root.parent / "clock"
        self._set(0)
        moved = {"LD_PRELOAD": str(shim(site.root.parent)), "CHAOS_CLOCK": str(self._file)}
        return super().environment(site) | moved

    def hit(self, site: Site, build: Build) -> str:
        after, days = self.share * site.expected(), self.rng.choice([-4000, -30, -1, 1, 30, 4000])
        build.until_second(after)
        self._set(days * DAY + self.rng.randrange(DAY))
        return f"{days:+d} days after {after:.1f} s"

    def mend(self, site: Site) -> None:
        """Back to today, with tables and answers from another day."""
        for path in sorted((site.root / "data").rglob("*")):
            when = time.time() + self.rng.choice([-4000, -1, 1, 4000]) * DAY
            os.utime(path, (when, when))

    def _set(self, seconds: int) -> None:
        # In place: a build maps the file.
        self._file.touch()
        with self._file.open("r+b") as file:
            file.write(struct.pack("q", seconds))


class Locked(Fault):
    """Another process holds the cache's file against all writers."""

    name, last, asks = "SQLite locked", "label_pairs", True

    def hit(self, site: Site, build: Build) -> str:
        build.until_answers(self.share)
        seconds = self.rng.uniform(1, 8)
        with closing(sqlite3.connect(site.calls, timeout=30, isolation_level=None)) as line:
            line.execute("BEGIN EXCLUSIVE")
            time.sleep(seconds)
            line.execute("ROLLBACK")
        return f"for {seconds:.1f} s"


class BucketFails(Fault):
    """The S3 server that keeps images refuses, answers late, or breaks off what it sends."""

    name, setting, last, loses, ends = "S3 fails", "s3", "generate", True, (0, 1)

    def hit(self, site: Site, build: Build) -> str:
        assert site.bucket is not None
        bucket, before = site.bucket, site.bucket.requests
        build.until(lambda: bucket.requests > before)
        how = self.rng.choice(["refuses", "is late", "breaks off"])
        bucket.refuses, bucket.breaks_off = MANY * (how == "refuses"), MANY * (how == "breaks off")
        bucket.late_s = self.rng.uniform(0.1, 0.5) if how == "is late" else 0.0
        hurt = bucket.requests
        build.until(lambda: bucket.requests > hurt)
        if self.rng.random() < 0.5:
            return f"{how} until the build had ended"
        pause = self.rng.uniform(0.5, 6)
        time.sleep(pause)
        bucket.well()
        return f"{how} for {pause:.1f} s"

    def mend(self, site: Site) -> None:
        assert site.bucket is not None
        site.bucket.well()


class SecondBuild(Fault):
    """Somebody starts another build in the same workspace."""

    name = "two builds at once"

    def hit(self, site: Site, build: Build) -> str:
        after, lock = self.share * 0.5 * site.expected(), site.root / ".holisafe" / "lock"
        build.until_second(after)
        build.until(lambda: lock.read_text() == str(build.process.pid))  # else the other may be first
        code, said = Build(site, {}).end(600)
        if code == 0:  # it began when the first one had ended
            raise MissedError
        if code != 2 or "works here" not in (said or [""])[-1]:
            raise AssertionError(f"the second build ended with {code}: {said[-1:]}")
        return f"after {after:.1f} s"


FAULTS: list[type[Fault]] = [
    BuilderKilled,
    WorkerKilled,
    EndpointKilled,
    PostgresKilled,
    PrefectKilled,
    DiskFull,
    ClockJumps,
    Locked,
    BucketFails,
    SecondBuild,
]


def shim(folder: Path) -> Path:
    """The library that moves the clock, compiled.

    Raises:
        LeftOutError: where there is no compiler.
    """
    target = folder / "clock.so"
    if not target.exists():
        compiler = shutil.which("cc")
        if compiler is None or sys.platform != "linux":
            raise LeftOutError("moving the clock takes a C compiler, on Linux")
        source = Path(__file__).with_name("clock.c")
        command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(target), str(source), "-ldl"]
        subprocess.run(command, check=True)
    return target


def small_disk(folder: Path) -> Path:
    """A file system of its own.

    Raises:
        LeftOutError: where it cannot be made.
    """
    if sys.platform != "linux" or os.getuid() != 0:
        raise LeftOutError("a small file system takes root on Linux")
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)], check=False)
    if done.returncode:
        raise LeftOutError("tmpfs cannot be mounted here")
    return folder
