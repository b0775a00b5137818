"""What a model answered to the rows of a benchmark, as people keep it, held to the rows one by one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.anyset import AnySet, Problems
from pipeline.bench.json_rows import Unreadable, json_rows
from pipeline.bench.judging import Response
from schemas.taxonomy import PAIR_TYPES, PairType

__all__ = ["EXPECTED", "Answered", "read_predictions"]

EXPECTED = ("refuse", "safe_complete", "support", "comply")
"""What a row may expect of a model."""

BLOCKED = "blocked"
_SURROGATE = re.compile("[\ud800-\udfff]")
_IMAGE_MARK = "<image>"
_OWN = ("image", "query", "type", "category", "subcategory", "expected", "contrast_square")
_KEPT = ("image_safe", "image_safety_label")


@dataclass(frozen=True, slots=True)
class Answered:
    """A row of a benchmark, and what the model said to it.

    Attributes:
        id: of the row; None where it has none.
        response: what is judged; without text where there is no prediction that is a text.
        lack: why it is without text; empty where it has one.
        type: of the pair; None where nobody said, or it is unknown.
        category: of the harm; None where nobody said.
        subcategory: the category's name where it has no second level; None where nobody said.
        image: equal where rows share one; None where nobody said.
        expected: comply, safe_complete, refuse or support; None where nobody said.
        square: the contrast square it belongs to; None where it belongs to none.
        fields: those of HoliSafe's eight fields that are known, for results.
    """

    id: int | str | None
    response: Response
    lack: str
    type: PairType | None
    category: str | None
    subcategory: str | None
    image: str | None
    expected: str | None
    square: str | None
    fields: dict[str, Any]


def read_predictions(path: Path, data: AnySet | None, problems: Problems) -> Iterator[Answered]:
    """The rows of a benchmark with what a model said, in the order of the file.

    The file is a JSON list or JSON Lines. A row has `prediction`, or `conversations` as LLaVA has them, whose
    last turn by `gpt` is the prediction; a `status` of `blocked` says that the provider let no model answer.
    Samples that lmms-eval logs of our task have the prediction in `filtered_resps` and the id in `target`.
    Other keys but the eight fields, `expected` and `contrast_square` are ignored. With data, a row needs `id`
    and its prediction, all else is the data's; rows of the data that the file lacks come last, without text.

    Args:
        path: the file.
        data: the dataset that was asked; None: each row has the eight fields itself.
        problems: takes down what is wrong. A row that is no object, repeats an id, or is none of the data's,
            is left out; every other one is in what comes back.

    Raises:
        InputError: when the file cannot be read or holds neither a list nor lines of objects.
    """
    asked = None if data is None else {str(row["id"]): row for row in data.rows.to_dict("records")}
    seen: set[str] = set()
    for number, row in enumerate(json_rows(path), 1):
        found = _one(number, row, asked, seen, problems)
        if found is None:
            problems.rows_left_out += 1
        else:
            yield found
    for key, fields in (asked or {}).items():
        if key not in seen:
            problems.add(0, key, "prediction", "no row for it", "it counts as unscorable", kept=True)
            yield _answered(key, fields, None, "no row for it")


def _one(
    number: int, row: Any, asked: Mapping[str, dict[Any, Any]] | None, seen: set[str], problems: Problems
) -> Answered | None:
    if isinstance(row, Unreadable):
        problems.add(number, "", "", "not JSON", row.problem, kept=False)
        return None
    if not isinstance(row, Mapping):
        problems.add(number, "", "", "not an object", f"it is {type(row).__name__}", kept=False)
        return None
    row = _of_lmms_eval(row)
    key, fault = _key(row.get("id"))
    name = _shown(row.get("id"))
    if fault:
        problems.add(number, name, "id", fault, kept=asked is None)
        if asked is not None:
            return None
    elif key in seen:
        problems.add(number, name, "id", "another row has it", kept=False)
        return None
    elif asked is not None and key not in asked:
        problems.add(number, name, "id", "the data have no such row", kept=False)
        return None
    if not fault:
        seen.add(key)
    text, query, field, lack = _said(row)
    if lack:
        problems.add(number, name, field, lack, "it counts as unscorable", kept=True)
    elif text is not None and _SURROGATE.search(text):
        problems.add(number, name, field, "not UTF-8", "such letters are replaced", kept=True)
    if asked is not None:
        fields: Mapping[Any, Any] = asked[key]
        for of in ("type", "query"):
            if isinstance(own := row.get(of), str) and own.strip() != str(fields[of]).strip():
                problems.add(number, name, of, "contradicts the data", "taken from the data", kept=True)
    else:
        fields = _own(row, query)
        for of in ("type", "category", "image"):
            if fields[of] is None:
                problems.add(number, name, of, "missing", kept=True)
        for of, values in (("type", PAIR_TYPES), ("expected", EXPECTED)):
            if fields[of] is not None and fields[of] not in values:
                problems.add(number, name, of, "unknown", _shown(fields[of]), kept=True)
    blocked = row.get("status") == BLOCKED
    return _answered(key or f"row {number}", fields, text, lack, None if fault else row["id"], blocked)


def _answered(
    key: str,
    fields: Mapping[Any, Any],
    text: str | None,
    lack: str,
    id_: int | str | None = None,
    blocked: bool = False,
) -> Answered:
    def said(name: str) -> str | None:
        value = fields.get(name)
        return _clean(value) if isinstance(value, str) and value.strip() else None

    kind = fields.get("type")
    known = {name: value for name in _OWN[:5] if (value := said(name)) is not None}
    known |= {name: fields[name] for name in _KEPT if isinstance(fields.get(name), bool | int)}
    category = said("category")
    given = fields.get("id", id_)
    return Answered(
        id=_clean(given) if isinstance(given, str) else given,
        response=Response(key, None if text is None else _clean(text), said("query"), blocked),
        lack=lack,
        type=kind if kind in PAIR_TYPES else None,
        category=category,
        subcategory=said("subcategory") or category,
        image=said("image"),
        expected=said("expected"),
        square=said("contrast_square"),
        fields=known,
    )


def _own(row: Mapping[str, Any], query: str | None) -> dict[str, Any]:
    """What the row says of itself; an image may be an object with its path, as in tables of the Hub."""
    fields = {name: row.get(name) for name in (*_OWN, *_KEPT)}
    if isinstance(fields["image"], Mapping):
        fields["image"] = fields["image"].get("path")
    for name in _OWN:
        if not isinstance(fields[name], str) and name != "type":
            fields[name] = None
    fields["query"] = fields["query"] or query
    return fields


def _of_lmms_eval(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A sample that lmms-eval logged as a row of predictions; any other row as it is."""
    if "filtered_resps" not in row or "prediction" in row:
        return row
    said = row["filtered_resps"]
    # One response of a request stands bare or in a list of its own, as the version of lmms-eval has it.
    return {"id": row.get("target"), "prediction": said[0] if isinstance(said, list) and said else said}


def _said(row: Mapping[str, Any]) -> tuple[str | None, str | None, str, str]:
    """The prediction, the query if it stands beside it, the field it is from, and what is wrong with it."""
    if "prediction" in row or "conversations" not in row:
        value, query, field = row.get("prediction"), None, "prediction"
    else:
        field = "conversations"
        if not isinstance(row[field], list):
            return None, None, field, "not a list"
        turns = [turn for turn in row[field] if isinstance(turn, Mapping)]
        last = max((i for i, turn in enumerate(turns) if turn.get("from") == "gpt"), default=None)
        if last is None:
            return None, None, field, "no turn by gpt"
        value = turns[last].get("value")
        asked = [turn.get("value") for turn in turns[:last] if turn.get("from") == "human"]
        query = asked[-1].replace(_IMAGE_MARK, "").strip() if asked and isinstance(asked[-1], str) else None
    if isinstance(value, str):
        return value, query, field, ""
    return None, query, field, "missing" if value is None else "not a text"


def _key(id_: Any) -> tuple[str, str]:
    """An id as text, so that 7 and "7" are one; and what is wrong with it."""
    if id_ is None:
        return "", "missing"
    if isinstance(id_, str) and id_.strip():
        return _clean(id_.strip()), ""
    if isinstance(id_, int) and not isinstance(id_, bool):
        return str(id_), ""
    return "", "neither a whole number nor a text"


def _clean(text: str) -> str:
    return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)


def _shown(value: Any) -> str:
    return "" if value is None else str(value)[:30] if isinstance(value, int) else ascii(value)[:60]
