"""Images in tar files: WebDataset shards, and what img2dataset leaves.

A tar file is read once from front to back for its table of members; the bytes of what is chosen are read at
their place. Nothing is unpacked, so a member's path leads nowhere; one that tries to is refused all the same.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.collect.metadata import FIELDS
from pipeline.collect.records import header, matched, records
from pipeline.collect.sources.base import IMAGE_SUFFIXES, Found, Problem, Received, read_file
from pipeline.store import Failures, sha256_text
from schemas.errors import InputError
from schemas.params import Img2DatasetSource, WebDatasetSource

__all__ = ["Img2Dataset", "WebDataset"]

MAX_TEXT_BYTES = 1_000_000  # of a member with metadata
_FIELDS = tuple(f for f in FIELDS if f != "file_name")


@dataclass(frozen=True, slots=True)
class _Member:
    """A plain file within a tar file, found at its place."""

    tar: Path
    name: str
    offset: int
    size: int

    @property
    def key(self) -> str:
        """The name up to the first dot after the last slash: what belongs together has one key."""
        folder, slash, base = self.name.rpartition("/")
        return folder + slash + base.split(".")[0]

    @property
    def suffix(self) -> str:
        return "." + self.name.rpartition(".")[2].lower()


class WebDataset:
    """Members `key.jpg`, `key.json` (metadata) and `key.txt` (a caption) that stand beside each other."""

    def __init__(self, root: Path, source: WebDatasetSource, max_bytes: int) -> None:
        """Name the tar files."""
        self._root, self._said, self._max_bytes = root, source, max_bytes

    def check(self) -> None:
        """Nothing but the tar files can be wrong, and they are read in their turn."""

    def listed(self, failures: Failures) -> Iterator[Found]:
        """The images, tar file by tar file."""
        for tar in sorted(self._root.glob(self._said.path)):
            place = str(tar.relative_to(self._root))
            seen: set[str] = set()
            for key, group in _groups(_members(tar, place, failures)):
                where = f"{place}!{key}"
                if (short := sha256_text(key)[:32]) in seen:
                    failures.add("", where, "named twice", "the tar file holds this key before")
                    continue
                seen.add(short)
                yield from self._found(where, group, failures)

    def _found(self, where: str, group: list[_Member], failures: Failures) -> Iterator[Found]:
        images = [m for m in group if m.suffix in IMAGE_SUFFIXES]
        if len(images) != 1:
            reason = "named twice" if images else "row without its file"
            failures.add("", where, reason, f"{len(images)} images have this key")
            return
        fields: dict[str, Any] = {}
        texts = [m for m in group if m.suffix in {".json", ".txt"}]
        for member in sorted(texts, key=lambda m: m.suffix):  # what the JSON says comes before the text
            try:
                fields = self._said_in(member) | {k: v for k, v in fields.items() if v}
            except (ValueError, RecursionError) as error:
                failures.add("", where, "row not valid", f"{member.name}: {error}")
                return
        member = images[0]
        tar = where.partition("!")[0]
        yield Found(_page(fields), f"{tar}!{member.name}", where, member.name, member)

    def _said_in(self, member: _Member) -> dict[str, Any]:
        """What a member with metadata says, under our names."""
        text = read_file(member.tar, MAX_TEXT_BYTES, member.offset, member.size)
        if isinstance(text, Problem):
            raise ValueError(f"{text.reason}: {text.detail}")  # noqa: TRY004 - the file is wrong, not a type
        if member.suffix == ".txt":
            return {"caption": text.data.decode().strip()}
        said = json.loads(text.data)
        if not isinstance(said, Mapping):
            raise ValueError("no JSON object")  # noqa: TRY004
        columns = self._said.named()
        return {f: said[column] for f in _FIELDS if (column := columns.get(f, f)) in said}

    def read(self, chosen: Sequence[Found]) -> Iterator[Received | Problem]:
        """The members' bytes."""
        return _read(chosen, self._max_bytes)


class Img2Dataset:
    """Tar files `00000.tar` with `00000.parquet` beside them, a row for each URL that was tried."""

    def __init__(self, root: Path, source: Img2DatasetSource, max_bytes: int) -> None:
        """Name the folder."""
        self._folder, self._said, self._max_bytes = root / source.path, source, max_bytes

    def check(self) -> None:
        """Look for tar files.

        Raises:
            InputError: when there are none.
        """
        if not any(self._folder.glob("*.tar")):
            raise InputError(
                f"{self._folder}: no tar files; img2dataset writes them with --output_format webdataset"
            )

    def listed(self, failures: Failures) -> Iterator[Found]:
        """The images, tar file by tar file, in the order of their rows."""
        for tar in sorted(self._folder.glob("*.tar")):
            place = f"{self._said.path}/{tar.name}"
            rows = tar.with_suffix(".parquet")
            if not rows.is_file():
                failures.add("", place, "file without a row", f"there is no {rows.name} beside it")
                continue
            try:
                yield from self._shard(tar, place, rows, failures)
            except InputError as error:
                failures.add("", place, "list cannot be read", str(error))

    def _shard(self, tar: Path, place: str, rows: Path, failures: Failures) -> Iterator[Found]:
        names = header(rows) or []
        if "key" not in names:
            raise InputError(f"{rows}: no column key")
        columns = matched(names, self._said.named(), _FIELDS, rows)
        own = [c for c in ("key", "status", "error_message") if c in names]
        images: dict[str, _Member] = {}
        for member in _members(tar, place, failures):
            if member.suffix not in IMAGE_SUFFIXES:
                continue
            if member.key in images:
                failures.add(
                    "", f"{place}!{member.name}", "named twice", "the tar file holds this key before"
                )
            else:
                images[member.key] = member
        named: set[str] = set()
        for record in records(rows, failures, sorted({*columns.values(), *own})):
            key = str(record.fields["key"])
            where = f"{place}!{key}"
            if key in named:
                failures.add("", where, "named twice", f"{record.line}: another row has this key")
            elif record.fields.get("status", "success") != "success":
                detail = record.fields.get("error_message") or record.fields["status"]
                failures.add("", where, "not downloaded", f"{record.line}: {detail}")
            elif key not in images:
                failures.add("", where, "row without its file", record.line)
            else:
                member = images[key]
                fields = {ours: record.fields.get(theirs) for ours, theirs in columns.items()}
                yield Found(_page(fields), f"{place}!{member.name}", where, record.line, member)
            named.add(key)
        for key, member in images.items():
            if key not in named:
                failures.add("", f"{place}!{member.name}", "file without a row")

    def read(self, chosen: Sequence[Found]) -> Iterator[Received | Problem]:
        """The members' bytes."""
        return _read(chosen, self._max_bytes)


def _read(chosen: Sequence[Found], max_bytes: int) -> Iterator[Received | Problem]:
    for found in chosen:
        member: _Member = found.at
        yield read_file(member.tar, max_bytes, member.offset, member.size)


def _page(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Where no page is named, the URL that the image came from stands for it, if it can."""
    url = fields.get("url")
    stands = isinstance(url, str) and re.fullmatch(r"https?://\S+", url)
    return {**fields, "page_url": fields.get("page_url") or (url if stands else "")}


def _members(tar: Path, place: str, failures: Failures) -> Iterator[_Member]:
    """The plain files of a tar file; anything else in it is a failure, and so is one that breaks off."""
    try:
        with tarfile.open(tar, "r:") as opened:
            last = -1
            for info in opened:
                opened.members = []  # type: ignore[attr-defined]  # or the whole table stays in memory
                # A size below zero leads back to a header that was read, and so on for ever.
                if info.size < 0 or info.offset <= last:
                    raise tarfile.ReadError(f"a member at byte {info.offset} leads back")
                last = info.offset
                if info.isdir():
                    continue
                where = f"{place}!{info.name.encode('utf-8', 'replace').decode()}"
                path = PurePosixPath(info.name)
                if path.is_absolute() or ".." in path.parts:
                    failures.add("", where, "path outside the source", "a member's path must stay below")
                elif not info.isreg() or info.issparse():
                    failures.add("", where, "no plain file", "links, devices and sparse files are not read")
                elif where != f"{place}!{info.name}":
                    failures.add("", where, "row not valid", "the member's name is not UTF-8")
                else:
                    yield _Member(tar, info.name, info.offset_data, info.size)
            if at := _breaks_off(tar, opened.offset):
                raise tarfile.ReadError(f"it breaks off: what stands at byte {at} is no member and no end")
    except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError) as error:
        failures.add("", place, "damaged tar file", f"{error}; only plain .tar files are read")


def _breaks_off(tar: Path, offset: int) -> int:
    """Where a tar file that is whole would end in zeros and does not; 0 where it does.

    The reader takes a damaged header, and a file that ends between two members, for the end.
    """
    with tar.open("rb") as file:
        file.seek(offset)
        if len(file.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE:
            return offset
        file.seek(offset)
        while chunk := file.read(1 << 20):
            if chunk.strip(b"\0"):
                return file.tell() - len(chunk.lstrip(b"\0"))
    return 0


def _groups(members: Iterator[_Member]) -> Iterator[tuple[str, list[_Member]]]:
    key, group = "", list[_Member]()
    for member in members:
        if group and member.key != key:
            yield key, group
            group = []
        key = member.key
        group.append(member)
    if group:
        yield key, group
