"""Errors in what people write: they name the file, the field and the mend."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

__all__ = ["InputError", "load_yaml", "validated"]

M = TypeVar("M", bound=BaseModel)


class InputError(Exception):
    """Bad input or bad usage. The command line prints it and exits with 2."""


def load_yaml(path: Path) -> Any:
    """Parse a YAML file; a key that stands twice in one mapping is an error, not an overwrite.

    Raises:
        InputError: when the file is missing, not UTF-8, not YAML, or repeats a key.
    """
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    try:
        return yaml.load(text, Loader=_UniqueKeys)  # noqa: S506 - a SafeLoader with one more check
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {error}") from error


def validated(model: type[M], data: Any, path: Path) -> M:
    """Check `data` against `model`.

    Raises:
        InputError: one line a wrong field, each with the field's path.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = [f"{path}: {len(error.errors())} problem(s)"]
        for problem in error.errors():
            where = ".".join(str(part) for part in problem["loc"]) or "(the whole file)"
            lines.append(f"  {where}: {problem['msg'].removeprefix('Value error, ')}")
        raise InputError("\n".join(lines)) from error


_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C one is seven times quicker


class _UniqueKeys(_Loader):  # type: ignore[misc]
    """A safe loader to which a key that stands twice is an error."""


def _mapping(loader: _UniqueKeys, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if not isinstance(key, str | int | float | bool | None):
            raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} stands twice", key_node.start_mark
            )
        seen.add(key)
    mapping: dict[Any, Any] = loader.construct_mapping(node, deep=True)
    return mapping


_UniqueKeys.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
