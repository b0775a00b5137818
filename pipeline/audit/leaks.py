"""What stands on both sides of the split: look-alike images and near-duplicate queries."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from pipeline.audit.near_texts import NearTexts, plain
from pipeline.curate.clusters import near_pairs
from pipeline.curate.hashing import packed
from pipeline.curate.text import alike_text

__all__ = ["NearQuery", "masked", "near_images", "near_queries_across"]

MASK = "_"


class NearQuery(NamedTuple):
    """A query of each side, by its place in what was given, and what they have in common, 0..1."""

    train: int
    test: int
    jaccard: float


def masked(query: str, subject: str) -> str:
    """A query as it is compared: small letters, no punctuation, its image's subject masked."""
    text, hidden = plain(query), plain(subject)
    return re.sub(rf"\b{re.escape(hidden)}\b", MASK, text) if hidden else text


def near_queries_across(train: Sequence[str], test: Sequence[str]) -> list[NearQuery]:
    """All near pairs of masked queries, nearest first. Equal texts are compared once."""
    places: list[dict[str, list[int]]] = [defaultdict(list), defaultdict(list)]
    for side, texts in enumerate((train, test)):
        for i, text in enumerate(texts):
            places[side][text].append(i)
    found = [
        NearQuery(i, j, round(jaccard, 4))
        for tested, trained, jaccard in NearTexts([*train, *test]).pairs(list(places[1]), list(places[0]))
        for i in places[0][trained]
        for j in places[1][tested]
    ]
    return sorted(found, key=lambda p: (-p.jaccard, p.train, p.test))


def near_images(
    hashes: Sequence[str], texts: Sequence[str], splits: Sequence[str], bits: int, bits_fine: int
) -> list[tuple[int, int, int]]:
    """Pairs of images of different sides that look alike by their hashes, mirrored copies too.

    Documents of one layout have hashes alike and are told apart by the text read in them, as in curate.

    Args:
        hashes: the fine hashes, 64 hexadecimal digits each.
        texts: the text read in each.
        splits: the side of each.
        bits: how many of the 64 coarse bits may differ.
        bits_fine: how many of the 256 fine bits may differ.

    Returns:
        Both places and how many fine bits differ as the pictures stand, fewest first.
    """
    if not hashes:
        return []
    raw = [bytes.fromhex(h) for h in hashes]
    found = []
    for i, j in near_pairs(packed(raw), bits, bits_fine).tolist():
        if splits[i] != splits[j] and alike_text(texts[i], texts[j]):
            found.append((i, j, (int.from_bytes(raw[i]) ^ int.from_bytes(raw[j])).bit_count()))
    return sorted(found, key=lambda p: (p[2], p[0], p[1]))
