"""Work in other processes: in order, as it is needed, and a crash costs one item."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.parallel import Aside, Here, WorkerDied, elsewhere, given_to, in_processes
from tests.conftest import REPOSITORY


def worked(item: int) -> tuple[int, int]:
    if item % 10 == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return item * 2, os.getpid()


def failing(item: int) -> int:
    if item == 5:
        raise ValueError("five")
    return item


def test_results_come_in_order_and_a_crash_costs_its_item_alone() -> None:
    found = list(in_processes(worked, range(40), workers=2, chunk=3))
    assert [item for item, _ in found] == list(range(40))
    died = [item for item, result in found if isinstance(result, WorkerDied)]
    assert died == [7, 17, 27, 37]
    done = [(item, result) for item, result in found if not isinstance(result, WorkerDied)]
    assert all(result[0] == item * 2 for item, result in done)
    assert os.getpid() not in {result[1] for _, result in done}


def test_items_are_read_as_they_are_needed() -> None:
    read = 0

    def items() -> Iterator[int]:
        nonlocal read
        for item in range(10_000):
            read += 1
            yield item + 1000 * 10  # none ends in seven

    results = in_processes(failing, items(), workers=1, chunk=2)
    next(results)
    assert read <= 10
    results.close()  # type: ignore[attr-defined]


def test_an_exception_of_the_function_is_raised_here() -> None:
    with pytest.raises(ValueError, match="five"):
        list(in_processes(failing, range(10), workers=1))


class Others:
    """Workers elsewhere, who do as they are told in this process."""

    elsewhere = True

    def run(
        self, function: Callable[[Any], Any], items: Iterable[Any], *, chunk: int, gpu: bool
    ) -> Iterator[tuple[Any, Any]]:
        for item in items:
            yield item, ("others", chunk, gpu, function(item))


def test_a_build_is_given_to_somebody_and_then_no_more() -> None:
    assert not elsewhere()
    with given_to(Others()):
        assert elsewhere()
        assert list(in_processes(failing, [1], chunk=3, worth=False)) == [(1, ("others", 3, False, 1))]
        assert list(in_processes(failing, [1], gpu=True)) == [(1, ("others", 8, True, 1))]
        with given_to(Here(1)):
            assert not elsewhere()
            ((_, result),) = in_processes(where, [1])
            assert isinstance(result, tuple)
            assert result[1] != os.getpid()
    with pytest.raises(KeyError), given_to(Others()):
        raise KeyError
    assert not elsewhere()


def test_what_is_not_worth_a_process_is_done_here_as_it_is_asked_for() -> None:
    results = in_processes(where, itertools.count(), worth=False)
    assert next(results) == (0, (0, os.getpid()))
    assert next(results) == (1, (1, os.getpid()))


PARENT = """
import os, sys, time
from pipeline.parallel import in_processes
from tests.unit.test_parallel import pid

if __name__ == "__main__":
    for item, child in in_processes(pid, range(10_000), workers=2, chunk=1):
        print(child, flush=True)
        time.sleep(0.05)
"""


def pid(item: int) -> int:
    return os.getpid()


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    paths = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": paths}
    command = [sys.executable, str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        children = {int(parent.stdout.readline()) for _ in range(6)}
        parent.kill()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(Path(f"/proc/{child}").exists() for child in children):
        time.sleep(0.1)
    assert not [child for child in children if Path(f"/proc/{child}").exists()]


def where(item: int) -> tuple[int, int]:
    return item, os.getpid()


def dying_elsewhere(home: int) -> int:
    if os.getpid() != home:
        os.kill(os.getpid(), signal.SIGKILL)
    return home


def test_aside_another_process_works_and_what_is_not_worth_one_is_done_here() -> None:
    with Aside() as aside:
        first, second, wrong = aside.start(where, 1), aside.start(where, 2), aside.start(failing, 5)
        assert [first()[0], second()[0]] == [1, 2]
        assert first()[1] == second()[1] != os.getpid()
        with pytest.raises(ValueError, match="five"):
            wrong()
    with Aside(worth=False) as aside:
        assert aside.start(where, 3)() == (3, os.getpid())


def test_aside_work_whose_process_died_is_done_here() -> None:
    with Aside() as aside:
        lost, after = aside.start(dying_elsewhere, os.getpid()), aside.start(where, 4)
        assert lost() == os.getpid()
        assert after() == (4, os.getpid())
