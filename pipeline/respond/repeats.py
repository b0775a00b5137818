"""Responses that repeat another, word by word or nearly, found without comparing all with all.

Near is a Jaccard similarity of at least .6 between the sets of four words in a row. Two sets that are so near
share one of the first |x| - ceil(.6 |x|) + 1 members of each, whatever order the members are put in (prefix
filter: Chaudhuri, Ganti and Kaushik 2006), so only these are looked up. Long words come first in that order:
they are rare, and what all refusals begin with is looked up last or never.
"""

from __future__ import annotations

import hashlib
import math
import re
from array import array
from collections import defaultdict
from collections.abc import Iterable

__all__ = ["NEAR", "Repeats", "jaccard", "runs"]

NEAR = 0.6
RUN = 4
_WORD = re.compile(r"[\w']+")


def runs(text: str) -> frozenset[str]:
    """The runs of four words in a text; a shorter text is one run."""
    words = _WORD.findall(text.lower().replace("’", "'"))
    return frozenset(" ".join(words[i : i + RUN]) for i in range(max(1, len(words) - RUN + 1)))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """The share of their members that two sets have in common, 0..1."""
    return len(one & other) / len(one | other)


class Repeats:
    """The responses that were taken so far. Some 1.5 kB of memory for a response of eighty words."""

    def __init__(self, everywhere: Iterable[str] = ()) -> None:
        """Start with texts that no response may repeat, such as the examples of prompts."""
        self._exact: dict[bytes, str] = {}
        self._sets: list[array[int]] = []
        self._names: list[str] = []
        self._holders: dict[str, dict[int, array[int]]] = {}
        for text in everywhere:
            self.add("an example of the prompt", "", text)

    def copied(self, text: str) -> str | None:
        """The name of the response that this text is a copy of, or None."""
        return self._exact.get(_digest(text))

    def near(self, scope: str, text: str) -> str | None:
        """The name of a response in the scope that is nearly the same, or None."""
        members = _members(text)
        mine = set(members)
        first = members[: _prefix(len(members))]
        for holders in (self._holders.get("", {}), self._holders.get(scope, {}) if scope else {}):
            seen: set[int] = set()
            for member in first:
                for place in holders.get(member, ()):
                    if place in seen:
                        continue
                    seen.add(place)
                    other = self._sets[place]
                    if not NEAR - 1e-9 <= len(other) / len(mine) <= 1 / NEAR + 1e-9:
                        continue
                    common = sum(member in mine for member in other)
                    if common >= NEAR * (len(mine) + len(other) - common) - 1e-9:
                        return self._names[place]
        return None

    def add(self, name: str, scope: str, text: str, *, near: bool = True) -> None:
        """Take a response.

        Args:
            name: what it is called when another repeats it.
            scope: of the responses that may not come near it; empty for all.
            text: the response.
            near: whether others may not come near it, beside not being copies.
        """
        self._exact[_digest(text)] = name
        if not near:
            return
        members = _members(text)
        holders = self._holders.setdefault(scope, defaultdict(lambda: array("L")))
        for member in members[: _prefix(len(members))]:
            holders[member].append(len(self._sets))
        self._sets.append(array("Q", members))
        self._names.append(name)


def _members(text: str) -> list[int]:
    """The runs of a text as numbers, in the order in which they are looked up."""
    ordered = sorted(runs(text), key=lambda run: (-len(run), run))
    return [int.from_bytes(hashlib.blake2b(run.encode(), digest_size=8).digest()) for run in ordered]


def _prefix(size: int) -> int:
    # Less a little, since .6 is not quite .6.
    return size - math.ceil(NEAR * size - 1e-9) + 1


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
