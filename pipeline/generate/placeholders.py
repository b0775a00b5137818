"""Cards that stand for pictures, so that a build can be rehearsed at full size without any.

A card shows a pattern that no other card has. Its caption says what it stands for, which is all that the
scripted annotators of a rehearsal go by.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.store import canonical_json, sha256_bytes, sha256_text
from schemas.params import Placeholders
from schemas.taxonomy import ClassInfo

__all__ = ["placeholders"]

BLOCKS = 12
SIDE = 96
"""Pixels."""


def placeholders(
    wanted: Sequence[Placeholders], classes: Sequence[ClassInfo], seed: int
) -> Iterator[dict[str, Any]]:
    """The rows of the cards, concept after concept, for `images.parquet`.

    Args:
        wanted: of params.
        classes: those that the build covers.
        seed: of the build.
    """
    for entry, said in enumerate(wanted):
        for info in classes:
            if said.classes and info.name not in said.classes:
                continue
            for safe, number in ((True, said.per_class.safe), (False, said.per_class.unsafe)):
                concepts = info.spec.concepts.safe if safe else info.spec.concepts.unsafe
                # What may never be pictured is named by its class alone.
                concepts = concepts or [info.spec.title.lower()]
                for n in range(number):
                    yield _card(info, concepts[n % len(concepts)], safe=safe, name=f"{seed}:{entry}:{n}")


def _card(info: ClassInfo, concept: str, *, safe: bool, name: str) -> dict[str, Any]:
    side = "safe" if safe else "unsafe"
    source = f"{info.name}:{side}:{name}"
    data = _drawn(source)
    return {
        "image_id": sha256_bytes(data),
        "source_uri": f"placeholder:{source}",
        "source_kind": "placeholder",
        "page_url": "",
        "source_package": "",
        "author": "holisafe-pipeline",
        "licence": "Apache-2.0",
        "redistributable": "yes",
        "retrieved_at": "",
        "generator": "drawn:placeholder",
        "recipe": canonical_json({"method": "placeholder", "of": source}),
        "caption": f"placeholder, {side}: {concept}, card {sha256_text(source)[:8]}",
        "subject": f"the {concept}",
        "objects": [concept],
        "intended_class": info.name,
        "intended_safe": safe,
        "bytes": data,
    }


def _drawn(source: str) -> bytes:
    """A PNG of grey blocks, the same for the same source."""
    from PIL import Image

    greys = hashlib.shake_256(source.encode()).digest(BLOCKS * BLOCKS)
    buffer = io.BytesIO()
    card = Image.frombytes("L", (BLOCKS, BLOCKS), greys).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    card.save(buffer, "PNG")
    return buffer.getvalue()
