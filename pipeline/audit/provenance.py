"""Where images come from and under which terms, as far as the dataset says."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pandas as pd

__all__ = ["PROVENANCE", "Provenance", "provenance"]

PROVENANCE = ("licence", "source_uri", "page_url", "author", "generator", "redistributable")
UNKNOWN = frozenset({"", "unknown", "licenseref-unknown", "noassertion", "none", "n/a"})


@dataclass(frozen=True, slots=True)
class Provenance:
    """What is known of the images.

    Attributes:
        images: different images.
        known: by field, for how many images it says something.
        licences: images by licence, `unknown` for those without.
        complete: images with a licence and a source or a generator.
        not_redistributable: images that may not be given away, or of which nobody knows.
    """

    images: int
    known: dict[str, int]
    licences: dict[str, int]
    complete: int
    not_redistributable: int


def provenance(rows: pd.DataFrame) -> Provenance:
    """Look at each image once, in the first row that has it."""
    images = rows.drop_duplicates("image")
    said = {
        field: [_known(value) for value in images[field]] if field in images else [None] * len(images)
        for field in PROVENANCE
    }
    licences = Counter(value or "unknown" for value in said["licence"])
    return Provenance(
        len(images),
        {field: sum(value is not None for value in values) for field, values in said.items()},
        dict(sorted(licences.items(), key=lambda kv: (-kv[1], kv[0]))),
        sum(
            licence is not None and (source is not None or generator is not None)
            for licence, source, generator in zip(
                said["licence"], said["source_uri"], said["generator"], strict=True
            )
        ),
        sum(value is None or value.lower() != "yes" for value in said["redistributable"]),
    )


def _known(value: Any) -> str | None:
    return value if isinstance(value, str) and value.strip().lower() not in UNKNOWN else None
