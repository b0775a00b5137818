"""Images from a local imagefolder with `metadata.jsonl`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.store import Failures, sha256_bytes
from schemas.errors import InputError
from schemas.params import FolderSource
from schemas.safeguards import forbidden_reason
from schemas.taxonomy import Taxonomy

__all__ = ["FolderImage", "ImageMetadata", "collect_folder", "read_metadata"]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".svg"})
UNKNOWN_LICENCES = frozenset({"", "unknown", "NOASSERTION"})
NOT_REDISTRIBUTABLE = ("-NC", "-ND", "LicenseRef-Proprietary")


class ImageMetadata(BaseModel):
    """One line of `metadata.jsonl`. `class` and `safe` are what the image was collected for."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    file_name: str = Field(min_length=1)
    caption: str = Field(min_length=1)
    subject: str = Field(min_length=1)
    objects: list[str]
    class_: str = Field(alias="class")
    safe: bool
    license: str
    author: str
    source_url: str
    source_package: str = ""


@dataclass(frozen=True, slots=True)
class FolderImage:
    """An image file with its metadata; nothing is read yet."""

    meta: ImageMetadata
    path: Path
    where: str

    def row(self) -> dict[str, Any]:
        """The raw row, with the file's bytes."""
        return _row(self.meta, self.path.read_bytes(), self.where)


def collect_folder(
    root: Path, source: FolderSource, taxonomy: Taxonomy, failures: Failures
) -> Iterator[FolderImage]:
    """The usable images of one folder, in the order of its metadata.

    Args:
        root: the workspace.
        source: where the folder is and what to do with an unknown licence.
        taxonomy: whose class names the metadata may use.
        failures: takes rows without a file, files without a row, unknown licences, unusable captions.

    Raises:
        InputError: when metadata.jsonl is missing, or a line is not valid or names an unknown class.
    """
    folder = (root / source.path).resolve()
    lines = read_metadata(folder / "metadata.jsonl", taxonomy)
    named = set()
    for meta in lines:
        where = f"{source.path}/{meta.file_name}"
        path = (folder / meta.file_name).resolve()
        if not path.is_relative_to(folder):
            failures.add("", where, "path outside the source", "file_name must stay below its folder")
            continue
        if path in named:
            failures.add("", where, "named twice", "metadata.jsonl has another line for this file")
            continue
        named.add(path)
        if not path.is_file():
            failures.add("", where, "row without its file")
            continue
        if meta.license in UNKNOWN_LICENCES and source.unknown_licence == "refuse":
            failures.add("", where, "unknown licence", "set unknown_licence: keep to take it all the same")
            continue
        if reason := forbidden_reason(" ".join([meta.caption, meta.subject, *meta.objects])):
            failures.add("", where, "caption refused", reason)
            continue
        yield FolderImage(meta, path, where)
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in IMAGE_SUFFIXES and path.resolve() not in named:
            failures.add("", f"{source.path}/{path.relative_to(folder)}", "file without a row")


def read_metadata(path: Path, taxonomy: Taxonomy) -> list[ImageMetadata]:
    """Read and check `metadata.jsonl`.

    Raises:
        InputError: naming the line and field.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}; an imagefolder needs it") from error
    known = {c.name for c in taxonomy.classes()}
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            meta = ImageMetadata.model_validate(json.loads(line))
        except json.JSONDecodeError as error:
            raise InputError(f"{path}: line {number}: not JSON: {error}") from error
        except ValidationError as error:
            problem = error.errors()[0]
            field = ".".join(map(str, problem["loc"]))
            raise InputError(f"{path}: line {number}: {field}: {problem['msg']}") from error
        if meta.class_ not in known:
            raise InputError(
                f"{path}: line {number}: class: the taxonomy has no class {meta.class_!r}; "
                f"there are: {', '.join(sorted(known))}"
            )
        found.append(meta)
    return found


def _row(meta: ImageMetadata, data: bytes, where: str) -> dict[str, Any]:
    if meta.license in UNKNOWN_LICENCES:
        redistributable = "unknown"
    else:
        redistributable = "no" if any(mark in meta.license for mark in NOT_REDISTRIBUTABLE) else "yes"
    return {
        "image_id": sha256_bytes(data),
        "source": where,
        "source_kind": "folder",
        "source_url": meta.source_url,
        "source_package": meta.source_package,
        "author": meta.author,
        "licence": meta.license or "NOASSERTION",
        "redistributable": redistributable,
        "generator": "",
        "recipe": "",
        "caption": meta.caption,
        "subject": meta.subject,
        "objects": meta.objects,
        "intended_class": meta.class_,
        "intended_safe": meta.safe,
        "bytes": data,
    }
