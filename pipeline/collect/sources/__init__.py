"""Readers of sources, one a kind of `collect.sources`."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.collect.sources.base import Found, Problem, Received, Source
from schemas import params

if TYPE_CHECKING:
    from pipeline.collect.fetch import Fetcher

__all__ = ["Found", "Problem", "Received", "Source", "open_source"]


def open_source(
    root: Path,
    said: params.Source,
    classes: Collection[str],
    max_bytes: int,
    fetcher: Callable[[], Fetcher],
) -> Source:
    """The reader of a source.

    Args:
        root: the workspace.
        said: what params say of the source.
        classes: that the taxonomy has.
        max_bytes: of one image.
        fetcher: gives who fetches URLs; called only where some are wanted.
    """
    from pipeline.collect.sources.folder import ClassFolders, Folder
    from pipeline.collect.sources.hub import Hub
    from pipeline.collect.sources.tars import Img2Dataset, WebDataset
    from pipeline.collect.sources.urls import Urls

    match said:
        case params.FolderSource():
            return Folder(root, said, classes, max_bytes)
        case params.ClassFoldersSource():
            return ClassFolders(root, said, classes, max_bytes)
        case params.UrlsSource():
            return Urls(root, said, fetcher)
        case params.HubSource():
            return Hub(root, said, max_bytes)
        case params.WebDatasetSource():
            return WebDataset(root, said, max_bytes)
        case params.Img2DatasetSource():
            return Img2Dataset(root, said, max_bytes)
