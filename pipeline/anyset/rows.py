"""Rows as they were written, held to the eight fields, one by one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from pipeline.anyset.problems import Problems
from pipeline.anyset.table import FIELDS, FURTHER
from schemas.taxonomy import PAIR_TYPES

__all__ = ["checked"]

_TEXTS = ("query", "category", "subcategory")
_LABELS = 2**31
_IDS = 2**63


def checked(rows: Iterable[Any], problems: Problems) -> pd.DataFrame:
    """The table of the rows that can be audited.

    A row is left out without an id, an image, a query, a type or a category, with an id that another row has,
    or with text that is no text. Where `image_safe` or its label contradicts the type, the row is kept as it
    stands.

    Args:
        rows: mappings with whatever keys; the image is a key already.
        problems: takes down what is wrong.

    Returns:
        `row`, `FIELDS`, and those of `FURTHER` that any row has a value for.
    """
    names = ("row", *FIELDS, *FURTHER)
    columns: dict[str, list[Any]] = {name: [] for name in names}
    seen: set[int] = set()
    # Rows say the same of their class, source and licence: one text for all of them.
    same: dict[str, str] = {}
    for number, row in enumerate(rows, 1):
        found = _one(number, row, seen, problems)
        if found is None:
            problems.rows_left_out += 1
            continue
        for name in names:
            value = found.get(name)
            columns[name].append(same.setdefault(value, value) if isinstance(value, str) else value)
    table = pd.DataFrame({name: columns[name] for name in ("row", *FIELDS)})
    table = table.astype({"row": "int64", "id": "int64", "image_safe": bool, "image_safety_label": "int64"})
    for name in FURTHER:
        if any(value is not None for value in columns[name]):
            table[name] = pd.Series(columns[name], dtype=object)
    return table


def _one(number: int, row: Any, seen: set[int], problems: Problems) -> dict[str, Any] | None:
    """A row with every field in its type, or None."""
    if not isinstance(row, Mapping):
        problems.add(number, "", "", "not an object", f"it is {type(row).__name__}", kept=False)
        return None
    id_ = row.get("id")
    name = "" if id_ is None else _shown(id_)

    def bad(field: str, kind: str, detail: str = "", *, kept: bool = False) -> None:
        problems.add(number, name, field, kind, detail, kept=kept)

    usable = True
    if id_ is None:
        bad("id", "missing")
        usable = False
    elif isinstance(id_, bool) or not isinstance(id_, int) or not -_IDS <= id_ < _IDS:
        bad("id", "not a whole number", name)
        usable = False
    elif id_ in seen:
        bad("id", "another row has it", name)
        usable = False
    found: dict[str, Any] = {"row": number, "id": id_}
    if isinstance(id_, int) and usable:
        seen.add(id_)
    for field in ("image", *_TEXTS):
        value = row.get(field)
        if field == "subcategory" and value is None:
            value = row.get("category")  # sexual_content has no second level
        problem = _text_problem(value)
        if problem:
            bad(field, problem)
            usable = False
        found[field] = value
    kind = row.get("type")
    if kind not in PAIR_TYPES:
        bad("type", _lack(kind, "unknown"), "" if kind is None else _shown(kind))
        usable = False
    if not usable:
        return None
    found["type"] = kind
    _image_label(row, found, bad)
    for field in FURTHER:
        value = row.get(field)
        if isinstance(value, str) and (problem := _text_problem(value)):
            if problem != "empty":
                bad(field, problem, kept=True)
            value = None
        found[field] = value if isinstance(value, str | bool | int | float) else None
    return found


def _image_label(row: Mapping[str, Any], found: dict[str, Any], bad: Any) -> None:
    by_type = found["type"].startswith("S")
    safe = row.get("image_safe")
    if not isinstance(safe, bool):
        bad("image_safe", _lack(safe, "not true or false"), "taken from the type", kept=True)
        safe = by_type
    elif safe is not by_type:
        bad("image_safe", "contradicts the type", f"{safe} in a row of type {found['type']}", kept=True)
    label = row.get("image_safety_label")
    if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < _LABELS:
        bad("image_safety_label", _lack(label, "not a whole number from 0"), kept=True)
        label = -1
    elif (label == 0) is not safe:
        bad("image_safety_label", "contradicts image_safe", f"{label} where image_safe is {safe}", kept=True)
    found["image_safe"], found["image_safety_label"] = safe, label


def _lack(value: Any, otherwise: str) -> str:
    return "missing" if value is None else otherwise


def _text_problem(value: Any) -> str:
    if value is None:
        return "missing"
    if not isinstance(value, str):
        return "not a text"
    if not value.strip():
        return "empty"
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return "not UTF-8"
    return ""


def _shown(value: Any) -> str:
    return ascii(value)[:60] if not isinstance(value, int) else str(value)[:30]
