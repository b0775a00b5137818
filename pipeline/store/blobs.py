"""Files by SHA-256, each once: who knows the hash can find the bytes, and see that they are the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline.store.atomic import write_bytes
from pipeline.store.hashing import sha256_bytes

__all__ = ["Blobs", "LostBlobError"]


class LostBlobError(Exception):
    """Bytes that were kept are not there, or are not what their name says."""


class Blobs:
    """A folder of files named by their hash: `ab/cdef…`."""

    def __init__(self, folder: Path) -> None:
        """Name the folder; it is made when the first bytes come."""
        self.folder = folder

    def put(self, data: bytes) -> str:
        """Keep `data` and return its hash; what is there already stays."""
        sha256 = sha256_bytes(data)
        if not self.path(sha256).exists():
            write_bytes(self.path(sha256), data)
        return sha256

    def __call__(self, sha256: str) -> bytes:
        """The bytes of a hash.

        Raises:
            LostBlobError: when they are not there, or are no longer the same.
        """
        try:
            data = self.path(sha256).read_bytes()
        except FileNotFoundError:
            raise LostBlobError(
                f"{self.path(sha256)}: the image {sha256[:12]} is not here; run the stage that made it again"
            ) from None
        if sha256_bytes(data) != sha256:
            raise LostBlobError(
                f"{self.path(sha256)}: its bytes have changed; delete it and run the stage that made it again"
            )
        return data

    def path(self, sha256: str) -> Path:
        """Where the bytes of a hash are, or would be."""
        return self.folder / sha256[:2] / sha256[2:]

    def hashes(self) -> Iterator[str]:
        """The hash of every file, in their order."""
        for path in sorted(self.folder.glob("[0-9a-f][0-9a-f]/*")):
            if not path.name.startswith("."):
                yield path.parent.name + path.name

    def size(self, sha256: str) -> int:
        """How many bytes a file has."""
        return self.path(sha256).stat().st_size

    def delete(self, sha256: str) -> None:
        """Delete a file, if it is there."""
        self.path(sha256).unlink(missing_ok=True)
