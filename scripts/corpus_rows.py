"""The table of pictures that the corpus is built from."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from scripts.packages import SOURCES

INKS = {
    "black": "#1d1d22", "dark blue": "#1f3c88", "red": "#b3261e", "green": "#2e6b34", "brown": "#6b4226",
    "purple": "#5b2a86", "orange": "#c75b12", "teal": "#0f6b6b", "grey": "#5f6368", "pink": "#b8326f",
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One line of the selection table: a picture, what it shows, and its label.

    Attributes:
        source: Name among the packages.
        path: Path in its package, or name in its icon set.
        caption: What it shows.
        concept: What it is drawn of; pictures of one concept are never parted by folds.
        class_name: Class of an unsafe picture; empty for a safe one.
        near: Whether a safe picture stands near the line, like a kitchen knife, and is to be taken.
        kind: What sort of thing it is; empty where that is not plain.
    """

    source: str
    path: str
    caption: str
    concept: str
    class_name: str
    near: bool
    kind: str

    @property
    def safe(self) -> bool:
        """Whether it is labelled safe."""
        return not self.class_name

    def pick(self, purpose: str, choices: int) -> int:
        """Returns a number below ``choices`` that depends on the origin and the purpose alone."""
        digest = hashlib.sha256(f"{purpose}\n{self.source}\n{self.path}".encode()).digest()
        return int.from_bytes(digest[:8], "big") % choices

    @property
    def ink(self) -> str:
        """Name of the colour in which an icon of one colour is rendered."""
        return list(INKS)[self.pick("ink", len(INKS))]


def read_selection(path: Path, classes: Iterable[str]) -> list[Row]:
    """Reads and checks the selection table.

    Args:
        path: The CSV file.
        classes: Names that a class may have.

    Returns:
        Its rows, in order.

    Raises:
        ValueError: If a source or class is unknown, a field is missing or a picture occurs twice.
    """
    known = set(classes)
    rows: list[Row] = []
    seen: set[tuple[str, str]] = set()
    with path.open(newline="", encoding="utf-8") as handle:
        for number, raw in enumerate(csv.DictReader(handle), start=2):
            where = f"{path.name}:{number}"
            if raw["source"] not in SOURCES:
                raise ValueError(f"{where}: unknown source {raw['source']!r}")
            if not (raw["path"] and raw["caption"] and raw["concept"]):
                raise ValueError(f"{where}: path, caption or concept is missing")
            if raw["safe"] not in ("true", "false") or (raw["safe"] == "true") != (raw["class"] == ""):
                raise ValueError(f"{where}: safe and class disagree")
            if raw["near"] not in ("true", "") or (raw["near"] and raw["class"]):
                raise ValueError(f"{where}: near is wrong")
            if raw["class"] and raw["class"] not in known:
                raise ValueError(f"{where}: unknown class {raw['class']!r}")
            if (raw["source"], raw["path"]) in seen:
                raise ValueError(f"{where}: {raw['path']} is taken twice")
            seen.add((raw["source"], raw["path"]))
            names = ("source", "path", "caption", "concept", "class")
            rows.append(Row(*(raw[name] for name in names), near=raw["near"] == "true", kind=raw["kind"]))
    return rows
