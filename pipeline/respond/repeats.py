"""Responses that repeat another, word by word or nearly.

Near is a Jaccard index of at least .6 between the sets of four words in a row. Long runs are looked up first:
they are rare, and what all refusals begin with is looked up last or never.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable

from pipeline.near_sets import NearSets

__all__ = ["NEAR", "Repeats", "digest", "runs"]

NEAR = 0.6
RUN = 4
_WORD = re.compile(r"[\w']+")


def runs(text: str) -> frozenset[str]:
    """The runs of four words in a text; a shorter text is one run."""
    words = _WORD.findall(text.lower().replace("’", "'"))
    return frozenset(" ".join(words[i : i + RUN]) for i in range(max(1, len(words) - RUN + 1)))


class Repeats:
    """The responses that were taken so far. Some 1.5 kB of memory for a response of eighty words."""

    def __init__(self, everywhere: Iterable[str] = ()) -> None:
        """Start with texts that no response may repeat, such as the examples of prompts."""
        self._exact: dict[str, str] = {}
        self._scopes: defaultdict[str, _Scope] = defaultdict(_Scope)
        for text in everywhere:
            self.add("an example of the prompt", "", text)

    def copied(self, text: str) -> str | None:
        """The name of the response that this text is a copy of, or None."""
        return self._exact.get(digest(text))

    def near(self, scope: str, text: str) -> str | None:
        """The name of a response in the scope that is nearly the same, or None."""
        members = _members(text)
        for taken in (self._scopes[""], self._scopes[scope]):
            for place, _ in taken.sets.near(members):
                return taken.names[place]
        return None

    def add(self, name: str, scope: str, text: str, *, near: bool = True) -> None:
        """Take a response.

        Args:
            name: what it is called when another repeats it.
            scope: of the responses that may not come near it; empty for all.
            text: the response.
            near: whether others may not come near it, beside not being copies.
        """
        self._exact[digest(text)] = name
        if not near:
            return
        taken = self._scopes[scope]
        taken.sets.add(_members(text))
        taken.names.append(name)


class _Scope:
    def __init__(self) -> None:
        self.sets = NearSets(NEAR)
        self.names: list[str] = []


def _members(text: str) -> list[int]:
    """The runs of a text as numbers, in the order in which they are looked up."""
    ordered = sorted(runs(text), key=lambda run: (-len(run), run))
    return [int.from_bytes(hashlib.blake2b(run.encode(), digest_size=8).digest()) for run in ordered]


def digest(text: str) -> str:
    """By which copies are found."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
