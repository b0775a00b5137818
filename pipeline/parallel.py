"""Work spread over processes: in order, in bounded memory, and a crash of one costs one item.

Heavy work that asks no endpoint goes through `in_processes`. Who works is set once for a build
(`given_to`): the cores of this machine, or a cluster (`flows/runners.py`). A function stands at the top of
a module and its items hold their own bytes, so that no disk has to be shared; what all items need it keeps
in a `functools.cache`, once in each process.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Generic, Protocol, Self, TypeVar

__all__ = ["Aside", "Here", "WorkerDied", "Workers", "elsewhere", "given_to", "in_processes", "usable_cores"]

T = TypeVar("T")
R = TypeVar("R")


class WorkerDied:
    """In the place of a result: every process that worked on this item has died."""


class Workers(Protocol):
    """Who works for a build."""

    @property
    def elsewhere(self) -> bool:
        """Whether they are others than this machine's cores, so that work is worth giving away at all."""
        ...

    def run(
        self, function: Callable[[T], R], items: Iterable[T], *, chunk: int, gpu: bool
    ) -> Iterator[tuple[T, R | WorkerDied]]:
        """Give each item with its result, in order, with a bounded number of items read ahead.

        Args:
            function: at the top of a module; an exception that it raises is raised here.
            items: what can be pickled.
            chunk: how many items travel together.
            gpu: whether the function needs one.
        """
        ...


def usable_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Here:
    """Processes of this machine."""

    elsewhere = False

    def __init__(self, workers: int | None = None) -> None:
        """Say how many; by default as many as there are cores to use."""
        self._workers = workers or usable_cores()

    def run(
        self,
        function: Callable[[T], R],
        items: Iterable[T],
        *,
        chunk: int,
        gpu: bool,  # noqa: ARG002 - they all see the ones that are here
    ) -> Iterator[tuple[T, R | WorkerDied]]:
        """Give each item with its result, as `Workers` says."""
        run = _Run(function, self._workers)
        rest = iter(items)
        try:
            for some in iter(lambda: list(islice(rest, chunk)), []):
                run.submit(some)
                if len(run.under_way) > 2 * run.workers:
                    yield from run.first()
            while run.under_way:
                yield from run.first()
        finally:
            run.close()


# Of the process and not of a context: threads that a stage starts work for the same build.
_given: list[Workers] = []


@contextmanager
def given_to(workers: Workers) -> Iterator[None]:
    """In this block `in_processes` gives its items to these workers."""
    _given.append(workers)
    try:
        yield
    finally:
        _given.pop()


def elsewhere() -> bool:
    """Whether others than this machine's cores work for the build."""
    return bool(_given) and _given[-1].elsewhere


def in_processes(
    function: Callable[[T], R],
    items: Iterable[T],
    *,
    workers: int | None = None,
    chunk: int = 8,
    worth: bool = True,
    gpu: bool = False,
) -> Iterator[tuple[T, R | WorkerDied]]:
    """Apply a function to items in other processes, and give each item with its result, in order.

    Args:
        function: at the top of a module; an exception that it raises is raised here.
        items: read as they are needed: some chunks for each worker are under way.
        workers: how many processes of this machine; by default those work that the build is given to.
        chunk: how many items travel together.
        worth: whether the work is worth processes of this machine; if not, and nobody else works for the
            build, it is done in this one.
        gpu: whether the function needs one: it is given to workers that have one.
    """
    who: Workers = Here(workers) if workers or not _given else _given[-1]
    if worth or who.elsewhere:
        return who.run(function, items, chunk=chunk, gpu=gpu)
    return ((item, function(item)) for item in items)


class _Run(Generic[T, R]):
    def __init__(self, function: Callable[[T], R], workers: int) -> None:
        self.workers = workers
        self.under_way: deque[tuple[list[T], Future[list[R]]]] = deque()
        self._function = function
        self._pool = _spawned(workers)

    def submit(self, some: list[T]) -> None:
        try:
            future = self._pool.submit(_each, self._function, some)
        except BrokenProcessPool as broken:  # which a chunk before this one has done; `first` sees to it
            future = Future()
            future.set_exception(broken)
        self.under_way.append((some, future))

    def first(self) -> Iterator[tuple[T, R | WorkerDied]]:
        some, future = self.under_way.popleft()
        try:
            results: Sequence[R | WorkerDied] = future.result()
        except BrokenProcessPool:
            # One of the items under way has killed a worker, and all have lost theirs. The culprit is found
            # by doing this chunk one by one; the others get a new pool.
            self._pool.shutdown(cancel_futures=True)
            results = [self._alone(item) for item in some]
            again = [lost for lost, _ in self.under_way]
            self.under_way.clear()
            self._pool = _spawned(self.workers)
            for lost in again:
                self.submit(lost)
        yield from zip(some, results, strict=True)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _alone(self, item: T) -> R | WorkerDied:
        with _spawned(1) as pool:
            try:
                return pool.submit(_each, self._function, [item]).result()[0]
            except BrokenProcessPool:
                return WorkerDied()


class Aside:
    """Another process, in which functions run one after the other while this one goes on.

    Use it as a context manager: at the end of the block what has not begun never does.
    """

    def __init__(self, worth: bool = True) -> None:
        """Begin one.

        Args:
            worth: whether the work is worth a process; if not, it is done here, when its result is asked for.
        """
        self._pool = _spawned(1) if worth else None

    def __enter__(self) -> Self:
        """It has begun already."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def start(self, function: Callable[..., R], *arguments: object) -> Callable[[], R]:
        """Start a function of the top of a module.

        Returns:
            What waits for its result, to be called in the block; an exception is raised there. Where the
            process has died the work is done in this one.
        """
        if self._pool is None:
            return lambda: function(*arguments)
        future = self._pool.submit(function, *arguments)

        def result() -> R:
            try:
                return future.result()
            except BrokenProcessPool:
                return function(*arguments)

        return result


def _spawned(workers: int) -> ProcessPoolExecutor:
    # Not forked: threads of this process would leave their locks behind.
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin)


def _begin() -> None:
    """Begin a worker's life, which ends with its parent's: one that is killed cannot tell its workers."""
    parent = parent_process()
    if parent is not None:

        def follow() -> None:
            parent.join()
            os._exit(1)

        Thread(target=follow, daemon=True).start()


def _each(function: Callable[[T], R], some: list[T]) -> list[R]:
    return [function(item) for item in some]
