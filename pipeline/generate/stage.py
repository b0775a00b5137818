"""Stage generate: the drawings that a taxonomy asks for, then the pictures that params ask for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.collect.blocklist import BLOCKED, load_block_lists
from pipeline.collect.fetched import now
from pipeline.generate.draw import DrawingError, draw
from pipeline.generate.encoding import encode, image_seed
from pipeline.generate.pictures import AUTHOR, KILLED, Made, make_pictures
from pipeline.generate.placeholders import placeholders
from pipeline.parallel import WorkerDied, in_processes
from pipeline.quota import take_per_class
from pipeline.store import Failures, TableWriter, canonical_json, sha256_bytes, write_rows
from pipeline.workspace import Progress, Workspace
from schemas.rows import CALLS, RAW_IMAGES
from schemas.taxonomy import ClassInfo, Drawing, Taxonomy

__all__ = ["drawings_of", "run"]

OWN_LICENCE = "Apache-2.0"
WORTH_PROCESSES = 500
"""Drawings for which other processes of this machine are worth their start."""


def run(workspace: Workspace, out: Path, progress: Progress) -> None:
    """Write `images.parquet` (bytes with recipe) and `failures.parquet` to `out`.

    Where generators are named, `calls.parquet` tells which calls the pictures rest on.
    """
    failures = Failures("generate")
    wanted = {info.name for info in workspace.classes()}
    limits = workspace.params.generate.drawings
    lists = load_block_lists(workspace.root, workspace.params.collect.block_lists)
    drawings = take_per_class(
        (d for d in drawings_of(workspace.taxonomy, workspace.params.seed) if d[0].name in wanted),
        limits,
        lambda d: (d[0].name, d[1].safe, d[1].id),
        workspace.params.seed,
    )
    progress.start("generate", len(drawings))
    with TableWriter(out / "images.parquet", RAW_IMAGES) as images:
        jobs = ((drawing, seed) for _, drawing, seed in drawings)
        drawn = in_processes(_drawn, jobs, worth=len(drawings) >= WORTH_PROCESSES)
        for (info, drawing, _), (_, found) in zip(drawings, drawn, strict=True):
            progress.advance()
            if not isinstance(found, tuple):
                why = KILLED if isinstance(found, WorkerDied) else found
                failures.add("", f"drawing:{drawing.id}", "cannot be drawn", why)
                continue
            data, recipe = found
            if match := lists.hit(data):
                failures.add(sha256_bytes(data), f"drawing:{drawing.id}", BLOCKED, f"{match} at {now()}")
                continue
            images.write(
                {
                    "image_id": sha256_bytes(data),
                    "source_uri": f"drawing:{drawing.id}",
                    "source_kind": "drawing",
                    "page_url": "",
                    "source_package": "",
                    "author": AUTHOR,
                    "licence": OWN_LICENCE,
                    "redistributable": "yes",
                    "retrieved_at": "",
                    "generator": f"drawn:{drawing.kind}",
                    "recipe": recipe,
                    "caption": drawing.caption,
                    "subject": drawing.subject,
                    "objects": list(drawing.objects),
                    "intended_class": info.name,
                    "intended_safe": drawing.safe,
                    "bytes": data,
                }
            )
        for card in placeholders(
            workspace.params.generate.placeholders, workspace.classes(), workspace.params.seed
        ):
            images.write(card)
        if workspace.params.generate.pictures:
            made = make_pictures(workspace, lists, failures, progress)
            write_rows(out / "calls.parquet", CALLS, _written(images, made))
    failures.write(out)


def _drawn(job: tuple[Drawing, int]) -> tuple[bytes, str] | str:
    """The file of a drawing with its recipe, or why it cannot be drawn."""
    drawing, seed = job
    try:
        drawn = draw(drawing, seed)
    except DrawingError as error:
        return str(error)
    data, _ = encode(drawn.image, drawing.id)
    return data, canonical_json(drawn.recipe)


def _written(images: TableWriter, made: Iterable[Made]) -> Iterator[dict[str, str]]:
    """Write the row of each picture; gives the calls that it rests on."""
    for picture in made:
        row = picture.row
        if row is not None:
            images.write(row)
        for key in picture.call_keys:
            yield {"item_id": row["image_id"] if row else "", "call_key": key}


def drawings_of(taxonomy: Taxonomy, seed: int) -> Iterator[tuple[ClassInfo, Drawing, int]]:
    """Every drawing of the taxonomy with its class and its own seed, in the order of the file."""
    for info in taxonomy.classes():
        for drawing in info.spec.generation.drawings:
            yield info, drawing, image_seed(seed, drawing.id)
