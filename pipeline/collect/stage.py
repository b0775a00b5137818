"""Stage collect."""

from __future__ import annotations

from pathlib import Path

from pipeline.collect.folder import collect_folder
from pipeline.quota import take_per_class
from pipeline.store import Failures, TableWriter
from pipeline.workspace import Progress, Workspace
from schemas.rows import RAW_IMAGES

__all__ = ["run"]


def run(workspace: Workspace, out: Path, progress: Progress) -> None:
    """Write `images.parquet` (bytes as received, with origin) and `failures.parquet` to `out`."""
    failures = Failures("collect")
    params = workspace.params
    wanted = {c.name for c in workspace.classes()}
    with TableWriter(out / "images.parquet", RAW_IMAGES) as images:
        for source in params.collect.sources:
            listed = collect_folder(workspace.root, source, workspace.taxonomy, failures)
            found = take_per_class(
                (image for image in listed if image.meta.class_ in wanted),
                params.collect.per_class,
                lambda image: (image.meta.class_, image.meta.safe, image.meta.file_name),
                params.seed,
            )
            progress.start(f"collect {source.path}", len(found))
            for image in found:
                images.write(image.row())
                progress.advance()
    failures.write(out)
