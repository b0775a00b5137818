"""Where a build's heavy work runs: the cores of this machine, a Ray cluster or a Dask cluster.

By the clients of Ray and Dask themselves and not by Prefect's task runners, which start a Prefect server in
each worker. A cluster is joined, or started, when there is first something for it to do.

What both do here is the same. Some chunks of items are under way, their results come in order, and what a
worker raises is raised here. Where a worker dies, the items of its chunk are done again one by one, with
nothing else under way, so that it shows which of them it was; one whose workers die again and again is
given up, and told as `WorkerDied`.
"""

from __future__ import annotations

import logging
import os
import platform
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pipeline.extras import needs
from pipeline.parallel import Here, WorkerDied, given_to, usable_cores
from schemas.errors import InputError
from schemas.params import Execution

__all__ = ["DiedError", "OnCluster", "workers_of"]

T = TypeVar("T")
R = TypeVar("R")

ATTEMPTS = 2
"""How often an item is tried alone, after a worker has died on its chunk."""
ALIKE = (
    "holisafe-pipeline",
    "diffusers",
    "faker",
    "numpy",
    "onnxruntime",
    "open_clip_torch",
    "pillow",
    "rapidocr",
    "torch",
)
"""Packages that decide bytes and numbers: workers have the versions that are here."""

_one_at_a_time = threading.Lock()


@contextmanager
def workers_of(said: Execution) -> Iterator[None]:
    """In this block heavy work is done by those that params name; a cluster that was started ends with it.

    Raises:
        InputError: when the package of the cluster is not installed.
    """
    if said.runner == "threads":
        with given_to(Here(said.workers)):
            yield
        return
    needs("ray" if said.runner == "ray" else "distributed")
    workers = OnCluster(
        lambda: (_Ray if said.runner == "ray" else _Dask)(said.address, said.workers),
        said.workers,
        said.gpus_per_worker,
    )
    try:
        with given_to(workers):
            yield
    finally:
        workers.close()


class DiedError(Exception):
    """The worker that had a chunk is gone, and its results with it."""


class Cluster(Protocol):
    """What is needed of a cluster; a future is whatever it gives for work that is under way."""

    def cores(self) -> int:
        """How many workers, each with a core, there can be at the same time."""

    def has_gpu(self, share: float) -> bool:
        """Whether some worker has so much of a GPU."""

    def submit(self, gpus: float, function: Callable[..., R], *arguments: object) -> Any:
        """Have a function called once, by a worker that has so many GPUs."""

    def running(self, futures: Sequence[Any]) -> list[Any]:
        """Those of the futures that are not done."""

    def wait(self, futures: Sequence[Any]) -> None:
        """Wait until one of the futures, which are at least one, is done."""

    def result(self, future: Any) -> Any:
        """What the function gave; an exception of the function is raised.

        Raises:
            DiedError: when the worker has died.
            RuntimeError: when the cluster is lost.
        """

    def cancel(self, futures: Sequence[Any]) -> None:
        """Nobody waits for these any more."""

    def close(self) -> None:
        """Leave the cluster, or end it where it was started here."""


class OnCluster:
    """Workers of a cluster."""

    elsewhere = True

    def __init__(self, join: Callable[[], Cluster], workers: int | None, gpus: float) -> None:
        """Say which cluster; it is joined when there is something to do.

        Args:
            join: joins it, or starts it.
            workers: how many chunks are worked on at the same time; by default as many as it has cores.
            gpus: the share of a GPU that a worker gets where one is needed.
        """
        self._join, self._workers, self._gpus = join, workers, gpus
        self._joined: Cluster | None = None

    def run(
        self, function: Callable[[T], R], items: Iterable[T], *, chunk: int, gpu: bool
    ) -> Iterator[tuple[T, R | WorkerDied]]:
        """Give each item with its result, as `pipeline.parallel.Workers` says.

        Raises:
            InputError: when the cluster has no GPU and one is needed, or its workers are not like this one.
            RuntimeError: when it is lost.
        """
        if self._joined is None:
            self._joined = self._join()
        cluster = self._joined
        gpus = self._gpus if gpu else 0.0
        if gpus and not cluster.has_gpu(gpus):
            raise InputError(
                f"execution.gpus_per_worker: no worker of the cluster has {gpus:g} GPU; start workers that "
                "have (docs/runners.md), or set the device in params to cpu"
            )
        most = self._workers or cluster.cores()
        under_way: deque[tuple[list[T], Any]] = deque()
        rest = iter(items)
        try:
            for some in iter(lambda: list(islice(rest, chunk)), []):
                under_way.append((some, cluster.submit(gpus, _each, function, some, _versions())))
                # So many are worked on, and as many more may be done and wait for their turn to be given.
                while len(running := cluster.running([f for _, f in under_way])) >= most or (
                    len(under_way) >= 2 * most
                ):
                    if under_way[0][1] in running and len(under_way) < 2 * most:
                        cluster.wait(running)
                    else:
                        yield from self._first(cluster, under_way, function, gpus)
            while under_way:
                yield from self._first(cluster, under_way, function, gpus)
        finally:
            if self._joined is cluster:  # else it has been left, and would be started again
                cluster.cancel([future for _, future in under_way])

    def _first(
        self,
        cluster: Cluster,
        under_way: deque[tuple[list[T], Any]],
        function: Callable[[T], R],
        gpus: float,
    ) -> Iterator[tuple[T, R | WorkerDied]]:
        some, future = under_way.popleft()
        results: Sequence[R | WorkerDied]
        try:
            results = cluster.result(future)
        except DiedError:
            # Alone on the cluster, so that no other item is taken for the one that kills.
            while running := cluster.running([other for _, other in under_way]):
                cluster.wait(running)
            results = [self._alone(cluster, function, item, gpus) for item in some]
        yield from zip(some, results, strict=True)

    def _alone(self, cluster: Cluster, function: Callable[[T], R], item: T, gpus: float) -> R | WorkerDied:
        for _ in range(ATTEMPTS):
            future = cluster.submit(gpus, _each, function, [item], _versions())
            try:
                result: R = cluster.result(future)[0]
            except DiedError:
                continue
            except BaseException:
                cluster.cancel([future])
                raise
            return result
        return WorkerDied()

    def close(self) -> None:
        """Leave the cluster."""
        if self._joined is not None:
            self._joined.close()
            self._joined = None


@cache
def _versions() -> Mapping[str, str]:
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in ALIKE:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _each(function: Callable[[T], R], some: list[T], versions: Mapping[str, str]) -> list[R]:
    """What a worker does with a chunk.

    Raises:
        InputError: when it has other versions than those that sent it.
    """
    here = _versions()
    if here != versions:
        name = sorted(n for n in here.keys() | versions.keys() if here.get(n) != versions.get(n))[0]
        raise InputError(
            f"a worker on {platform.node()} has {name} {here.get(name, 'not at all')}, and this machine "
            f"{versions.get(name, 'not at all')}; install the same versions, or the bytes will differ"
        )
    # A worker may have several threads; networks that are loaded once in it know of none.
    with _one_at_a_time:
        return [function(item) for item in some]


class _Ray:
    def __init__(self, address: str | None, workers: int | None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if address is not None and _has_token():
            # Ray shows its token only if told to; a cluster that asks for none takes it all the same.
            os.environ.setdefault("RAY_AUTH_MODE", "token")
        import ray

        self._ray: Any = ray
        # Else it puts the workers of a machine behind everything else that runs there.
        os.environ.setdefault("RAY_worker_niceness", "0")
        own: dict[str, Any] = {"num_cpus": workers or usable_cores(), "include_dashboard": False}
        before = signal.getsignal(signal.SIGTERM)
        self._ray.init(
            address=address or "local",
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            **(own if address is None else {}),
        )
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # Ray's own would leave paid answers behind
        self._functions: dict[float, Any] = {}

    def cores(self) -> int:
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def has_gpu(self, share: float) -> bool:
        return any(node["Resources"].get("GPU", 0) >= share for node in self._ray.nodes() if node["Alive"])

    def submit(self, gpus: float, function: Callable[..., R], *arguments: object) -> Any:
        if gpus not in self._functions:
            # Died workers are our own business. With a GPU Ray would end a worker after each call, and
            # have the network loaded again.
            how = self._ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0, max_calls=0)
            self._functions[gpus] = how(_called)
        return self._functions[gpus].remote(function, *arguments)

    def running(self, futures: Sequence[Any]) -> list[Any]:
        if not futures:
            return []
        _, waiting = self._ray.wait(list(futures), num_returns=len(futures), timeout=0, fetch_local=False)
        return list(waiting)

    def wait(self, futures: Sequence[Any]) -> None:
        self._ray.wait(list(futures), num_returns=1, fetch_local=False)

    def result(self, future: Any) -> Any:
        from ray import exceptions as untyped

        errors: Any = untyped
        try:
            return self._ray.get(future)
        except errors.RayTaskError as error:
            raise error.cause from error
        except (
            errors.WorkerCrashedError,
            errors.NodeDiedError,
            errors.ObjectLostError,
            errors.OutOfMemoryError,
        ) as error:
            raise DiedError from error
        except errors.RayError as error:
            raise RuntimeError(_lost("Ray", error)) from error

    def cancel(self, futures: Sequence[Any]) -> None:
        for future in futures:
            self._ray.cancel(future, force=True)

    def close(self) -> None:
        self._ray.shutdown()


def _has_token() -> bool:
    """Whether there is a token for clusters of Ray, where it looks for one."""
    given = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return bool(given) or (Path.home() / ".ray" / "auth_token").exists()


def _called(function: Callable[..., R], *arguments: object) -> R:
    return function(*arguments)


class _Dask:
    def __init__(self, address: str | None, workers: int | None) -> None:
        import dask
        import distributed

        self._distributed: Any = distributed
        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters is told as an error
        settings: Any = dask.config
        # Images travel with their chunk, which Dask advises against from 10 MB.
        settings.set({"distributed.admin.large-graph-warning-threshold": "1GiB"})
        self._own: Any = None
        if address is None:
            settings.set(
                {
                    # What was there when workers died twice is looked at alone.
                    "distributed.scheduler.allowed-failures": 1,
                    # Else a worker that takes longer to start again, as on a busy machine, is given up;
                    "distributed.deploy.lost-worker-timeout": "1 hour",
                    # and where all are, work would wait for ever.
                    "distributed.scheduler.no-workers-timeout": "30 minutes",
                }
            )
            self._own = self._distributed.LocalCluster(
                n_workers=workers or usable_cores(),
                threads_per_worker=1,
                processes=True,
                dashboard_address=None,
                scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},  # it listens nevertheless
                memory_limit=0,  # else workers are ended at their share of the memory
                silence_logs=logging.CRITICAL,
            )
        try:
            self._client: Any = self._distributed.Client(self._own or address)
        except BaseException:
            if self._own is not None:
                self._own.close()
            raise

    def _workers(self) -> list[Mapping[str, Any]]:
        return list(self._client.scheduler_info(n_workers=-1)["workers"].values())

    def cores(self) -> int:
        return max(1, len(self._workers()))

    def has_gpu(self, share: float) -> bool:
        return any(worker["resources"].get("GPU", 0) >= share for worker in self._workers())

    def submit(self, gpus: float, function: Callable[..., R], *arguments: object) -> Any:
        resources = {"GPU": gpus} if gpus else None
        return self._client.submit(function, *arguments, pure=False, resources=resources)

    def running(self, futures: Sequence[Any]) -> list[Any]:
        return [future for future in futures if not future.done()]

    def wait(self, futures: Sequence[Any]) -> None:
        self._distributed.wait(list(futures), return_when="FIRST_COMPLETED")

    def result(self, future: Any) -> Any:
        scheduler = self._distributed.scheduler
        try:
            return future.result()
        except scheduler.KilledWorker as error:
            raise DiedError from error
        except (
            scheduler.NoValidWorkerError,
            scheduler.NoWorkerError,
            self._distributed.CancelledError,
        ) as error:
            raise RuntimeError(_lost("Dask", error)) from error

    def cancel(self, futures: Sequence[Any]) -> None:
        if futures:
            self._client.cancel(list(futures), force=True)

    def close(self) -> None:
        self._client.close()
        if self._own is not None:
            self._own.close()


def _lost(name: str, error: BaseException) -> str:
    told = " ".join(str(error).split())[:300]
    return (
        f"the {name} cluster was lost ({type(error).__name__}: {told}). What is done is kept: see that it "
        "runs, and run the same command again"
    )
