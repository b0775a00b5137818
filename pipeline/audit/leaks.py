"""What stands on both sides of the split: look-alike images and near-duplicate queries."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from pipeline.curate.clusters import near_pairs
from pipeline.curate.hashing import packed
from pipeline.curate.text import alike_text

__all__ = ["NEAR_TENTHS", "NearQuery", "masked", "near_images", "near_queries_across", "shingles"]

NEAR_TENTHS = 8
"""Near-duplicate queries have at least so many tenths of their different shingles in common (Jaccard)."""
LENGTH = 5
MASK = "_"
_WORD = re.compile(r"\w+")


class NearQuery(NamedTuple):
    """A query of each side, by its place in what was given, and what they have in common, 0..1."""

    train: int
    test: int
    jaccard: float


def masked(query: str, subject: str) -> str:
    """A query as it is compared: small letters, no punctuation, its image's subject masked."""
    text, hidden = (
        " ".join(_WORD.findall(unicodedata.normalize("NFKC", s).casefold())) for s in (query, subject)
    )
    return re.sub(rf"\b{re.escape(hidden)}\b", MASK, text) if hidden else text


def shingles(text: str) -> frozenset[str]:
    """Its different runs of five letters; a shorter text is its own."""
    return frozenset(text[i : i + LENGTH] for i in range(max(1, len(text) - LENGTH + 1)))


def near_queries_across(train: Sequence[str], test: Sequence[str]) -> list[NearQuery]:
    """All near pairs of masked queries, nearest first: exact for the threshold.

    Two sets with a Jaccard index of at least t share one of the rarest n - ceil(t n) + 1 members of each,
    where n is its size (prefix filtering, Chaudhuri, Ganti and Kaushik 2006). Only those are indexed. Equal
    texts are compared once.
    """
    places: list[dict[str, list[int]]] = [defaultdict(list), defaultdict(list)]
    for side, texts in enumerate((train, test)):
        for i, text in enumerate(texts):
            places[side][text].append(i)
    sets = {text: shingles(text) for side in places for text in side}
    count = Counter(s for own in sets.values() for s in own)
    rare = {
        text: sorted(own, key=lambda s: (count[s], s))[: len(own) - _least(len(own)) + 1]
        for text, own in sets.items()
    }
    index: dict[str, list[str]] = defaultdict(list)
    for text in places[0]:
        for shingle in rare[text]:
            index[shingle].append(text)
    found = []
    for text in places[1]:
        own = sets[text]
        met = dict.fromkeys(other for shingle in rare[text] for other in index.get(shingle, ()))
        for other in met:
            small, large = sorted((len(own), len(sets[other])))
            if 10 * small < NEAR_TENTHS * large:
                continue
            both = len(own & sets[other])
            either = len(own) + len(sets[other]) - both
            if 10 * both >= NEAR_TENTHS * either:
                found += [
                    NearQuery(i, j, round(both / either, 4))
                    for i in places[0][other]
                    for j in places[1][text]
                ]
    return sorted(found, key=lambda p: (-p.jaccard, p.train, p.test))


def _least(size: int) -> int:
    """Members that a set of this size shares at least with any set that is near it."""
    return -(-NEAR_TENTHS * size // 10)


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
