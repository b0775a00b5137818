"""Deployments at a Prefect server: a nightly extension of a workspace, and a weekly audit of its dataset.

A server keeps them and starts their runs at their hours; a process worker of their pool does the work. Docs:
docs/prefect.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import httpx
from prefect import Flow
from prefect.automations import AutomationCore, EventTrigger, Posture, ResourceSpecification, SendNotification
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL
from prefect.utilities.callables import parameter_schema
from prefect.utilities.urls import url_for
from prefect.workers.process import ProcessWorker
from pydantic import ValidationError

from flows.build import build
from flows.stage import slug
from flows.weekly import audit_dataset
from schemas.errors import InputError

__all__ = ["Plan", "deploy", "undeploy"]

POOL_TYPE: Final = ProcessWorker.type
NIL: Final = UUID(int=0)
FAILED: Final = {f"prefect.flow-run.{state}" for state in ("Failed", "Crashed", "TimedOut")}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to run when.

    Attributes:
        pool: the process work pool, made where there is none.
        nightly: when the workspace is extended, as cron says it.
        weekly: when its dataset is audited.
        timezone: of these hours.
        tags: beside those that say what a run is.
        retries: how often a stage that failed is tried again.
        retry_delay_s: the pause before each.
        served_at: where the workspace can be opened in a browser; empty: as files.
        notify: the notification block that is told of runs that fail, as TYPE/NAME; None for none.
    """

    pool: str
    nightly: str
    weekly: str
    timezone: str
    tags: tuple[str, ...] = ()
    retries: int = 2
    retry_delay_s: float = 600.0
    served_at: str = ""
    notify: str | None = None


@dataclass(frozen=True)
class _Kind:
    """One of the deployments."""

    name: str
    flow: Flow[..., Any]
    entrypoint: str
    what: str


KINDS: Final = (
    _Kind("nightly", build, "flows.build.build", "Runs every stage whose inputs have changed."),
    _Kind("weekly", audit_dataset, "flows.weekly.audit_dataset", "Audits the dataset, and keeps the report."),
)


def deploy(root: Path, plan: Plan) -> dict[str, Any]:
    """Write the deployments of a workspace to the Prefect server, or bring them up to date.

    Args:
        root: the workspace, by a path that is the same where the worker runs.
        plan: what is to run when.

    Returns:
        What is there now: `server`, `pool`, `deployments` and `automation`.

    Raises:
        InputError: when no server is named or reached, or the plan cannot be carried out.
        RuntimeError: when the server fails on the way.
    """
    schedules = {
        "nightly": _schedule("--nightly", plan.nightly, plan.timezone),
        "weekly": _schedule("--weekly", plan.weekly, plan.timezone),
    }
    with _server() as client:
        block = _block(client, plan.notify)
        for kind in KINDS:
            _is_ours(client, kind, root)
        made = _pool(client, plan.pool)
        told: list[dict[str, Any]] = []
        for kind in KINDS:
            tags = sorted({"holisafe", kind.name, slug(root), *plan.tags})
            deployment_id = client.create_deployment(
                client.create_flow_from_name(kind.flow.name),
                _name(kind, root),
                schedules=[DeploymentScheduleCreate(schedule=schedules[kind.name])],
                # A second run of a workspace would find it held.
                concurrency_limit=1,
                concurrency_options=ConcurrencyOptions(
                    collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW
                ),
                parameters={
                    "root": str(root),
                    "retries": plan.retries,
                    "retry_delay_s": plan.retry_delay_s,
                    "served_at": plan.served_at,
                },
                description=f"{kind.what} Workspace: `{root}`. Written by `holisafe deploy`.",
                work_pool_name=plan.pool,
                tags=tags,
                # A module, which is installed where the worker runs: nothing is copied there.
                entrypoint=kind.entrypoint,
                parameter_openapi_schema=parameter_schema(kind.flow).model_dump(exclude_unset=True),
                enforce_parameter_schema=True,
            )
            told.append(
                {
                    "name": f"{kind.flow.name}/{_name(kind, root)}",
                    "id": str(deployment_id),
                    "cron": schedules[kind.name].cron,
                    "timezone": schedules[kind.name].timezone,
                    "tags": tags,
                    "url": url_for("deployment", deployment_id),
                }
            )
        automation = _automation(client, root, [one["id"] for one in told], block)
        return {
            "server": str(client.api_url),
            "pool": {"name": plan.pool, "made": made},
            "deployments": told,
            "automation": None if automation is None else {"id": automation, "block": plan.notify},
        }


def undeploy(root: Path) -> list[str]:
    """Take away what `deploy` wrote for a workspace; pool, runs and artifacts stay.

    Returns:
        The names of the deployments that are gone.

    Raises:
        InputError: when no server is named or reached, or a deployment is another workspace's.
        RuntimeError: when the server fails on the way.
    """
    gone = []
    with _server() as client:
        for kind in KINDS:
            if (deployment_id := _is_ours(client, kind, root)) is not None:
                client.delete_deployment(deployment_id)
                gone.append(f"{kind.flow.name}/{_name(kind, root)}")
        _automation(client, root, [], None)
    return gone


@contextmanager
def _server() -> Iterator[SyncPrefectClient]:
    """The client of the server that is named, once it has answered."""
    url = PREFECT_API_URL.value()
    if not url:
        raise InputError(
            "no Prefect server is named: start one by `prefect server start`, and set PREFECT_API_URL to its "
            "address, for instance http://127.0.0.1:4200/api"
        )
    with get_client(sync_client=True) as client:
        if (silent := client.api_healthcheck()) is not None:
            raise InputError(
                f"PREFECT_API_URL: the Prefect server at {url} does not answer ({type(silent).__name__}: "
                f"{silent}); start it by `prefect server start`, or set the address of one that runs"
            )
        try:
            yield client
        except PrefectHTTPStatusError as error:
            status, asked = error.response.status_code, f"{error.request.method} {error.request.url}"
            told = f"{url} answers {status} to {asked}: {error.response.text[:300]}"
            if status in (401, 403):
                raise InputError(f"{told}; set PREFECT_API_AUTH_STRING or PREFECT_API_KEY") from error
            raise RuntimeError(f"{told}; see its log, and run the same command again") from error
        except httpx.HTTPError as error:
            raise RuntimeError(
                f"Prefect's server at {url} was lost ({type(error).__name__}: {error}); see that it runs, "
                "and run the same command again"
            ) from error


def _schedule(option: str, cron: str, timezone: str) -> CronSchedule:
    try:
        return CronSchedule(cron=cron, timezone=timezone)
    except ValidationError as error:
        wrong = error.errors()[0]
        at = "--timezone" if "timezone" in wrong["loc"] else option
        raise InputError(f"{at}: {wrong['input']!r}: {wrong['msg'].removeprefix('Value error, ')}") from error


def _name(kind: _Kind, root: Path) -> str:
    return f"{kind.name}-{slug(root)}"


def _is_ours(client: SyncPrefectClient, kind: _Kind, root: Path) -> Any:
    """The id of a deployment that is there already; None where there is none."""
    name = f"{kind.flow.name}/{_name(kind, root)}"
    try:
        there = client.read_deployment_by_name(name)
    except ObjectNotFound:
        return None
    if (other := there.parameters.get("root")) != str(root):
        raise InputError(f"{name}: is deployed for {other}; give one of the two folders another name")
    return there.id


def _pool(client: SyncPrefectClient, name: str) -> bool:
    """See that there is the pool; say whether it was made."""
    try:
        there = client.read_work_pool(name)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        client.create_work_pool(WorkPoolCreate(name=name, type=POOL_TYPE, base_job_template=template))
        return True
    if there.type != POOL_TYPE:
        raise InputError(
            f"--pool: {name} is a pool of type {there.type}, and a workspace is a folder that a process "
            "worker sees; name a pool of type process, or one that is not there yet"
        )
    return False


def _block(client: SyncPrefectClient, named: str | None) -> Any:
    """The id of a notification block."""
    if named is None:
        return None
    kind, _, name = named.partition("/")
    try:
        if not name:
            raise InputError(f"--notify: {named!r} is no TYPE/NAME, such as slack-webhook/ops")
        found = client.read_block_document_by_name(name, kind)
    except ObjectNotFound as error:
        raise InputError(
            f"--notify: the server has no block {named}; make it on its page Blocks, or in Python "
            "(docs/prefect.md); `prefect block ls` lists those that there are"
        ) from error
    if "notify" not in (found.block_schema.capabilities if found.block_schema else ()):
        raise InputError(f"--notify: {named} is a block that cannot notify; name a notification block")
    return found.id


def _automation(client: SyncPrefectClient, root: Path, deployments: list[str], block: Any) -> str | None:
    """See that the server tells the block of runs that fail; without a block, that it tells nobody.

    The server does it, not the run: so it is told too of a run whose process was killed.
    """
    name = f"holisafe: {slug(root)} failed"
    there = client.read_automations_by_name(name)
    if block is None:
        for old in there:
            client.delete_automation(old.id)
        return None
    page = url_for("flow-run", NIL)
    wanted = AutomationCore(
        name=name,
        description=f"Tells of runs that failed in `{root}`. Written by `holisafe deploy`.",
        trigger=EventTrigger(
            expect=FAILED,
            match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
            match_related=ResourceSpecification(
                {
                    "prefect.resource.role": "deployment",
                    "prefect.resource.id": [f"prefect.deployment.{one}" for one in deployments],
                }
            ),
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[
            SendNotification(
                block_document_id=block,
                subject="{{ flow.name }} of {{ flow_run.name }}: {{ flow_run.state.name }}",
                # Not its filter `ui_url`: a server need not know under which address it is seen.
                body="{{ flow_run.state.message }}\n\n" + str(page).replace(str(NIL), "{{ flow_run.id }}"),
            )
        ],
    )
    if there:
        client.update_automation(there[0].id, wanted)
        return str(there[0].id)
    return str(client.create_automation(wanted))
