"""Images of a dataset that the `datasets` library can load, streamed."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.collect.metadata import FIELDS
from pipeline.collect.records import matched
from pipeline.collect.sources.base import Found, Problem, Received, read_file
from pipeline.store import Failures
from schemas.errors import InputError
from schemas.params import HubSource

__all__ = ["Hub"]

_FIELDS = tuple(f for f in FIELDS if f not in {"file_name", "url"})


class Hub:
    """A dataset of the Hub at one revision, or a local folder: one pass lists it, another reads."""

    def __init__(self, root: Path, source: HubSource, max_bytes: int) -> None:
        """Name the dataset; it is opened when it is listed."""
        self._said, self._max_bytes = source, max_bytes
        self._folder = None if source.path is None else (root / source.path).resolve()
        self._place = str(source.path or f"hub:{source.dataset}@{source.revision}")

    def check(self) -> None:
        """Nothing is asked of the Hub before the stage runs."""

    def listed(self, failures: Failures) -> Iterator[Found]:
        """The images in the order of the dataset."""
        del failures  # what is wrong with a row shows when it is judged
        rows = self._open()
        features = rows.features or {}
        columns = matched(list(rows.column_names or []), self._said.named(), _FIELDS, self._place)
        names = {c: features[c].names for c in columns.values() if hasattr(features.get(c), "names")}
        if not columns:
            raise InputError(
                f"{self._place}: no column that is known; there are: {', '.join(rows.column_names or [])}; "
                "name theirs in columns"
            )
        for index, row in enumerate(
            _guarded(rows.select_columns(sorted(set(columns.values()))), self._place)
        ):
            fields = {ours: _named(row.get(theirs), names.get(theirs)) for ours, theirs in columns.items()}
            name = f"{self._said.split}/{index}"
            yield Found(fields, f"{self._place}!{name}", name, f"{self._place}: row {index}", index)

    def read(self, chosen: Sequence[Found]) -> Iterator[Received | Problem]:
        """One pass over the dataset, as far as the last of the chosen."""
        wanted = iter(found.at for found in chosen)
        index = next(wanted, None)
        rows = enumerate(_guarded(self._open().select_columns([self._said.image]), self._place))
        while index is not None:
            try:
                at, row = next(rows)
            except StopIteration:
                yield Problem("row without its file", "the dataset has become shorter")
                index = next(wanted, None)
                continue
            except InputError as error:
                yield Problem("cannot be read", str(error))
                index = next(wanted, None)
                continue
            if at == index:
                yield self._bytes(row[self._said.image])
                index = next(wanted, None)

    def _open(self) -> Any:
        from datasets import Image, load_dataset

        said = self._said
        try:
            if self._folder is not None:
                rows = load_dataset(str(self._folder), said.config, split=said.split, streaming=True)
            else:
                rows = load_dataset(
                    said.dataset, said.config, split=said.split, streaming=True, revision=said.revision
                )
            if rows.column_names is None:
                rows = rows._resolve_features()
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise InputError(f"{self._place}: cannot be loaded: {type(error).__name__}: {error}") from error
        if said.image not in (rows.column_names or []):
            raise InputError(
                f"{self._place}: no column {said.image!r}; there are: {', '.join(rows.column_names or [])}"
            )
        return rows.cast_column(said.image, Image(decode=False))

    def _bytes(self, image: Any) -> Received | Problem:
        if not isinstance(image, dict) or (image.get("bytes") is None and not image.get("path")):
            return Problem("row without its file", "the image is null")
        data = image.get("bytes")
        if data is not None:
            if len(data) > self._max_bytes:
                return Problem("too large", f"{len(data)} bytes; collect.max_bytes is {self._max_bytes}")
            return Received(data)
        return self._file(str(image["path"]))

    def _file(self, path: str) -> Received | Problem:
        """A file that a row names: one of the dataset itself, or a member of an archive there.

        A row can name any file of this machine; only those of the dataset's own folder are read.
        """
        outside = Problem("path outside the source", "the row names a file and holds no bytes")
        *inside, holder = path.split("::")
        if self._folder is None:
            if not holder.startswith(f"hf://datasets/{self._said.dataset}@{self._said.revision}/"):
                return outside
        else:
            try:
                if not Path(holder).resolve().is_relative_to(self._folder):
                    return outside
            except (OSError, ValueError, RuntimeError) as error:
                return Problem("cannot be read", str(error))
            if not inside:
                return read_file(Path(holder), self._max_bytes)
        if any(not part.startswith("zip://") for part in inside):
            return outside
        import fsspec

        try:
            with fsspec.open(path, "rb") as file:
                data = file.read(self._max_bytes + 1)
        except (OSError, ValueError, RuntimeError, LookupError, TypeError, zipfile.BadZipFile) as error:
            return Problem("cannot be read", f"{type(error).__name__}: {error}")
        if len(data) > self._max_bytes:
            return Problem("too large", f"more than {self._max_bytes} bytes; collect.max_bytes is the limit")
        return Received(data)


def _named(value: Any, names: list[str] | None) -> Any:
    """The name of a class label that is a number."""
    if names is not None and isinstance(value, int) and 0 <= value < len(names):
        return names[value]
    return value


def _guarded(rows: Any, place: str) -> Iterator[dict[str, Any]]:
    """The rows; what goes wrong in the library's readers is one error of ours."""
    try:
        yield from rows
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise InputError(f"{place}: cannot be read on: {type(error).__name__}: {error}") from error
