"""The annotators of a build, on anybody's texts and images."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.annotators.aggregate import aggregate, aggregate_class
from pipeline.annotators.base import ImageItem, TextItem, Vote, image_item
from pipeline.annotators.panel import open_panel, vote_all
from pipeline.workspace import Progress, Workspace
from schemas.errors import InputError

__all__ = ["label_images", "label_texts"]

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff"})


class _Row(BaseModel):
    model_config = ConfigDict(extra="ignore")

    id: str | int
    text: str = Field(max_length=1_000_000)


def label_texts(workspace: Workspace, path: Path, progress: Progress) -> list[dict[str, Any]]:
    """Label the texts of a JSON Lines file with `id` and `text`.

    Returns:
        One row a text, in their order: `id`; `safe`, true, false or null where nobody could score it;
        `class`, a class of the taxonomy or "safe"; `score`, P(unsafe) or null; `votes`.

    Raises:
        InputError: naming the line that cannot be used.
    """
    rows = _read(path)
    items = [TextItem(str(i), row.text) for i, row in enumerate(rows)]
    with open_panel(workspace, "label") as panel:
        votes = _ask([*panel.text, panel.text_class], items, progress)
    threshold = workspace.params.thresholds.text_safe
    return [
        {"id": row.id} | _label(votes[item.id], "text", threshold)
        for row, item in zip(rows, items, strict=True)
    ]


def label_images(workspace: Workspace, folder: Path, progress: Progress) -> list[dict[str, Any]]:
    """Label every image below a folder by its pixels and the text read from it.

    Captions from a `metadata.jsonl` with `file_name` and `caption` are used where the folder has one.

    Returns:
        One row an image, by path: `id`, the path below the folder; `safe`, `class`, `score` and `votes` as
        for texts; for a file that is no usable image `safe` is null and `error` says why.

    Raises:
        InputError: when the folder is missing or holds no image.
    """
    from pipeline.curate.normalise import RejectedImageError, normalise
    from pipeline.encoders import TextReader

    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not paths:
        raise InputError(f"{folder}: no image in it ({', '.join(sorted(SUFFIXES))})")
    captions = _captions(folder / "metadata.jsonl")
    reader = TextReader()
    items: list[ImageItem] = []
    errors: dict[str, str] = {}
    progress.start("read", len(paths))
    for path in paths:
        name = path.relative_to(folder).as_posix()
        progress.advance()
        try:
            image = normalise(path.read_bytes(), workspace.params.curate)
        except RejectedImageError as error:
            errors[name] = f"{error.reason}: {error}"
            continue
        items.append(image_item(name, captions.get(name), reader.read(image.image).text, image.data))
    with open_panel(workspace, "label") as panel:
        votes = _ask(panel.image, items, progress)
    threshold = workspace.params.thresholds.image_safe
    return [
        {"id": name, "safe": None, "class": None, "score": None, "votes": [], "error": errors[name]}
        if name in errors
        else {"id": name} | _label(votes[name], "image", threshold)
        for name in (path.relative_to(folder).as_posix() for path in paths)
    ]


def _ask(annotators: Sequence[Any], items: list[Any], progress: Progress) -> dict[str, list[Vote]]:
    votes: dict[str, list[Vote]] = defaultdict(list)
    for vote in vote_all(annotators, items, progress):
        votes[vote.item_id].append(vote)
    return votes


def _label(votes: list[Vote], kind: str, threshold: float) -> dict[str, Any]:
    (label,) = aggregate((v for v in votes if v.question == f"{kind}_safe"), threshold).values()
    named = aggregate_class(v for v in votes if v.question == f"{kind}_class")
    left_out = ("item_id", "call_key")
    return {
        "safe": None if label.value is None else label.value == "safe",
        "class": None if label.value is None else ("safe" if label.value == "safe" else named.value),
        "score": label.score,
        "votes": [{k: v for k, v in asdict(vote).items() if k not in left_out} for vote in votes],
    }


def _read(path: Path) -> list[_Row]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    rows = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                rows.append(_Row.model_validate(json.loads(line)))
            except (json.JSONDecodeError, ValidationError) as error:
                problem = error.errors()[0] if isinstance(error, ValidationError) else None
                what = f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" if problem else str(error)
                raise InputError(
                    f'{path}: line {number}: {what}; a line is {{"id": ..., "text": "..."}}'
                ) from error
    if not rows:
        raise InputError(f"{path}: no rows in it")
    return rows


def _captions(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    found = {}
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}: line {number}: not JSON: {error}") from error
        if isinstance(row, dict) and isinstance(row.get("caption"), str):
            found[str(row.get("file_name"))] = row["caption"]
    return found
