"""A store that lets in no image on a block list, and knows which it did not let in."""

from __future__ import annotations

import json
from contextlib import suppress

from pipeline.collect.blocklist import BLOCKED, BlockLists
from pipeline.collect.fetched import now
from pipeline.store import sha256_bytes
from pipeline.store.blobs import Blobs, LostBlobError

__all__ = ["BlockedError", "Screen"]


class BlockedError(Exception):
    """An image is, or was, on a block list: its bytes are not kept.

    Attributes:
        sha256: of its bytes.
        detail: the hash by which it was found, and when.
        listed: whether that hash is still on a list.
    """

    reason = BLOCKED

    def __init__(self, sha256: str, match: str, at: str, listed: bool) -> None:
        """Say what was found."""
        self.sha256, self.listed = sha256, listed
        self.detail = f"{match} at {at}"
        super().__init__(f"{sha256}: {BLOCKED}: {self.detail}")


class Screen:
    """Blobs behind block lists: of what is listed it keeps the hash, the match and the time."""

    def __init__(self, blobs: Blobs, lists: BlockLists) -> None:
        """Stand before a store, with the lists that hold now."""
        self._blobs, self._lists = blobs, lists

    def put(self, data: bytes) -> str:
        """Keep `data` unless it is listed; gives its hash in either case, since it may have been paid for."""
        sha256 = sha256_bytes(data)
        if match := self._lists.hit(data):
            self.block(sha256, match)
        else:
            self._blobs.put(data)
            self._blobs.files.delete(_note(sha256))
        return sha256

    def block(self, sha256: str, match: str) -> BlockedError:
        """Forget the bytes and note why; gives the error that says so."""
        self._blobs.delete(sha256)
        at = now()
        note = json.dumps({"match": match, "at": at}, ensure_ascii=False, indent=2) + "\n"
        self._blobs.files.write(_note(sha256), note.encode())
        return BlockedError(sha256, match, at, listed=True)

    def __call__(self, sha256: str) -> bytes:
        """The bytes of a hash.

        Raises:
            BlockedError: when they were listed as they came, or are now.
            LostBlobError: when they are not there, or are no longer the same.
        """
        # Nearly all are here: in a bucket, a look for the note of each would be a request more.
        try:
            data = self._blobs(sha256)
        except LostBlobError:
            with suppress(FileNotFoundError):
                note = json.loads(self._blobs.files.read(_note(sha256)))
                raise BlockedError(
                    sha256, note["match"], note["at"], self._lists.holds(note["match"])
                ) from None
            raise
        if match := self._lists.hit(data):
            raise self.block(sha256, match)
        return data


def _note(sha256: str) -> str:
    return f"blocked/{sha256}.json"
