"""A Prefect server, a process worker and what `holisafe deploy` writes there: all of them real."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
import yaml

from benchmarks.rehearsal import digests
from pipeline.stages import STAGES
from tests.conftest import REPOSITORY, holisafe
from tests.end_to_end.test_rehearsal import CLASSES
from tests.end_to_end.test_rehearsal import workspace as rehearsal
from tests.scripted import Scripted, scripted
from tests.serving import serving

# Two minutes in all; more only where the machine has other things to do.
pytestmark = [pytest.mark.real, pytest.mark.build, pytest.mark.timeout(1800)]

T = TypeVar("T")
PREFECT = str(Path(sys.executable).with_name("prefect"))
QUOTA = {"SSS": 4, "SSU": 3, "SUU": 2, "USU": 3, "UUU": 2}
PATIENCE_S = 900
UNUSED = ("SCHEDULER", "LATE_RUNS", "FOREMAN", "CANCELLATION_CLEANUP", "PAUSE_EXPIRATIONS")
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


def wait_for(what: str, look: Callable[[], T | None]) -> T:
    """What `look` gives once it gives something."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if (found := look()) is not None:
            return found
        time.sleep(0.5)
    raise AssertionError(f"{what}: waited {PATIENCE_S} s")


@dataclass
class Prefect:
    """The running server."""

    url: str
    environment: dict[str, str]
    log: Path
    heard: list[dict[str, Any]] = field(default_factory=list)

    def post(self, path: str, **body: Any) -> Any:
        def look() -> httpx.Response | None:
            # On a busy machine its SQLite may be locked for a while, which its clients sit out too.
            reply = httpx.post(f"{self.url}{path}", json=body, timeout=60)
            return None if reply.status_code == httpx.codes.SERVICE_UNAVAILABLE else reply

        reply = wait_for(path, look)
        assert reply.is_success, reply.text
        return reply.json()

    def get(self, path: str) -> Any:
        def look() -> httpx.Response | None:
            reply = httpx.get(f"{self.url}{path}", timeout=60)
            return None if reply.status_code == httpx.codes.SERVICE_UNAVAILABLE else reply

        return wait_for(path, look).raise_for_status().json()

    def deploy(self, root: Path, *options: str) -> dict[str, Any]:
        def look() -> subprocess.CompletedProcess[str] | None:
            command = ("deploy", "--json", "deployed.json", *options)
            done = holisafe(root, *command, check=False, **self.environment)
            return None if "answers 503" in done.stderr else done

        done = wait_for("deploy", look)
        assert done.returncode == 0, done.stderr
        told: dict[str, Any] = json.loads((root / "deployed.json").read_text())
        return told

    def start(self, deployment_id: str) -> str:
        run = self.post(f"/deployments/{deployment_id}/create_flow_run", state={"type": "SCHEDULED"})
        return str(run["id"])

    def ended(self, run_id: str) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            run: dict[str, Any] = self.get(f"/flow_runs/{run_id}")
            return run if run["state"]["type"] in FINAL else None

        return wait_for(f"the end of {run_id}; {self.log}", look)

    def tasks(self, run_id: str) -> dict[str, dict[str, Any]]:
        runs = self.post("/task_runs/filter", flow_runs={"id": {"any_": [run_id]}})
        return {run["name"]: run for run in runs}

    def artifacts(self, run_id: str) -> dict[str, dict[str, Any]]:
        found = self.post("/artifacts/filter", artifacts={"flow_run_id": {"any_": [run_id]}})
        return {one["key"]: one for one in found}

    def said(self, run_id: str) -> str:
        lines = self.post("/logs/filter", logs={"flow_run_id": {"any_": [run_id]}})
        return "\n".join(line["message"] for line in lines)


@contextmanager
def running(command: list[str], log: Path, environment: dict[str, str]) -> Iterator[None]:
    """A process that ends with the block, and with it all that has our home."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            command, env=environment, cwd=log.parent, stdout=out, stderr=out, start_new_session=True
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        # Runs are processes of groups of their own; what has our home in its environment is ours.
        for each in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if f"PREFECT_HOME={log.parent}".encode() in (each / "environ").read_bytes().split(b"\0"):
                    os.kill(int(each.name), signal.SIGKILL)


@contextmanager
def webhook(heard: list[dict[str, Any]]) -> Iterator[str]:
    """The address of a server that notes what it is sent."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with serving(Handler) as address:
        yield f"{address}/told"


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    """A server with a home and a database of its own, and a worker of the pool `holisafe`."""
    home = tmp_path_factory.mktemp("prefect")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # What this process has set for itself is not for a server.
    environment = {name: said for name, said in os.environ.items() if not name.startswith("PREFECT_")} | {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # Nothing starts by itself here, and its SQLite is not kept busy by services that nothing asks for.
        **{f"PREFECT_SERVER_SERVICES_{name}_ENABLED": "false" for name in UNUSED},
        "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")])),
    }
    url = f"http://127.0.0.1:{port}/api"
    known = environment | {
        "PREFECT_API_URL": url,
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_CLIENT_MAX_RETRIES": "20",
    }
    server = [PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    worker = [PREFECT, "worker", "start", "--pool", "holisafe", "--type", "process"]

    def up() -> bool | None:
        try:
            return httpx.get(f"{url}/health", timeout=5).is_success or None
        except httpx.HTTPError:
            return None

    with running(server, home / "server.log", environment):
        wait_for(f"the server; {home / 'server.log'}", up)
        made = Prefect(url, known, home / "worker.log")
        with running(worker, home / "worker.log", known), webhook(made.heard) as told_at:
            program = (
                "from prefect.blocks.notifications import CustomWebhookNotificationBlock as Hook\n"
                f"Hook(name='ops', url={told_at!r}, json_data={{'subject': '{{{{subject}}}}', "
                "'body': '{{body}}'}).save('ops')\n"
            )
            subprocess.run([sys.executable, "-c", program], env=known, check=True)
            yield made


class Endpoint:
    """A scripted endpoint whose answers can be held up."""

    def __init__(self, served: Scripted) -> None:
        self.served, self.wait_s = served, 0.0
        receive = served.server._answerer.receive

        def slowly(*arguments: Any, **named: Any) -> Any:
            return receive(*arguments, **named)._replace(wait_s=self.wait_s)

        served.server._answerer.receive = slowly  # type: ignore[method-assign]

    def requests(self) -> int:
        return int(self.served.stats()["requests"])


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    script = yaml.safe_load((REPOSITORY / "profiles/rehearsal/script.yaml").read_text())
    with scripted(**script) as served:
        yield Endpoint(served)


def workspace(root: Path, endpoint: Endpoint) -> Path:
    rehearsal(root, endpoint.served.base_url)
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["quotas"] |= dict.fromkeys(CLASSES, QUOTA)
    params["generate"]["placeholders"] = [{"classes": CLASSES, "per_class": {"safe": 16, "unsafe": 8}}]
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    return root


def answered(root: Path) -> int:
    """Calls in the cache."""
    with sqlite3.connect(root / ".holisafe" / "calls.sqlite") as connection:
        return int(connection.execute("select count(*) from calls").fetchone()[0])


@dataclass
class Nightly:
    """A workspace that a worker has built."""

    root: Path
    told: dict[str, Any]
    run: dict[str, Any]
    requests: int

    @property
    def run_id(self) -> str:
        return str(self.run["id"])


@pytest.fixture(scope="module")
def nightly(prefect: Prefect, endpoint: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Nightly:
    root = workspace(tmp_path_factory.mktemp("spaces") / "my-dataset", endpoint)
    told = prefect.deploy(
        root, "--tag", "team-a", "--served-at", "http://here/my-dataset", "--notify", "custom-webhook/ops",
        "--retries", "90", "--retry-delay", "2",
    )  # fmt: skip
    run = prefect.ended(prefect.start(told["deployments"][0]["id"]))
    assert run["state"]["type"] == "COMPLETED", prefect.said(run["id"])
    return Nightly(root, told, run, endpoint.requests())


def test_deploy_writes_the_same_however_often(prefect: Prefect, nightly: Nightly) -> None:
    assert [one["name"] for one in nightly.told["deployments"]] == [
        "build/nightly-my-dataset",
        "audit-dataset/weekly-my-dataset",
    ]
    before = prefect.get(f"/deployments/{nightly.told['deployments'][0]['id']}")
    assert [one["schedule"]["cron"] for one in before["schedules"]] == ["0 2 * * *"]
    assert set(before["tags"]) == {"holisafe", "my-dataset", "nightly", "team-a"}
    assert before["parameters"]["root"] == str(nightly.root)
    assert prefect.get("/work_pools/holisafe")["type"] == "process"
    again = prefect.deploy(
        nightly.root, "--nightly", "30 1 * * *", "--timezone", "Europe/Berlin", "--served-at",
        "http://here/my-dataset", "--notify", "custom-webhook/ops", "--retries", "90", "--retry-delay", "2",
    )  # fmt: skip
    assert again["pool"] == {"name": "holisafe", "made": False}
    for key in ("id", "name"):
        assert [one[key] for one in again["deployments"]] == [one[key] for one in nightly.told["deployments"]]
    assert again["automation"] == nightly.told["automation"]
    now = prefect.get(f"/deployments/{again['deployments'][0]['id']}")
    assert [(one["schedule"]["cron"], one["schedule"]["timezone"]) for one in now["schedules"]] == [
        ("30 1 * * *", "Europe/Berlin")
    ]
    assert "team-a" not in now["tags"]
    assert len(prefect.post("/automations/filter")) == 1


def test_a_run_shows_what_an_operator_looks_for(prefect: Prefect, nightly: Nightly) -> None:
    assert nightly.run["name"].startswith("my-dataset 20")
    assert {"holisafe", "my-dataset", "nightly", "team-a"} <= set(nightly.run["tags"])
    tasks = prefect.tasks(nightly.run_id)
    assert tasks.keys() == STAGES.keys()
    assert {run["state"]["type"] for run in tasks.values()} == {"COMPLETED"}
    assert "asks-models" in tasks["label_pairs"]["tags"]
    shown = prefect.artifacts(nightly.run_id)
    assert shown.keys() == {f"my-dataset-{what}" for what in ("pairs", "build", "report", "dataset")}
    pairs = json.loads(shown["my-dataset-pairs"]["data"])
    assert pairs[-1]["category"] == "all"
    assert pairs[-1]["all"] == len(
        json.loads((nightly.root / "data/dataset/holisafe_bench.json").read_text())
    )
    assert "| label_pairs | ran |" in shown["my-dataset-build"]["data"]
    assert "(http://here/my-dataset/data/audit/index.html)" in shown["my-dataset-report"]["data"]
    assert "(http://here/my-dataset/data/dataset/)" in shown["my-dataset-dataset"]["data"]
    assert (nightly.root / "data/audit/index.html").exists()
    assert "image_safe" in prefect.said(nightly.run_id), "progress stands in the log"


def test_the_audit_waits_until_nobody_builds(prefect: Prefect, nightly: Nightly) -> None:
    with (nightly.root / ".holisafe" / "lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run_id = prefect.start(nightly.told["deployments"][1]["id"])

        def again() -> bool | None:
            return any(run["run_count"] > 1 for run in prefect.tasks(run_id).values()) or None

        wait_for("another try", again)
    assert prefect.ended(run_id)["state"]["type"] == "COMPLETED", prefect.said(run_id)
    assert prefect.tasks(run_id)["audit-dataset"]["run_count"] > 1
    shown = prefect.artifacts(run_id)
    assert shown.keys() == {"my-dataset-findings", "my-dataset-weekly-report"}
    assert {row[""] for row in json.loads(shown["my-dataset-findings"]["data"])} <= {"mend", "judge", "fine"}
    assert len(list((nightly.root / "data" / "audits").glob("*/index.html"))) == 1


def test_a_cancelled_run_keeps_what_was_paid_for_and_is_resumed(
    prefect: Prefect, nightly: Nightly, endpoint: Endpoint, tmp_path: Path
) -> None:
    root = workspace(tmp_path / "again", endpoint)
    told = prefect.deploy(root)
    began = endpoint.requests()
    run_id = prefect.start(told["deployments"][0]["id"])
    wait_for("calls", lambda: endpoint.requests() - began > nightly.requests // 4 or None)
    endpoint.wait_s = 2.0
    slow = endpoint.requests()
    wait_for("a call under way", lambda: endpoint.requests() > slow or None)
    prefect.post(f"/flow_runs/{run_id}/set_state", state={"type": "CANCELLING"})
    assert prefect.ended(run_id)["state"]["type"] == "CANCELLED"
    endpoint.wait_s = 0.0
    sent = endpoint.requests() - began
    assert 0 < sent < nightly.requests, "it was cancelled on its way"
    # Those under way at the moment were waited for.
    assert answered(root) == sent
    holisafe(root, "build", **prefect.environment)
    assert digests(root) == digests(nightly.root)
    assert endpoint.requests() - began == nightly.requests, "no call was paid twice"


def test_who_is_named_is_told_of_a_run_that_fails(prefect: Prefect, nightly: Nightly) -> None:
    params = nightly.root / "params.yaml"
    kept = params.read_text()
    params.write_text(kept.replace("seed:", "sede:", 1))
    try:
        run = prefect.ended(prefect.start(nightly.told["deployments"][0]["id"]))
    finally:
        params.write_text(kept)
    assert run["state"]["type"] == "FAILED"
    assert "sede" in run["state"]["message"]
    told = wait_for("a notification", lambda: prefect.heard[0] if prefect.heard else None)
    assert told["subject"] == f"build of {run['name']}: Failed"
    assert "sede" in told["body"]
    assert run["id"] in told["body"]
    assert len(prefect.heard) == 1


def test_what_cannot_be_deployed_is_told_with_the_mend(
    prefect: Prefect, nightly: Nightly, endpoint: Endpoint, tmp_path: Path
) -> None:
    def refused(root: Path, *options: str) -> str:
        done = holisafe(root, "deploy", *options, check=False, **prefect.environment)
        assert done.returncode == 2, done.stderr
        assert done.stderr.count("\n") == 1
        return done.stderr

    assert "the server has no block slack-webhook/ops" in refused(
        nightly.root, "--notify", "slack-webhook/ops"
    )
    prefect.post("/work_pools/", name="other", type="kubernetes")
    assert "--pool: other is a pool of type kubernetes" in refused(nightly.root, "--pool", "other")
    other = workspace(tmp_path / "my-dataset", endpoint)
    assert f"is deployed for {nightly.root}" in refused(other)


def test_deployments_can_be_taken_away(prefect: Prefect, nightly: Nightly) -> None:
    names = [one["name"] for one in nightly.told["deployments"]]
    assert prefect.deploy(nightly.root, "--remove") == {"removed": names}
    assert prefect.post("/automations/filter") == []
    assert prefect.deploy(nightly.root, "--remove") == {"removed": []}
