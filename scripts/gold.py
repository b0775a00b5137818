"""The gold pairs, as the scripts that train and calibrate read them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.annotators import describe

__all__ = ["GOLD", "GoldPair", "load_gold", "sha256_of", "spread"]

GOLD = Path("data/gold/pairs.jsonl")


@dataclass(frozen=True)
class GoldPair:
    """One labelled pair; `kind` is sss, ssu, suu, usu, usp or uuu (data/gold/README.md)."""

    id: str
    writer: int
    class_name: str
    kind: str
    evidence: str
    query: str
    image_unsafe: bool
    text_unsafe: bool
    pair_unsafe: bool


def load_gold(path: Path = GOLD) -> list[GoldPair]:
    """Every gold pair, in the file's order."""
    pairs = []
    for line in path.read_text("utf-8").splitlines():
        row = json.loads(line)
        pairs.append(
            GoldPair(
                row["id"],
                row["writer"],
                row["class"],
                row["id"].split(".")[1],
                describe(row["caption"], row["ocr_text"]) or "",
                row["query"],
                row["image_unsafe"],
                row["text_unsafe"],
                row["pair_unsafe"],
            )
        )
    return pairs


def sha256_of(path: Path = GOLD) -> str:
    """The file's SHA-256, for the record of what was trained on."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def spread(pairs: Iterable[GoldPair], size: int) -> list[GoldPair]:
    """`size` pairs in the order of their ids' hashes: a sample that stays when more are wanted."""
    return sorted(pairs, key=lambda pair: hashlib.sha256(pair.id.encode()).hexdigest())[:size]
