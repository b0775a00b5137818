"""Workers elsewhere, made up: they get and give copies, as through a network."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pipeline.parallel import WorkerDied


class Elsewhere:
    """Works in this process, on what survives being pickled.

    Attributes:
        asked: each function that was called, with the size of its chunks and whether it wants a GPU.
    """

    elsewhere = True

    def __init__(self, *, dies: bool = False) -> None:
        self.asked: set[tuple[str, int, bool]] = set()
        self._dies = dies

    def run(
        self, function: Callable[[Any], Any], items: Iterable[Any], *, chunk: int, gpu: bool
    ) -> Iterator[tuple[Any, Any]]:
        self.asked.add((function.__name__, chunk, gpu))
        for item in items:
            if self._dies:
                yield item, WorkerDied()
                continue
            called, copy = pickle.loads(pickle.dumps((function, item)))  # noqa: S301
            yield item, pickle.loads(pickle.dumps(called(copy)))  # noqa: S301
