"""Images in local folders: an imagefolder with its metadata, or a folder for each class."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from pipeline.collect.metadata import FIELDS
from pipeline.collect.records import FORMATS, header, records
from pipeline.collect.sources.base import IMAGE_SUFFIXES, Found, Problem, Received, read_file
from pipeline.store import Failures
from schemas.errors import InputError
from schemas.params import ClassFoldersSource, FolderSource

__all__ = ["ClassFolders", "Folder"]


class Folder:
    """An imagefolder with `metadata.jsonl`, `metadata.csv` or `metadata.parquet`."""

    def __init__(self, root: Path, source: FolderSource, classes: Collection[str], max_bytes: int) -> None:
        """Name the folder; `classes` are those that the taxonomy has."""
        self._said, self._classes, self._max_bytes = source, classes, max_bytes
        self._folder = (root / source.path).resolve()

    def check(self) -> None:
        """Read all of the metadata.

        Raises:
            InputError: naming the line that is no JSON, or has a class that the taxonomy does not have.
        """
        path = self._metadata()
        for record in records(path, Failures("collect")):
            name = record.fields.get("class")
            if isinstance(name, str) and name and name not in self._classes:
                raise InputError(
                    f"{path.parent}/{record.line}: class: the taxonomy has no class {name!r}; "
                    f"there are: {', '.join(sorted(self._classes))}"
                )

    def listed(self, failures: Failures) -> Iterator[Found]:
        """The images in the order of the metadata."""
        path = self._metadata()
        named: set[Path] = set()
        for record in records(path, failures):
            name = record.fields.get("file_name")
            if not isinstance(name, str) or not name or "\0" in name or not _is_unicode(name):
                failures.add(
                    "", str(self._said.path), "row not valid", f"{record.line}: file_name: it needs one"
                )
                continue
            where = f"{self._said.path}/{name}"
            try:
                file = _led_to(self._folder / name)
                there = file.is_file()
            except OSError as error:  # a name that is too long
                failures.add("", where, "row not valid", f"{record.line}: file_name: {error}")
                continue
            if not file.is_relative_to(self._folder):
                failures.add("", where, "path outside the source", "file_name must stay below its folder")
                continue
            if file in named:
                failures.add("", where, "named twice", f"{record.line}: another line names this file")
                continue
            named.add(file)
            if not there:
                failures.add("", where, "row without its file", record.line)
                continue
            yield Found(record.fields, where, name, record.line, file)
        for file in _files(self._folder):
            if file.suffix.lower() in IMAGE_SUFFIXES and _led_to(file) not in named:
                where = f"{self._said.path}/{file.relative_to(self._folder)}"
                failures.add("", where, "file without a row")

    def read(self, chosen: Sequence[Found]) -> Iterator[Received | Problem]:
        """The files."""
        return (read_file(found.at, self._max_bytes) for found in chosen)

    def _metadata(self) -> Path:
        there = [path for end in FORMATS if (path := self._folder / f"metadata{end}").is_file()]
        if not there:
            raise InputError(f"{self._folder / 'metadata.jsonl'}: no such file; an imagefolder needs it")
        if len(there) > 1:
            raise InputError(f"{there[1]}: there is {there[0].name} too; an imagefolder has one of them")
        names = header(there[0])
        if names is not None:
            if "file_name" not in names:
                raise InputError(f"{there[0]}: no column file_name; there are: {', '.join(names)}")
            if odd := [name for name in names if name not in FIELDS]:
                raise InputError(f"{there[0]}: unknown column {odd[0]!r}; known are: {', '.join(FIELDS)}")
        return there[0]


class ClassFolders:
    """A folder for each class; params say which class and side each stands for."""

    def __init__(
        self, root: Path, source: ClassFoldersSource, classes: Collection[str], max_bytes: int
    ) -> None:
        """Name the folder; `classes` are those that the taxonomy has."""
        self._said, self._classes, self._max_bytes = source, classes, max_bytes
        self._folder = (root / source.path).resolve()

    def check(self) -> None:
        """Look at what params say of the folders.

        Raises:
            InputError: when a folder is missing, or a class is unknown.
        """
        for name, intended in self._said.folders.items():
            if intended.class_ not in self._classes:
                raise InputError(
                    f"params.yaml: collect.sources: folders.{name}.class: "
                    f"the taxonomy has no class {intended.class_!r}"
                )
            path = (self._folder / name).resolve()
            if not path.is_dir() or not path.is_relative_to(self._folder) or path == self._folder:
                raise InputError(f"params.yaml: collect.sources: {self._said.path} has no folder {name!r}")
        paths = {name: (self._folder / name).resolve() for name in self._said.folders}
        for name, path in paths.items():
            for other, inner in paths.items():
                if name != other and inner.is_relative_to(path):
                    raise InputError(
                        f"params.yaml: collect.sources: {self._said.path}: the folder {other!r} is, or lies "
                        f"in, {name!r}; an image has one class, so name folders that do not overlap"
                    )

    def listed(self, failures: Failures) -> Iterator[Found]:
        """The images, folder by folder."""
        for name, intended in self._said.folders.items():
            for file in _files(self._folder / name):
                inside = str(file.relative_to(self._folder))
                where = f"{self._said.path}/{inside}"
                if not _is_unicode(inside):
                    failures.add("", where, "row not valid", "the file's name is not UTF-8")
                    continue
                if file.suffix.lower() not in IMAGE_SUFFIXES:
                    failures.add("", where, "no image", "its name has no ending of an image")
                    continue
                if _led_to(file).is_relative_to(self._folder):
                    fields = {"file_name": inside, "class": intended.class_, "safe": intended.safe}
                    yield Found(fields, where, inside, inside, file)
                else:
                    failures.add("", where, "path outside the source", "a link that leaves the folder")
        for path in sorted(self._folder.iterdir()):
            known = any(path.name == Path(name).parts[0] for name in self._said.folders)
            if path.is_dir() and not known:
                failures.add("", f"{self._said.path}/{path.name}", "folder without a class")
            elif not path.is_dir():
                failures.add(
                    "", f"{self._said.path}/{path.name}", "file without a class", "it is in no folder"
                )

    def read(self, chosen: Sequence[Found]) -> Iterator[Received | Problem]:
        """The files."""
        return (read_file(found.at, self._max_bytes) for found in chosen)


def _is_unicode(name: str) -> bool:
    """Whether a table can hold a name: neither bytes that are not UTF-8 nor halves of characters."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _led_to(file: Path) -> Path:
    """Where a path leads; a link that leads to itself stays what it is, on every Python."""
    return Path(os.path.realpath(file))


def _files(folder: Path) -> Iterator[Path]:
    """Every file below `folder`, and links to folders, which are not followed; in a fixed order.

    One folder's names are in memory at a time.
    """
    for parent, folders, names in os.walk(folder):
        folders.sort()
        names += [name for name in folders if (Path(parent) / name).is_symlink()]
        yield from (Path(parent) / name for name in sorted(names))
