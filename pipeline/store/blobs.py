"""Files by SHA-256, each once: who knows the hash can find the bytes, and see that they are the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pipeline.store.files import files_at
from pipeline.store.hashing import sha256_bytes

__all__ = ["Blobs", "LostBlobError"]

_NAME = re.compile(r"[0-9a-f]{2}/[0-9a-f]{62}")


class LostBlobError(Exception):
    """Bytes that were kept are not there, or are not what their name says."""


class Blobs:
    """Files named by their hash: `ab/cdef…`."""

    def __init__(self, place: Path | str) -> None:
        """Name the folder, which is made when the first bytes come, or a URL that fsspec knows."""
        self.files = files_at(place)

    def put(self, data: bytes) -> str:
        """Keep `data` and return its hash; what is there already stays."""
        sha256 = sha256_bytes(data)
        if not self.files.exists(_name(sha256)):
            self.files.write(_name(sha256), data)
        return sha256

    def __call__(self, sha256: str) -> bytes:
        """The bytes of a hash.

        Raises:
            LostBlobError: when they are not there, or are no longer the same.
        """
        try:
            data = self.files.read(_name(sha256))
        except FileNotFoundError:
            raise LostBlobError(
                f"{self.where(sha256)}: the image {sha256[:12]} is not here; run the stage that made it again"
            ) from None
        if sha256_bytes(data) != sha256:
            raise LostBlobError(
                f"{self.where(sha256)}: its bytes have changed; "
                "delete it and run the stage that made it again"
            )
        return data

    def where(self, sha256: str) -> str:
        """The path or URL at which the bytes of a hash are, or would be."""
        return self.files.where(_name(sha256))

    def hashes(self) -> Iterator[str]:
        """The hash of every file, in their order."""
        for name in self.files.names():
            if _NAME.fullmatch(name):
                yield name.replace("/", "")

    def size(self, sha256: str) -> int:
        """How many bytes a file has."""
        return self.files.size(_name(sha256))

    def delete(self, sha256: str) -> None:
        """Delete a file, if it is there."""
        self.files.delete(_name(sha256))


def _name(sha256: str) -> str:
    return f"{sha256[:2]}/{sha256[2:]}"
