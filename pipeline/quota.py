"""A fair share of each class: the same choice whatever else there is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TypeVar

from pipeline.store import sha256_text
from schemas.params import PerClass

__all__ = ["take_per_class"]

T = TypeVar("T")


def take_per_class(
    items: Iterable[T], limits: PerClass, describe: Callable[[T], tuple[str, bool, str]], seed: int
) -> list[T]:
    """The first items of each class and side in the order of a seeded hash, up to the limits.

    Args:
        items: to choose from.
        limits: how many of each class, safe and unsafe.
        describe: gives an item's class, whether it is safe, and the name that is hashed.
        seed: of the build.

    Returns:
        The chosen items in the order they came in.
    """
    listed = list(items)
    taken: Counter[tuple[str, bool]] = Counter()
    chosen = set()
    for i in sorted(range(len(listed)), key=lambda i: sha256_text(f"{seed}:{describe(listed[i])[2]}")):
        name, safe, _ = describe(listed[i])
        if taken[name, safe] < (limits.safe if safe else limits.unsafe):
            taken[name, safe] += 1
            chosen.add(i)
    return [item for i, item in enumerate(listed) if i in chosen]
