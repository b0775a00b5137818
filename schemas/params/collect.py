"""Params of collect: where images come from, and how URLs are fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from schemas.params._base import PerClass, Strict

__all__ = [
    "BlockList",
    "ClassFoldersSource",
    "Collect",
    "Fetch",
    "FolderSource",
    "HubSource",
    "Img2DatasetSource",
    "Intended",
    "MetadataField",
    "Source",
    "UrlsSource",
    "WebDatasetSource",
    "source_paths",
]


class Intended(Strict):
    """What images are collected for: a class of the taxonomy, and a side of its line."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    class_: str = Field(alias="class", min_length=1)
    safe: bool


MetadataField = Literal[
    "file_name",
    "url",
    "caption",
    "subject",
    "objects",
    "class",
    "safe",
    "license",
    "author",
    "page_url",
    "retrieved_at",
    "source_package",
]
"""What may be said of an image where it is listed."""


class _Source(Strict):
    """What every kind of source can be told; what a row says itself comes first."""

    unknown_licence: Literal["refuse", "keep"] = "refuse"
    intended: Intended | None = Field(default=None, description="for rows without class and safe")
    license: str = ""
    author: str = ""
    page_url: str = Field(default="", pattern=r"^(https?://\S+)?$")


class _Mapped(_Source):
    columns: dict[MetadataField, str] = Field(
        default={}, description="our field: their column; others are found under our own names"
    )

    def named(self) -> dict[str, str]:
        """Their column by our field."""
        return dict(self.columns.items())


class FolderSource(_Source):
    """A local imagefolder with `metadata.jsonl`, `.csv` or `.parquet`."""

    kind: Literal["folder"]
    path: Path


class ClassFoldersSource(_Source):
    """A local folder with a folder of images for each class."""

    kind: Literal["class_folders"]
    path: Path
    folders: dict[str, Intended] = Field(min_length=1)


class UrlsSource(_Mapped):
    """A list of URLs: a CSV or Parquet file with a row for each image."""

    kind: Literal["urls"]
    path: Path


class HubSource(_Mapped):
    """A dataset of the Hugging Face Hub at one revision, or a local folder that `datasets` can load."""

    kind: Literal["hub"]
    dataset: str | None = Field(default=None, pattern=r"^[\w.-]+(/[\w.-]+)?$")
    revision: str | None = Field(
        default=None, pattern=r"^[0-9a-f]{40}$", description="commit of the dataset: branches move"
    )
    path: Path | None = None
    config: str | None = None
    split: str = "train"
    image: str = "image"

    @model_validator(mode="after")
    def _one_place(self) -> HubSource:
        if (self.dataset is None) == (self.path is None):
            raise ValueError("name a dataset of the Hub with its revision, or a local path: one of the two")
        if self.dataset is not None and not self.revision:
            raise ValueError("revision: a dataset of the Hub changes; name the commit that is meant")
        return self


class WebDatasetSource(_Mapped):
    """Tar files whose members `key.jpg`, `key.json` and `key.txt` belong together."""

    kind: Literal["webdataset"]
    path: str = Field(
        pattern=r"^[^/]",
        description="a glob below the workspace, such as data/shards/*.tar; no absolute path",
    )


class Img2DatasetSource(_Mapped):
    """A folder that img2dataset wrote as webdataset: tar files, each with a Parquet file beside it."""

    kind: Literal["img2dataset"]
    path: Path


Source = Annotated[
    FolderSource | ClassFoldersSource | UrlsSource | HubSource | WebDatasetSource | Img2DatasetSource,
    Field(discriminator="kind"),
]
"""Where images come from."""


def source_paths(root: Path, source: Source) -> list[Path]:
    """The files and folders below the workspace that a source reads; URLs and the Hub have none."""
    if isinstance(source, WebDatasetSource):
        return sorted(path.relative_to(root) for path in root.glob(source.path))
    return [] if source.path is None else [source.path]


class Fetch(Strict):
    """How URLs are fetched: as whom, how much at once, and when to give up."""

    user_agent: str = Field(min_length=1, pattern=r"^[\x20-\x7e]+$", description="name/version (+contact)")
    at_once: int = Field(ge=1, description="requests under way in all; each may hold collect.max_bytes")
    at_once_per_host: int = Field(ge=1)
    delay_s: float = Field(
        ge=0, description="from one request to a host to the next; robots.txt may ask more"
    )
    max_delay_s: float = Field(ge=0, description="a host whose robots.txt asks for more is left alone")
    total_s: float = Field(gt=0, description="the most that one URL may keep the network busy")
    redirects: int = Field(ge=0, le=20)
    retries: int = Field(ge=0, le=10, description="of what may pass: 429, 5xx, a connection that broke")
    pause_s: float = Field(ge=0, description="before the first retry; doubled for each after it")
    max_pause_s: float = Field(ge=0, description="the most that Retry-After is followed")
    allow_private: bool = Field(description="also addresses of private networks and of this machine")


class BlockList(Strict):
    """Hashes of images that must not be kept, one in hexadecimal a line."""

    kind: Literal["sha256", "pdq"]
    path: Path
    bits: int = Field(default=31, ge=0, le=128, description="pdq: the most bits that a match may differ in")


class Collect(Strict):
    """Where images come from."""

    sources: list[Source] = Field(default=[])
    per_class: PerClass
    max_bytes: int = Field(gt=0, description="a larger file is not read")
    block_lists: list[BlockList] = Field(default=[], description="of images that must not be kept")
    fetch: Fetch
