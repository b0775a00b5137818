"""One build here, on a Ray and on a Dask cluster, a worker of each killed: the same bytes and calls.

Clusters are the build's own, or stand already and are joined by their address, with calls in PostgreSQL and
images on S3.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from pipeline.runner import fresh_stages
from pipeline.stages import STAGES
from pipeline.template import begin
from pipeline.workspace import Workspace
from tests.clips import VIT, save_clip
from tests.conftest import HOLISAFE, REPOSITORY, holisafe
from tests.postgres import PostgresServer
from tests.s3 import KEYS, Bucket, bucket_of
from tests.scripted import Scripted, scripted

# Three builds, each with processes that have to import everything anew.
pytestmark = [pytest.mark.build, pytest.mark.timeout(1800)]

CLASS = "property_crime"
QUOTA = {"SSS": 6, "SSU": 4, "SUU": 3, "USU": 4, "UUU": 3}
BUCKET = "images"
CALLS = "SELECT key, stage FROM calls"
PAINTED = {
    "kind": "images_api", "name": "painted", "endpoint": "writer", "size": [64, 64], "licence": "CC0-1.0",
    "redistributable": "yes", "per_class": {"safe": 3, "unsafe": 0},
}  # fmt: skip
ENCODER = {
    "kind": "open_clip", "arch": "small-vit.json", "checkpoint": "small-vit.pt", "family": "small",
    "temperature": 0.05, "offset": 0.0, "batch": 4,
}  # fmt: skip


class Build:
    """A workspace that is built once, and how often that asked the endpoint."""

    def __init__(self, root: Path, server: Scripted, **execution: Any) -> None:
        self.root, self.server, self.asked = root, server, 0
        begin(root, "rehearsal")
        (root / "profiles/rehearsal/script.yaml").write_text(server.script.model_dump_json())
        text = (root / "params.yaml").read_text()
        params = yaml.safe_load(text.replace("http://127.0.0.1:8765/v1", server.base_url))
        params |= {"quotas": {CLASS: QUOTA}, "only_classes": [CLASS], "encoder": ENCODER}
        params["generate"] |= {
            "placeholders": [{"classes": [CLASS], "per_class": {"safe": 20, "unsafe": 12}}],
            "drawings": {"safe": 3, "unsafe": 0},
            "pictures": [PAINTED],
        }
        # Embeddings and the text on images are asked for, and decide nothing.
        params["curate"] |= {"signals": ["text"], "leak_cosine": 1.0}
        params["execution"] = execution
        (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
        save_clip(root, "small-vit", VIT)

    def begun(self, **environment: str) -> subprocess.Popen[bytes]:
        with (self.root / "log").open("wb") as told:
            return subprocess.Popen(
                [HOLISAFE, "build"], cwd=self.root, env=os.environ | environment, stdout=told,
                stderr=told, start_new_session=True,
            )  # fmt: skip

    def at_work(
        self, works: Callable[[psutil.Process], bool], among: Iterable[psutil.Process]
    ) -> psutil.Process | None:
        """One of these that works while images are curated."""
        if not (self.root / ".holisafe/partial/curate").exists():
            return None
        return next((process for process in among if is_one(process, works)), None)

    def stopped(self, works: Callable[[psutil.Process], bool], cluster: Cluster, **environment: str) -> None:
        """Begin to build on a cluster that stands already, and press Ctrl-C when it works."""
        before = self.server.stats()["requests"]
        build = self.begun(**environment)
        try:
            while self.at_work(works, cluster.processes()) is None:
                assert build.poll() is None, (self.root / "log").read_text()
                time.sleep(0.02)
            build.send_signal(signal.SIGINT)
            build.wait(60)
            assert "stopped; what was answered is kept" in (self.root / "log").read_text()
        finally:
            build.kill()
            build.wait()
        self.asked += self.server.stats()["requests"] - before

    def run(
        self,
        works: Callable[[psutil.Process], bool],
        cluster: Cluster | None = None,
        **environment: str,
    ) -> None:
        """Build, and kill one of those that work while images are curated; no process is left at the end.

        Workers are the build's own, or those of a cluster that stands already.
        """
        # Of a build that was stopped: it would look as if curate were under way already.
        shutil.rmtree(self.root / ".holisafe/partial", ignore_errors=True)
        before = self.server.stats()["requests"]
        build = self.begun(**environment)
        seen: set[psutil.Process] = set()
        try:
            killed = None
            while build.poll() is None:
                time.sleep(0.02 if killed is None else 0.5)
                with suppress(psutil.NoSuchProcess):
                    seen |= set(psutil.Process(build.pid).children(recursive=True))
                if killed is None:
                    killed = self.at_work(works, cluster.processes() if cluster else seen)
                    if killed is not None:
                        killed.kill()
            assert build.returncode == 0, (self.root / "log").read_text()
            assert killed is not None, "no worker was seen at work"
            _, left = psutil.wait_procs(seen | {killed}, timeout=20)
            assert not [process for process in left if process.status() != psutil.STATUS_ZOMBIE]
        finally:
            for process in (build.pid, *(process.pid for process in seen if process.is_running())):
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            build.wait()
        self.asked += self.server.stats()["requests"] - before

    def made(self) -> dict[str, str]:
        """The hash of every table, and of every file of the dataset."""
        folder = self.root / "data"
        files = [*folder.glob("*/*.parquet"), *(p for p in (folder / "dataset").rglob("*") if p.is_file())]
        return {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(files)
        }

    def calls(self) -> list[tuple[str, str]]:
        return sorted(rows(self.root / ".holisafe/calls.sqlite", CALLS))

    def embeddings(self) -> list[tuple[Any, ...]]:
        file = self.root / ".holisafe/features/features.sqlite"
        return rows(file, "SELECT image_id, encoder, content, vector FROM features ORDER BY image_id")


def rows(file: Path, select: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(file)
    try:
        return connection.execute(select).fetchall()
    finally:
        connection.close()


class Cluster:
    """Programs that an operator starts by hand, one after the other, on ports of 127.0.0.1."""

    def __init__(self, home: Path) -> None:
        self._home, self._programs = home, list[psutil.Popen]()
        # Ray asks for a token where `ray start` finds one; whoever else joins is told to show it.
        self.token = home / "token"
        self.token.write_text(secrets.token_hex(32))
        self._environment = os.environ | {
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token),
        }

    def start(self, *command: str, says: str) -> None:
        """Start one, and wait until it says that it runs."""
        log = self._home / f"{len(self._programs)}.log"
        with log.open("wb") as told:
            program = psutil.Popen(
                [Path(sys.executable).with_name(command[0]), *command[1:]], cwd=self._home, stdout=told,
                stderr=told, env=self._environment, start_new_session=True,
            )  # fmt: skip
        self._programs.append(program)
        while says not in log.read_text():
            assert program.poll() is None, log.read_text()
            time.sleep(0.1)

    def processes(self) -> list[psutil.Process]:
        """All processes of all of them."""
        found = []
        for program in self._programs:
            with suppress(psutil.NoSuchProcess):
                found += program.children(recursive=True)
        return found

    def end(self) -> None:
        """Kill them."""
        for process in [*self._programs, *self.processes()]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for program in self._programs:
            program.wait()


@contextmanager
def cluster_of(name: str) -> Iterator[tuple[Cluster, str]]:
    """Two machines' worth of Ray or Dask, on this one, and the address of it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{free.getsockname()[1]}"
    port = place.partition(":")[2]
    # Ray puts sockets there, whose paths may not be long.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        cluster = Cluster(Path(home))
        try:
            if name == "ray":
                node = ("ray", "start", "--num-cpus", "1", "--block")
                head = ("--head", "--port", port, "--include-dashboard=false", "--temp-dir", home)
                cluster.start(*node, *head, says="Ray runtime started")
                cluster.start(*node, "--address", place, says="Ray runtime started")
            else:
                place = f"tcp://{place}"
                quiet = ("--dashboard-address", "127.0.0.1:0")
                cluster.start(
                    "dask", "scheduler", "--host", "127.0.0.1", "--port", port, *quiet, says="Scheduler at"
                )
                for _ in range(2):
                    worker = ("dask", "worker", place, "--nthreads", "1", *quiet)
                    cluster.start(*worker, says="Registered to")
            yield cluster, place
        finally:
            cluster.end()


def is_one(process: psutil.Process, works: Callable[[psutil.Process], bool]) -> bool:
    try:
        return process.is_running() and works(process)
    except psutil.Error:
        return False


def of_ray(process: psutil.Process) -> bool:
    return " ".join(process.cmdline()).startswith("ray::_called")


def of_python(process: psutil.Process) -> bool:
    return "multiprocessing.spawn" in " ".join(process.cmdline())


def busy(process: psutil.Process) -> bool:
    """Dask's workers are there before they work."""
    return of_python(process) and process.cpu_percent(0.05) > 30


@pytest.fixture(scope="module")
def server() -> Iterator[Scripted]:
    script = yaml.safe_load((REPOSITORY / "profiles/rehearsal/script.yaml").read_text())
    # What is no card is found to be what it was not meant for, and goes no further.
    script["answers"].append(
        {"match": "Picture: ", "answer": "unsafe", "logprobs": {"unsafe": -0.05, "safe": -3.0}}
    )
    with scripted(**script) as served:
        yield served


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, server: Scripted) -> Build:
    """Built by this machine's own processes, of which one is killed too."""
    build = Build(tmp_path_factory.mktemp("here"), server, runner="threads", workers=2)
    build.run(of_python)
    return build


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with bucket_of(BUCKET) as made:
        yield made


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    running = PostgresServer(tmp_path_factory.mktemp("postgres"))
    yield running
    running.stop()


def same(build: Build, here: Build) -> None:
    assert build.made() == here.made()
    assert build.calls() == here.calls()
    assert build.asked == here.asked
    assert build.embeddings() == here.embeddings()


def test_here_everything_was_made_that_runners_do(here: Build) -> None:
    made = here.made()
    assert [name for name in made if name.startswith("dataset/data/") and f"/{CLASS}/" in name]
    assert len(here.embeddings()) == 20 + 12 + 3 + 3
    assert len(list((here.root / ".holisafe/blobs").glob("??/*"))) == 3
    assert here.calls()


def test_who_works_is_in_no_stage_key(here: Build) -> None:
    path = here.root / "params.yaml"
    before = path.read_text()
    params = yaml.safe_load(before)
    params["execution"] = {"runner": "ray", "address": "auto", "workers": 40, "gpus_per_worker": 0.25}
    path.write_text(yaml.safe_dump(params, sort_keys=False))
    try:
        assert fresh_stages(Workspace(here.root)) == STAGES.keys()
    finally:
        path.write_text(before)


@pytest.mark.skipif(sys.platform != "linux", reason="processes are told by /proc")
def test_on_ray_with_a_worker_killed_the_bytes_and_the_calls_are_the_same(
    here: Build, server: Scripted, tmp_path: Path
) -> None:
    build = Build(tmp_path / "ray", server, runner="ray", workers=2)
    build.run(of_ray)
    same(build, here)


def test_on_dask_with_a_worker_killed_and_images_on_s3_the_bytes_and_the_calls_are_the_same(
    here: Build, server: Scripted, bucket: Bucket, tmp_path: Path
) -> None:
    place = {"HOLISAFE_BLOBS": f"s3://{BUCKET}/blobs", "AWS_ENDPOINT_URL": bucket.url, **KEYS}
    build = Build(tmp_path / "dask", server, runner="dask", workers=2)
    build.run(of_python, **place)
    same(build, here)
    assert not (build.root / ".holisafe/blobs").exists()
    folder = here.root / ".holisafe/blobs"
    kept = {f"blobs/{p.relative_to(folder)}": p.read_bytes() for p in folder.glob("??/*")}
    assert bucket.files() == kept

    refused = holisafe(build.root, "calls", "gc", "--yes", check=False, **place)
    assert refused.returncode == 2
    assert "others share these images" in refused.stderr
    assert bucket.files() == kept


@pytest.mark.skipif(sys.platform != "linux", reason="processes are told by /proc")
@pytest.mark.parametrize("name", ["ray", "dask"])
def test_on_a_cluster_that_stands_with_ctrl_c_calls_in_postgresql_and_images_on_s3(
    here: Build, server: Scripted, postgres: PostgresServer, tmp_path: Path, name: str
) -> None:
    import psycopg

    works = of_ray if name == "ray" else busy
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
    calls = postgres.url.removesuffix("/postgres") + f"/{name}"
    with bucket_of("shared") as bucket, cluster_of(name) as (cluster, address):
        blobs = {"HOLISAFE_BLOBS": "s3://shared/blobs", "AWS_ENDPOINT_URL": bucket.url}
        place = {"HOLISAFE_CALLS": calls, **blobs, **KEYS}
        place["RAY_AUTH_TOKEN_PATH"] = str(cluster.token)
        build = Build(tmp_path / "there", server, runner=name, address=address, workers=2)
        build.stopped(works, cluster, **place)
        build.run(works, cluster, **place)
        assert cluster.processes()  # it is not the build's to end
        assert len(bucket.files()) == 3
    assert build.made() == here.made()
    assert build.asked == here.asked
    assert build.embeddings() == here.embeddings()
    with psycopg.connect(calls) as connection:
        assert sorted(connection.execute(CALLS).fetchall()) == here.calls()
    assert not (build.root / ".holisafe/calls.sqlite").exists()
    assert not (build.root / ".holisafe/blobs").exists()
