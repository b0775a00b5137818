"""Small files by name, in a folder here or in a bucket that several machines share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from pipeline.extras import needs
from pipeline.store.atomic import write_bytes

__all__ = ["Files", "FolderFiles", "RemoteFiles", "files_at"]


class Files(Protocol):
    """Files by name, such as `ab/cdef`; each is whole or not there."""

    def where(self, name: str) -> str:
        """The path or URL of a name, for messages."""
        ...

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        ...

    def read(self, name: str) -> bytes:
        """Its bytes.

        Raises:
            FileNotFoundError: when there is none.
        """
        ...

    def write(self, name: str, data: bytes) -> None:
        """Write it, in the place of one that is there."""
        ...

    def names(self) -> Iterator[str]:
        """The names that have one folder before them, in their order."""
        ...

    def size(self, name: str) -> int:
        """How many bytes it has."""
        ...

    def delete(self, name: str) -> None:
        """Delete it, if it is there."""
        ...


def files_at(place: Path | str) -> Files:
    """The files in a folder, or those below a URL that fsspec knows."""
    return FolderFiles(place) if isinstance(place, Path) else RemoteFiles(place)


class FolderFiles:
    """Files in a folder; it is made when the first one comes."""

    def __init__(self, folder: Path) -> None:
        """Name the folder."""
        self._folder = folder

    def where(self, name: str) -> str:
        """The path of a name."""
        return str(self._folder / name)

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        return (self._folder / name).exists()

    def read(self, name: str) -> bytes:
        """Its bytes."""
        return (self._folder / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        """Write it, in the place of one that is there."""
        write_bytes(self._folder / name, data)

    def names(self) -> Iterator[str]:
        """The names that have one folder before them, in their order."""
        for path in sorted(self._folder.glob("*/*")):
            if not path.name.startswith("."):  # half a file of a process that was killed
                yield f"{path.parent.name}/{path.name}"

    def size(self, name: str) -> int:
        """How many bytes it has."""
        return (self._folder / name).stat().st_size

    def delete(self, name: str) -> None:
        """Delete it, if it is there."""
        (self._folder / name).unlink(missing_ok=True)


class RemoteFiles:
    """Files below a URL such as `s3://bucket/blobs`; keys and endpoint as botocore finds them."""

    def __init__(self, url: str) -> None:
        """Name the place; nothing is asked of it.

        Raises:
            InputError: when the package for S3 is missing.
        """
        # What others have put there since is seen.
        options: dict[str, Any] = {"use_listings_cache": False}
        if url.startswith(("s3://", "s3a://")):
            needs("s3fs")
            options["max_concurrency"] = 1  # else it asks for the size of each before it gets it
        import fsspec

        self._url = url.rstrip("/")
        self._fs: Any
        self._fs, self._root = fsspec.url_to_fs(self._url, **options)
        self._there: set[str] = set()
        """Names that were seen: one that comes again and again is asked for once."""

    def where(self, name: str) -> str:
        """The URL of a name."""
        return f"{self._url}/{name}"

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        if name not in self._there:
            with self._told(name):
                if not self._fs.exists(self._path(name)):
                    return False
            self._there.add(name)
        return True

    def read(self, name: str) -> bytes:
        """Its bytes."""
        with self._told(name):
            return bytes(self._fs.cat_file(self._path(name)))

    def write(self, name: str, data: bytes) -> None:
        """Write it, in the place of one that is there."""
        with self._told(name):
            self._fs.pipe_file(self._path(name), data)
        self._there.add(name)

    def names(self) -> Iterator[str]:
        """The names that have one folder before them, in their order."""
        with self._told(""), suppress(FileNotFoundError):
            found = [path.removeprefix(self._root).lstrip("/") for path in self._fs.find(self._root)]
            yield from sorted(name for name in found if name.count("/") == 1)

    def size(self, name: str) -> int:
        """How many bytes it has."""
        with self._told(name):
            return int(self._fs.size(self._path(name)))

    def delete(self, name: str) -> None:
        """Delete it, if it is there."""
        self._there.discard(name)
        with self._told(name), suppress(FileNotFoundError):
            self._fs.rm_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        """Errors of a client, which are of many kinds, as those of a file."""
        try:
            yield
        except FileNotFoundError:
            raise
        except Exception as error:
            told = " ".join(str(error).split())[:300] or type(error).__name__
            raise OSError(f"{self.where(name)}: {told}") from error
