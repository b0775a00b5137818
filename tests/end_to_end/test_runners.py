"""One build here, on a Ray and on a Dask cluster, a worker of each killed: the same bytes and calls."""

from __future__ import annotations

import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
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
from tests.s3 import KEYS, Bucket, bucket_of
from tests.scripted import Scripted, scripted

# Three builds, each with processes that have to import everything anew.
pytestmark = [pytest.mark.build, pytest.mark.timeout(1800)]

CLASS = "property_crime"
QUOTA = {"SSS": 6, "SSU": 4, "SUU": 3, "USU": 4, "UUU": 3}
BUCKET = "images"
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

    def run(self, works: Callable[[psutil.Process], bool], **environment: str) -> None:
        """Build, and kill one of those that work while images are curated; no process is left at the end."""
        before = self.server.stats()["requests"]
        log = self.root / "log"
        with log.open("wb") as told:
            build = subprocess.Popen(
                [HOLISAFE, "build"], cwd=self.root, env=os.environ | environment, stdout=told,
                stderr=told, start_new_session=True,
            )  # fmt: skip
        seen: set[psutil.Process] = set()
        try:
            killed = None
            while build.poll() is None:
                time.sleep(0.02 if killed is None else 0.5)
                with suppress(psutil.NoSuchProcess):
                    seen |= set(psutil.Process(build.pid).children(recursive=True))
                if killed is None and (self.root / ".holisafe/partial/curate").exists():
                    killed = next((process for process in seen if is_one(process, works)), None)
                    if killed is not None:
                        killed.kill()
            assert build.returncode == 0, log.read_text()
            assert killed is not None, "no worker was seen at work"
            gone, left = psutil.wait_procs(seen, timeout=20)
            assert not [process for process in left if process.status() != psutil.STATUS_ZOMBIE]
            assert killed in gone or killed.status() == psutil.STATUS_ZOMBIE
        finally:
            for process in (build.pid, *(process.pid for process in seen if process.is_running())):
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            build.wait()
        self.asked = self.server.stats()["requests"] - before

    def made(self) -> dict[str, str]:
        """The hash of every table, and of every file of the dataset."""
        folder = self.root / "data"
        files = [*folder.glob("*/*.parquet"), *(p for p in (folder / "dataset").rglob("*") if p.is_file())]
        return {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(files)
        }

    def calls(self) -> list[tuple[str, str]]:
        return rows(self.root / ".holisafe/calls.sqlite", "SELECT key, stage FROM calls ORDER BY key")

    def embeddings(self) -> list[tuple[Any, ...]]:
        file = self.root / ".holisafe/features/features.sqlite"
        return rows(file, "SELECT image_id, encoder, content, vector FROM features ORDER BY image_id")


def rows(file: Path, select: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(file)
    try:
        return connection.execute(select).fetchall()
    finally:
        connection.close()


def is_one(process: psutil.Process, works: Callable[[psutil.Process], bool]) -> bool:
    try:
        return process.is_running() and works(process)
    except psutil.Error:
        return False


def of_ray(process: psutil.Process) -> bool:
    return " ".join(process.cmdline()).startswith("ray::_called")


def of_python(process: psutil.Process) -> bool:
    return "multiprocessing.spawn" in " ".join(process.cmdline())


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
