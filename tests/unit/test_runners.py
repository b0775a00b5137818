"""Clusters as a build sees them, on one that is made up."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import ValidationError

from flows.runners import ATTEMPTS, DiedError, OnCluster, _each, workers_of
from pipeline.parallel import WorkerDied, in_processes
from schemas.errors import InputError
from schemas.params import Execution

DEADLY, DEADLY_ONCE, WRONG = 13, 17, 99


def doubled(item: int) -> int:
    if item == WRONG:
        raise ValueError("ninety-nine")
    return item * 2


@dataclass(eq=False)
class Future:
    call: bytes
    items: list[int]
    done: bool = False
    died: bool = False


class MadeUp:
    """A cluster whose last future is always the first one done; some items kill their worker."""

    def __init__(self) -> None:
        self.given: list[Future] = []
        self.cancelled: list[Future] = []
        self.most = 0
        self.gpus: set[float] = set()
        self.closed = 0
        self.killed_once = False

    def cores(self) -> int:
        return 3

    def has_gpu(self, share: float) -> bool:
        return share <= 0.5

    def submit(self, gpus: float, function: Callable[..., Any], *arguments: Any) -> Future:
        self.gpus.add(gpus)
        self.given.append(Future(pickle.dumps((function, arguments)), arguments[1]))
        self.most = max(self.most, len(self.running(self.given)))
        return self.given[-1]

    def running(self, futures: Sequence[Future]) -> list[Future]:
        return [future for future in futures if not future.done]

    def wait(self, futures: Sequence[Future]) -> None:
        last = self.running(futures)[-1]
        last.done = True
        once = DEADLY_ONCE in last.items and not self.killed_once
        self.killed_once |= once
        last.died = once or DEADLY in last.items

    def result(self, future: Future) -> Any:
        if not future.done:
            self.wait([future])
        if future.died:
            raise DiedError
        function, arguments = pickle.loads(future.call)  # noqa: S301
        return function(*arguments)

    def cancel(self, futures: Sequence[Future]) -> None:
        self.cancelled += futures

    def close(self) -> None:
        self.closed += 1


def run(cluster: MadeUp, items: Any, **told: Any) -> Iterator[tuple[int, Any]]:
    return OnCluster(lambda: cluster, told.pop("workers", None), told.pop("gpus", 1.0)).run(
        doubled, items, **({"chunk": 4, "gpu": False} | told)
    )


@pytest.mark.parametrize("workers", [None, 1, 2, 7])
@pytest.mark.parametrize("chunk", [1, 4, 50])
def test_results_come_in_order_and_a_bounded_number_is_under_way(workers: int | None, chunk: int) -> None:
    cluster = MadeUp()
    read = 0

    def items() -> Iterator[int]:
        nonlocal read
        for item in range(20, 70):
            read += 1
            yield item

    most = workers or 3
    for n, (item, result) in enumerate(run(cluster, items(), workers=workers, chunk=chunk)):
        assert (item, result) == (20 + n, 2 * (20 + n))
        assert read <= n + (2 * most + 1) * chunk
    assert item == 69
    assert cluster.most <= most
    assert cluster.cancelled == []


def test_a_death_costs_the_item_that_kills_and_no_other() -> None:
    cluster = MadeUp()
    found = dict(run(cluster, range(40)))
    assert list(found) == list(range(40))
    assert [item for item, result in found.items() if isinstance(result, WorkerDied)] == [DEADLY]
    assert all(found[item] == 2 * item for item in found if item != DEADLY)
    alone = [future.items for future in cluster.given if len(future.items) == 1]
    assert alone.count([DEADLY]) == ATTEMPTS
    assert alone.count([DEADLY_ONCE]) == 1
    assert len(alone) == 2 * 4 + ATTEMPTS - 1


def test_what_a_worker_raises_is_raised_and_nobody_waits_for_the_rest() -> None:
    cluster = MadeUp()
    with pytest.raises(ValueError, match="ninety-nine"):
        list(run(cluster, range(90, 200), chunk=1))
    assert cluster.cancelled
    cluster = MadeUp()
    some = run(cluster, range(40))
    next(some)
    some.close()  # type: ignore[attr-defined]
    assert cluster.cancelled


def test_who_has_been_left_is_asked_for_nothing() -> None:
    cluster = MadeUp()
    workers = OnCluster(lambda: cluster, None, 1.0)
    some = workers.run(doubled, range(40), chunk=1, gpu=False)
    next(some)
    workers.close()
    some.close()  # type: ignore[attr-defined]
    assert not cluster.cancelled


def test_a_gpu_is_asked_for_where_one_is_needed() -> None:
    cluster = MadeUp()
    list(run(cluster, range(3), gpus=0.5))
    assert cluster.gpus == {0.0}
    list(run(cluster, range(3), gpus=0.5, gpu=True))
    assert cluster.gpus == {0.0, 0.5}
    with pytest.raises(InputError, match=r"no worker of the cluster has 1 GPU"):
        list(run(cluster, range(3), gpu=True))


def test_workers_have_the_same_versions() -> None:
    with pytest.raises(InputError, match=r"a worker on .* has pillow .*, and this machine 1\.0; install"):
        _each(doubled, [1], {**versions(), "pillow": "1.0"})
    assert _each(doubled, [1], versions()) == [2]


def versions() -> dict[str, str]:
    from flows.runners import _versions

    return dict(_versions())


def test_a_cluster_is_joined_when_there_is_something_to_do() -> None:
    joined = []

    def join() -> MadeUp:
        joined.append(MadeUp())
        return joined[-1]

    workers = OnCluster(join, None, 1.0)
    workers.close()
    assert not joined
    for _ in range(2):
        assert list(workers.run(doubled, [1], chunk=1, gpu=False)) == [(1, 2)]
    workers.close()
    workers.close()
    assert [cluster.closed for cluster in joined] == [1]


def test_threads_are_processes_of_this_machine() -> None:
    with workers_of(Execution(workers=1)):
        assert list(in_processes(doubled, [1, 2])) == [(1, 2), (2, 4)]


def test_params_are_checked() -> None:
    assert Execution(runner="ray", address="auto").workers is None
    for wrong in ({"address": "auto"}, {"runner": "slurm"}, {"workers": 0}, {"gpus_per_worker": 0}, {"x": 1}):
        with pytest.raises(ValidationError):
            Execution.model_validate(wrong)


def test_a_runner_that_is_not_installed_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(InputError, match=r"holisafe-pipeline\[ray\]"), workers_of(Execution(runner="ray")):
        pass
