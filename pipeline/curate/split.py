"""Which side of the split an image's leak group is on: decided once, kept in a ledger that always wins."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.store import sha256_text, write_text
from schemas.errors import InputError

__all__ = ["Group", "SplitConflictError", "SplitLedger", "assign_sides"]


@dataclass(frozen=True, slots=True)
class Group:
    """Images that must stay together, and the stratum they were collected for.

    `copies` are near-duplicates of them that were not kept: they may have been, in another version.
    """

    image_ids: tuple[str, ...]
    stratum: str
    copies: tuple[str, ...] = ()


class SplitConflictError(Exception):
    """A group holds images that stand on different sides already."""


class SplitLedger:
    """Sides by image id, in a JSON Lines file that only grows."""

    def __init__(self, path: Path) -> None:
        """Read `path` if it exists."""
        self._path = path
        self._sides: dict[str, str] = {}
        if path.exists():
            for number, line in enumerate(path.read_text().splitlines(), 1):
                try:
                    row = json.loads(line)
                    if row["side"] not in ("train", "test"):
                        raise ValueError(f"side is {row['side']!r}")  # noqa: TRY301
                except (ValueError, LookupError, TypeError) as error:
                    raise InputError(
                        f"{path}: line {number}: {error}; put back a copy, or delete the file to split anew"
                    ) from error
                self._sides.setdefault(row["image_id"], row["side"])

    def side_of(self, group: Group) -> str | None:
        """The side that a member of `group` is on already.

        Raises:
            SplitConflictError: when members are on both.
        """
        sides = {self._sides[i] for i in (*group.image_ids, *group.copies) if i in self._sides}
        if len(sides) > 1:
            raise SplitConflictError(
                f"joins images of train and test: {', '.join(i[:12] for i in group.image_ids)}"
            )
        return sides.pop() if sides else None

    def bridges(self, group: Group) -> tuple[str, ...]:
        """The members that are new, where a group holds images of both sides: they may be what joins them."""
        try:
            self.side_of(group)
        except SplitConflictError:
            return tuple(i for i in group.image_ids if i not in self._sides)
        return ()

    def record(self, group: Group, side: str) -> None:
        """Put every member of `group` on `side`, with its copies."""
        for image_id in (*group.image_ids, *group.copies):
            self._sides.setdefault(image_id, side)

    def save(self) -> None:
        """Write the ledger, whole or not at all."""
        lines = [json.dumps({"image_id": i, "side": s}) for i, s in sorted(self._sides.items())]
        write_text(self._path, "\n".join(lines) + ("\n" if lines else ""))


def assign_sides(
    groups: Sequence[Group], ledger: SplitLedger, test_share: float, seed: int
) -> tuple[dict[str, str], list[tuple[Group, str]]]:
    """Give every group a side.

    Groups known to the ledger keep theirs. New ones go, in the order of a seeded hash of their first
    member, to the side of their stratum that is furthest below its share, so that a stratum of two or
    more groups has images on both sides.

    Returns:
        Sides (`train` or `test`) by image id, and the groups set aside with their reason.
    """
    have: dict[str, dict[str, int]] = defaultdict(lambda: {"train": 0, "test": 0})
    sides: dict[str, str] = {}
    aside: list[tuple[Group, str]] = []
    new: list[Group] = []
    for group in groups:
        try:
            side = ledger.side_of(group)
        except SplitConflictError as conflict:
            aside.append((group, str(conflict)))
            continue
        if side is None:
            new.append(group)
            continue
        have[group.stratum][side] += 1
        sides |= dict.fromkeys(group.image_ids, side)
        ledger.record(group, side)
    share = {"train": 1 - test_share, "test": test_share}
    for group in sorted(new, key=lambda g: sha256_text(f"{seed}:{g.image_ids[0]}")):
        counts = have[group.stratum]
        total = sum(counts.values()) + 1
        side = max(("train", "test"), key=lambda s: share[s] * total - counts[s])
        counts[side] += 1
        sides |= dict.fromkeys(group.image_ids, side)
        ledger.record(group, side)
    return sides, aside
