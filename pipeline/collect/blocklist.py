"""Lists of images that must not be kept, by SHA-256 or PDQ: whatever comes is held against them first."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.store import sha256_bytes
from schemas.errors import InputError
from schemas.params import BlockList

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["BLOCKED", "BlockLists", "load_block_lists"]

BLOCKED = "on a block list"
HEX_DIGITS = 64  # both kinds of hash have 256 bits


@dataclass(frozen=True)
class BlockLists:
    """All lists of a build."""

    sha256: frozenset[str] = frozenset()
    pdq: list[tuple[NDArray[np.uint8], int]] = field(default_factory=list)

    def hit(self, data: bytes) -> str | None:
        """The hash by which an image is on a list, and the kind of list; None where it is on none.

        A mirrored or turned copy of an image on a PDQ list is on it too.
        """
        own = sha256_bytes(data)
        if own in self.sha256:
            return f"sha256 {own}"
        if not self.pdq:
            return None
        import numpy as np

        from pipeline.collect.pdq import pdq_hashes

        for hashed in pdq_hashes(data):
            for listed, bits in self.pdq:
                distances = np.bitwise_count(listed ^ hashed).sum(axis=1, dtype=np.int32)
                if distances.size and distances.min() <= bits:
                    return f"pdq {listed[int(distances.argmin())].tobytes().hex()}"
        return None

    def hit_stored(self, sha256: str, data: Callable[[], bytes | None]) -> str | None:
        """The same for bytes that are stored under their hash; they are read where a list needs them."""
        if sha256 in self.sha256:
            return f"sha256 {sha256}"
        held = data() if self.pdq else None
        return None if held is None else self.hit(held)

    def holds(self, match: str) -> bool:
        """Whether a hash that `hit` gave is on a list."""
        kind, _, digits = match.partition(" ")
        if kind == "sha256":
            return digits in self.sha256
        return any(bytes.fromhex(digits) in map(bytes, listed) for listed, _ in self.pdq)


def load_block_lists(root: Path, lists: Iterable[BlockList]) -> BlockLists:
    """Read the lists that params name.

    Raises:
        InputError: naming the file and the line that is no hash.
    """
    exact: set[str] = set()
    near = []
    for said in lists:
        hashes = _hashes(root / said.path)
        if said.kind == "sha256":
            exact |= set(hashes)
        else:
            import numpy as np

            listed = np.frombuffer(bytes.fromhex("".join(hashes)), np.uint8).reshape(-1, HEX_DIGITS // 2)
            near.append((listed, said.bits))
    return BlockLists(frozenset(exact), near)


def _hashes(path: Path) -> list[str]:
    found = []
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                text = line.strip().lower()
                if not text or text.startswith("#"):
                    continue
                if len(text) != HEX_DIGITS or set(text) - set("0123456789abcdef"):
                    raise InputError(
                        f"{path}: line {number}: a hash is {HEX_DIGITS} hexadecimal digits, one a line"
                    )
                found.append(text)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    return found
