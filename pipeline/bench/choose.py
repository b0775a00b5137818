"""Judges by the names that people give them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipeline.bench.judging import Judge
from schemas.errors import InputError

__all__ = ["JUDGES", "judges_by_name"]

JUDGES: dict[str, Callable[[], Judge]] = {}
"""What makes each judge; a maker imports what is heavy when it is called."""


def judges_by_name(names: Sequence[str]) -> list[Judge]:
    """The judges of these names, each once, in their order.

    Raises:
        InputError: without a name, and for one that no judge has.
    """
    known = ", ".join(JUDGES) or "none"
    wanted = list(dict.fromkeys(name.strip() for name in names))
    if not wanted or "" in wanted:
        raise InputError(f"--judge: a name is empty; known judges: {known}")
    if unknown := [name for name in wanted if name not in JUDGES]:
        raise InputError(f"--judge: there is no judge {unknown[0]!r}; known judges: {known}")
    return [JUDGES[name]() for name in wanted]
