"""Which drawings a taxonomy asks for, with their seeds, and how pictures are encoded."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from pipeline.collect.blocklist import BLOCKED, load_block_lists
from pipeline.collect.fetched import now
from pipeline.generate.draw import DrawingError, draw
from pipeline.quota import take_per_class
from pipeline.store import Failures, TableWriter, canonical_json, sha256_bytes
from pipeline.workspace import Progress, Workspace
from schemas.rows import RAW_IMAGES
from schemas.taxonomy import ClassInfo, Drawing, Taxonomy

__all__ = ["drawings_of", "encode", "image_seed", "run"]

OWN_LICENCE = "Apache-2.0"


def run(workspace: Workspace, out: Path, progress: Progress) -> None:
    """Write `images.parquet` (bytes with recipe) and `failures.parquet` to `out`."""
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
        for info, drawing, seed in drawings:
            progress.advance()
            try:
                drawn = draw(drawing, seed)
            except DrawingError as error:
                failures.add("", f"drawing:{drawing.id}", "cannot be drawn", str(error))
                continue
            data, _ = encode(drawn.image, drawing.id)
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
                    "author": "holisafe-pipeline",
                    "licence": OWN_LICENCE,
                    "redistributable": "yes",
                    "retrieved_at": "",
                    "generator": f"drawn:{drawing.kind}",
                    "recipe": canonical_json(drawn.recipe),
                    "caption": drawing.caption,
                    "subject": drawing.subject,
                    "objects": list(drawing.objects),
                    "intended_class": info.name,
                    "intended_safe": drawing.safe,
                    "bytes": data,
                }
            )
    failures.write(out)


def image_seed(seed: int, drawing_id: str) -> int:
    """The seed of one drawing: of its id and the build's seed alone, so that a new drawing moves no other."""
    digest = hashlib.sha256(f"{seed}:{drawing_id}".encode()).digest()
    return int.from_bytes(digest[:6], "big")  # 48 bits: exact in JSON everywhere


def drawings_of(taxonomy: Taxonomy, seed: int) -> Iterator[tuple[ClassInfo, Drawing, int]]:
    """Every drawing of the taxonomy with its class and its own seed, in the order of the file."""
    for info in taxonomy.classes():
        for drawing in info.spec.generation.drawings:
            yield info, drawing, image_seed(seed, drawing.id)


def encode(image: Image.Image, drawing_id: str) -> tuple[bytes, str]:
    """A file of the picture: PNG or JPEG, by a hash of the id, so that the format tells nothing of the label.

    Returns:
        The bytes and the extension, `png` or `jpg`.
    """
    buffer = io.BytesIO()
    if hashlib.sha256(f"format:{drawing_id}".encode()).digest()[0] % 2:
        image.save(buffer, "PNG", optimize=True)
        return buffer.getvalue(), "png"
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue(), "jpg"
