"""Images by SHA-256, each once: calls name them by hash, so that the call cache holds none of their bytes."""

from __future__ import annotations

from pipeline.engine.endpoint import EndpointError
from pipeline.store.blobs import Blobs, LostBlobError

__all__ = ["BlobMissingError", "BlobStore"]


class BlobMissingError(EndpointError):
    """An image that a call names is not there, or is not what its name says."""


class BlobStore(Blobs):
    """The images that calls name; one that is lost is an error of its call."""

    def __call__(self, sha256: str) -> bytes:
        """The bytes of a hash.

        Raises:
            BlobMissingError: when they are not there, or are no longer the same.
        """
        try:
            return super().__call__(sha256)
        except LostBlobError as error:
            raise BlobMissingError(str(error)) from None
