"""Growing the taxonomy: a class is added to its files or taken from them; nothing else in them is touched."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from pipeline.store import read_rows, write_text
from schemas.errors import InputError, load_yaml, validated
from schemas.params import Params
from schemas.queries import SceneFile
from schemas.taxonomy import PAIR_TYPES, Taxonomy, load_taxonomy
from schemas.taxonomy_lock import (
    LockLine,
    check_lines,
    check_lock,
    lock_path,
    new_lines,
    next_id,
    read_lock,
    standing,
)

__all__ = ["TODO", "add_class", "check_finished", "lock_classes", "retire_class", "rows_of_class"]

TODO = "TODO"
"""Marks what a scaffold leaves to be written."""
_NAME = re.compile(r"^[a-z][a-z0-9_]*$")


def lock_classes(root: Path, params: Params, note: str = "") -> list[LockLine]:
    """Give the taxonomy's new classes their ids for good; the lines that were added to the lock.

    Raises:
        InputError: when the lock is broken, or an id was given before.
    """
    path = root / params.taxonomy
    taxonomy, lines = load_taxonomy(path), read_lock(lock_path(path))
    added = new_lines(taxonomy, lines, note)
    _append(lock_path(path), lines, added)
    return added


def add_class(
    root: Path, params: Params, category: str, name: str, title: str, filled: Path | None = None
) -> list[Path]:
    """Add a class: its text to the taxonomy, its query scenes, and a line to the lock.

    Args:
        root: the workspace.
        params: which say where the files are.
        category: a category of the taxonomy, or a new one.
        name: of the class.
        title: for people.
        filled: a YAML file with `class` and `scenes` as they stand in the two files, without the id; without
            it both are a scaffold whose gaps are marked.

    Returns:
        The files that were changed.

    Raises:
        InputError: when the name is taken or no name, or what was filled in cannot be used. Nothing is
            changed then.
    """
    path = root / params.taxonomy
    taxonomy, lines = load_taxonomy(path), read_lock(lock_path(path))
    check_lock(taxonomy, path)
    for what, value in (("category", category), ("name", name)):
        if not _NAME.match(value):
            raise InputError(f"{what} {value!r}: small letters, digits and _ only, a letter first")
    if name in {info.name for info in taxonomy.classes()}:
        raise InputError(f"{path}: there is a class {name!r} already; choose another name")
    number = max(next_id(lines), 1 + max(info.id for info in taxonomy.classes()))
    body, scenes = _scaffold(name, title) if filled is None else _filled(filled)
    body = {"id": number, "title": title, **{k: v for k, v in body.items() if k not in ("id", "title")}}
    text = _raised(_with_class(path.read_text(), category, name, title, body))
    scene_path = root / params.prompts / "queries" / f"{category}.yaml"
    scene_text = _with_scenes(scene_path, name, scenes)
    # Both are read before anything is written.
    grown = validated(Taxonomy, yaml.safe_load(text), path)
    validated(SceneFile, yaml.safe_load(scene_text), scene_path)
    more = [*([] if lines else new_lines(taxonomy, [])), *new_lines(grown, lines or new_lines(taxonomy, []))]
    check_lines([*lines, *more], lock_path(path))
    if filled is not None:
        check_finished(path, yaml.safe_load(text))
        check_finished(scene_path, yaml.safe_load(scene_text))
    # The lock last: a class without its line is refused with what to do, a line without its class is too.
    write_text(scene_path, scene_text)
    write_text(path, text)
    _append(lock_path(path), lines, more)
    return [scene_path, path, lock_path(path)]


def rows_of_class(root: Path, name: str) -> dict[str, int]:
    """Rows of the built dataset that show a class's harm, by type."""
    found: Counter[str] = Counter()
    for path in sorted((root / "data" / "dataset" / "data").rglob("*.parquet")):
        for row in read_rows(path, ["class_key", "type"]):
            if row["class_key"].rsplit("/", 1)[1] == name:
                found[row["type"]] += 1
    return {kind: found[kind] for kind in PAIR_TYPES if found[kind]}


def retire_class(root: Path, params: Params, name: str) -> list[Path]:
    """Take a class away: its text, its scenes, and a line in the lock that its id is used no more.

    A class whose text is gone already is only taken out of the scenes and the lock.

    Raises:
        InputError: when no such class has an id, or it is the last one.
    """
    path = root / params.taxonomy
    taxonomy, lines = load_taxonomy(path), read_lock(lock_path(path))
    locked = lines or new_lines(taxonomy, [])
    here = next((info for info in taxonomy.classes() if info.name == name), None)
    line = next((old for old in standing(locked).values() if old.class_key.rsplit("/", 1)[1] == name), None)
    if line is None:
        raise InputError(
            f"{lock_path(path)}: no class {name!r} has an id; `holisafe taxonomy lock` gives it one"
        )
    text = path.read_text()
    if here is not None:
        if len(list(taxonomy.classes())) == 1:
            raise InputError(f"{path}: {name} is the last class; a taxonomy has one at least")
        alone = len(taxonomy.categories[here.category].classes) == 1
        text = _raised(_without(text, ["categories", here.category, *([] if alone else ["classes", name])]))
    version = validated(Taxonomy, yaml.safe_load(text), path).version
    gone = line.model_copy(update={"change": "retired", "version": version, "note": ""})
    changed = [path, lock_path(path)]
    for scene_path in sorted((root / params.prompts / "queries").glob("*.yaml")):
        classes = load_yaml(scene_path)["classes"]
        if name in classes and len(classes) == 1:
            scene_path.unlink()
        elif name in classes:
            write_text(scene_path, _without(scene_path.read_text(), ["classes", name]))
        if name in classes:
            changed.append(scene_path)
    write_text(path, text)
    # Last, so that what was begun can be done again.
    _append(lock_path(path), lines, [*([] if lines else locked), gone])
    return changed


def check_finished(path: Path, data: Any) -> None:
    """See that nothing of a scaffold is left to be written.

    Raises:
        InputError: naming the file and every place.
    """
    if places := [where for where, text in _texts(data) if TODO in text]:
        raise InputError(
            f"{path}: {len(places)} place(s) still say {TODO}; write them: {', '.join(places[:12])}"
            + (" …" if len(places) > 12 else "")
        )


def _texts(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(inner, f"{where}.{key}".lstrip("."))
    elif isinstance(value, list):
        for n, inner in enumerate(value):
            yield from _texts(inner, f"{where}.{n}")


def _append(path: Path, lines: list[LockLine], more: list[LockLine]) -> None:
    check_lines([*lines, *more], path)
    text = "".join(json.dumps(line.model_dump()) + "\n" for line in [*lines, *more])
    write_text(path, text)


def _dumped(value: Any, indent: int) -> str:
    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)
    return "".join(f"{' ' * indent}{line}\n" if line else "\n" for line in text.splitlines())


def _with_class(text: str, category: str, name: str, title: str, body: dict[str, Any]) -> str:
    span = _span(text, ["categories", category, "classes"])
    if span is None:
        first = {category: {"title": title, "classes": {name: body}}}
        return _inserted(text, _end(text, ["categories"]), _dumped(first, 2))
    return _inserted(text, span[1], _dumped({name: body}, 6))


def _with_scenes(path: Path, name: str, scenes: dict[str, Any]) -> str:
    if not path.exists():
        return _dumped({"version": 1, "note": "Nothing is measured yet.", "classes": {name: scenes}}, 0)
    text = path.read_text()
    if name in load_yaml(path)["classes"]:
        raise InputError(f"{path}: classes.{name}: there are scenes of it already; take them out first")
    return _inserted(text, _end(text, ["classes"]), _dumped({name: scenes}, 2))


def _raised(text: str) -> str:
    """The taxonomy with its version raised by one."""
    return re.sub(
        r"^version: (\d+)", lambda m: f"version: {int(m[1]) + 1}", text, count=1, flags=re.MULTILINE
    )


def _inserted(text: str, line: int, more: str) -> str:
    lines = text.splitlines(keepends=True)
    if line and not lines[line - 1].endswith("\n"):
        lines[line - 1] += "\n"
    return "".join([*lines[:line], more, *lines[line:]])


def _without(text: str, keys: list[str]) -> str:
    span = _span(text, keys)
    assert span is not None  # noqa: S101 - it was read from this text
    lines = text.splitlines(keepends=True)
    return "".join([*lines[: span[0]], *lines[span[1] :]])


def _end(text: str, keys: list[str]) -> int:
    span = _span(text, keys)
    assert span is not None  # noqa: S101 - every such file has them
    return span[1]


def _span(text: str, keys: list[str]) -> tuple[int, int] | None:
    """The lines of a key and its block, from its own to before the next; None where there is none."""
    node: yaml.Node | None = yaml.compose(text)
    start = 0
    for key in keys:
        if not isinstance(node, yaml.MappingNode):
            return None
        found = next(((k, v) for k, v in node.value if k.value == key), None)
        if found is None:
            return None
        start, node = found[0].start_mark.line, found[1]
    assert node is not None  # noqa: S101 - a file with keys is not empty
    lines = text.splitlines()
    # At the end of a block the parser stands at the next key: blank lines and comments belong to that.
    end = min(node.end_mark.line, len(lines))
    while end > start + 1 and (not lines[end - 1].strip() or lines[end - 1].lstrip().startswith("#")):
        end -= 1
    return start, end


def _filled(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    data = load_yaml(path)
    if (
        not isinstance(data, dict)
        or set(data) != {"class", "scenes"}
        or not all(isinstance(part, dict) for part in data.values())
    ):
        raise InputError(f"{path}: must hold `class` and `scenes`, as docs/taxonomy.md shows")
    return data["class"], data["scenes"]


def _scaffold(name: str, title: str) -> tuple[dict[str, Any], dict[str, Any]]:
    def line(what: str) -> dict[str, Any]:
        return {
            "unsafe": f"{TODO}: {what} that is unsafe",
            "borderline": f"{TODO}: {what} between the two",
            "safe": f"{TODO}: {what} that is safe",
            "examples_unsafe": [f"{TODO}: an example beyond the line"],
            "examples_safe": [f"{TODO}: an example on this side of it"],
        }

    body: dict[str, Any] = {
        "policy": {
            "summary": f"{TODO}: {title} in one sentence",
            "image": line("a picture"),
            "text": line("a message"),
            "pair": line("a message about a harmless picture"),
            "expected": "refuse",
            "protective": f"{TODO}: which questions get a full answer whatever the picture shows",
            "trigger": False,
        },
        "concepts": {
            "safe": [f"{TODO}: thing {n}" for n in (1, 2, 3)],
            "unsafe": [f"{TODO}: thing that is unsafe to see"],
        },
        "encoder_prompts": {
            "safe": [f"{TODO}: a photo of thing {n}" for n in (1, 2)],
            "unsafe": [f"{TODO}: a photo of what is unsafe"],
        },
        "generation": {"images": "safe_only", "ceiling": f"{TODO}: how far a picture may go", "drawings": []},
        "rationale": {
            "harm": f"{TODO}: it does this to people, as a clause",
            "safer": [f"{TODO}: a safer direction, as a sentence", f"{TODO}: and another"],
        },
        "quotas": dict(zip(PAIR_TYPES, (4, 2, 2, 2, 2), strict=True)),
    }
    common = {"why": f"{TODO}: why not, as a clause", "safer": f"{TODO}: a safer direction, as a sentence"}
    answer = {"answer": f"{TODO}: a helpful answer about {{the_thing}}"}
    scenes: dict[str, Any] = {
        "latent": [
            {"id": f"{name}.latent.first", "query": f"{TODO}: harmless as text", "image": [f"{TODO} thing"],
             "other": [f"{TODO} other thing"], "expected": "refuse", **common, **answer}
        ],
        "neutral": [
            {"id": f"{name}.neutral.first", "query": f"{TODO}: a plain question about {{the_thing}}",
             "image": [], "unsafe_image": [], "on_unsafe": "refuse", **common, **answer}
        ],
        "unsafe": [
            {"id": f"{name}.unsafe.first", "query": f"{TODO}: harmful as text, in general words",
             "image": [], "unsafe_image": [], "expected": "refuse", **common}
        ],
    }  # fmt: skip
    return body, scenes
