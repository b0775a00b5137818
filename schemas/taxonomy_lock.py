"""The taxonomy's lock: which ids and names were ever given, in an append-only file beside it.

`taxonomy.lock.jsonl` is the change log as well: a line for every class that came or went. An id is never used
twice, a class keeps its id and its name, and none goes without a line that says so: rows that were published
under an id mean the same for good.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from schemas.errors import InputError
from schemas.taxonomy import ClassInfo, Taxonomy

__all__ = [
    "LockLine",
    "check_lines",
    "check_lock",
    "lock_path",
    "new_lines",
    "next_id",
    "read_lock",
    "standing",
]


class LockLine(BaseModel):
    """A class that came or went."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: int = Field(ge=1)
    class_key: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+(/[a-z0-9_]+){2}$")]
    change: Literal["added", "retired"]
    version: int = Field(ge=1, description="of the taxonomy that has the change first")
    note: str = ""


def lock_path(taxonomy: Path) -> Path:
    """Where the lock of a taxonomy file is."""
    return taxonomy.with_name(f"{taxonomy.stem}.lock.jsonl")


def read_lock(path: Path) -> list[LockLine]:
    """The lines of a lock; none where there is no file.

    Raises:
        InputError: naming the line, when it is broken or breaks the rules.
    """
    if not path.exists():
        return []
    lines: list[LockLine] = []
    for number, text in enumerate(path.read_text().splitlines(), 1):
        try:
            lines.append(LockLine.model_validate_json(text))
        except ValidationError as error:
            why = error.errors(include_url=False)[0]
            raise InputError(
                f"{path}: line {number}: {'.'.join(map(str, why['loc'])) or 'line'}: {why['msg']}; "
                "put back a copy: lines are only ever added"
            ) from error
    check_lines(lines, path)
    return lines


def check_lines(lines: Sequence[LockLine], path: Path) -> None:
    """See that no line breaks what those before it say; `path` is named in errors.

    Raises:
        InputError: naming the line.
    """
    given: dict[int, LockLine] = {}
    known: dict[int, LockLine] = {}
    for number, line in enumerate(lines, 1):
        where = f"{path}: line {number}"
        if line.change == "added":
            if line.id in given:
                raise InputError(f"{where}: id: {line.id} was given before; take {max(given) + 1}")
            if line.class_key in {old.class_key for old in known.values()}:
                raise InputError(f"{where}: class_key: {line.class_key} has an id already")
            given[line.id] = known[line.id] = line
        else:
            if line.id not in known:
                raise InputError(f"{where}: id: no class has {line.id}")
            if known[line.id].class_key != line.class_key:
                raise InputError(f"{where}: id: {line.id} is {known[line.id].class_key}")
            del known[line.id]


def standing(lines: Iterable[LockLine]) -> dict[int, LockLine]:
    """The classes that came and did not go, by id."""
    found: dict[int, LockLine] = {}
    for line in lines:
        if line.change == "added":
            found[line.id] = line
        else:
            found.pop(line.id, None)
    return found


def next_id(lines: Sequence[LockLine]) -> int:
    """The first id that was never given."""
    return max((line.id for line in lines), default=0) + 1


def new_lines(taxonomy: Taxonomy, lines: Sequence[LockLine], note: str = "") -> list[LockLine]:
    """The lines that a taxonomy's new classes need."""
    known = standing(lines)
    return [
        LockLine(id=info.id, class_key=info.class_key, change="added", version=taxonomy.version, note=note)
        for info in taxonomy.classes()
        if info.id not in known
    ]


def check_lock(taxonomy: Taxonomy, path: Path) -> None:
    """Hold a taxonomy against its lock; without a lock file anything goes.

    Raises:
        InputError: naming the class and the mend.
    """
    lock = lock_path(path)
    lines = read_lock(lock)
    if not lines:
        return
    known, given = standing(lines), {line.id for line in lines}
    by_key = {line.class_key: line.id for line in known.values()}
    here = list(taxonomy.classes())
    for info in here:
        _check_class(info, known, given, by_key, path, lines)
    ids = {info.id for info in here}
    for gone in known.values():
        if gone.id not in ids:
            name = gone.class_key.rsplit("/", 1)[1]
            raise InputError(
                f"{path}: {gone.class_key} (id {gone.id}) is gone, and datasets may have rows of it; put it "
                f"back, or take it away with `holisafe taxonomy retire {name}`, which says what goes with it"
            )


def _check_class(
    info: ClassInfo,
    known: dict[int, LockLine],
    given: set[int],
    by_key: dict[str, int],
    path: Path,
    lines: Sequence[LockLine],
) -> None:
    where = f"{path}: categories.{info.category}.classes.{info.name}.id"
    line = known.get(info.id)
    if line is not None and line.class_key != info.class_key:
        raise InputError(f"{where}: {info.id} is {line.class_key} for good; take {next_id(lines)}")
    if line is None and info.class_key in by_key:
        raise InputError(f"{where}: {info.class_key} has {by_key[info.class_key]} for good")
    if line is None and info.id in given:
        raise InputError(f"{where}: {info.id} was a class that is retired; take {next_id(lines)}")
    if line is None:
        raise InputError(
            f"{where}: {info.class_key} is not in {lock_path(path).name}; `holisafe taxonomy lock` gives it "
            "its id for good"
        )
