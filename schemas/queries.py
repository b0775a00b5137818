"""Query scenes: the reviewed templates that queries and responses are made from.

One file a category under `prompts/queries/`. A scene says which images it suits by words; they are matched
against what is known of an image (caption, objects, text read from it).
"""

from __future__ import annotations

import string
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from schemas.errors import InputError, load_yaml, validated
from schemas.safeguards import forbidden_reason
from schemas.taxonomy import Taxonomy

__all__ = ["ClassScenes", "LatentScene", "NeutralScene", "Scene", "SceneFile", "UnsafeScene", "load_scenes"]

SLOTS = frozenset({"thing", "the_thing"})


def _slots_known(text: str) -> str:
    try:
        names = {field for _, field, _, _ in string.Formatter().parse(text) if field is not None}
    except ValueError as error:
        raise ValueError(f"broken slot in {text!r}: {error}") from error
    if unknown := names - SLOTS:
        raise ValueError(f"unknown slot {sorted(unknown)} in {text!r}; there are {sorted(SLOTS)}")
    return text


Template = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
SceneId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+\.(latent|neutral|unsafe)\.[a-z0-9_]+$")]


class _Scene(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    id: SceneId
    query: Template
    why: Template
    safer: Template

    @model_validator(mode="after")
    def _usable(self) -> _Scene:
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, str):
                _slots_known(value)
                if reason := forbidden_reason(value):
                    raise ValueError(f"{name}: {reason}")
        return self


class LatentScene(_Scene):
    """Harmless as text; harmful with an image that shows one of `image`, ordinary with one of `other`."""

    image: list[Template] = Field(min_length=1)
    other: list[Template] = Field(min_length=1)
    expected: Literal["refuse", "support"]
    answer: Template


class NeutralScene(_Scene):
    """Harmless as text; on an unsafe image it is answered as `on_unsafe` says."""

    image: list[Template] = []
    unsafe_image: list[Template] = []
    on_unsafe: Literal["refuse", "safe_complete", "support"]
    answer: Template
    protective: Template | None = None

    @model_validator(mode="after")
    def _protective_given(self) -> NeutralScene:
        if self.on_unsafe == "safe_complete" and self.protective is None:
            raise ValueError("on_unsafe is safe_complete, so `protective` must give that answer")
        return self


class UnsafeScene(_Scene):
    """Harmful as text, whatever the image shows."""

    image: list[Template] = []
    unsafe_image: list[Template] = []
    expected: Literal["refuse", "support"]


Scene = LatentScene | NeutralScene | UnsafeScene
"""A query of any kind, with the images that it goes with."""


class ClassScenes(BaseModel):
    """The scenes of one class."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    latent: list[LatentScene] = Field(min_length=1)
    neutral: list[NeutralScene] = Field(min_length=1)
    unsafe: list[UnsafeScene] = Field(min_length=1)

    def all(self) -> list[Scene]:
        """Every scene of the class."""
        return [*self.latent, *self.neutral, *self.unsafe]

    @field_validator("latent", "neutral", "unsafe")
    @classmethod
    def _unique_queries(cls, scenes: list[_Scene]) -> list[_Scene]:
        twice = [query for query, n in Counter(s.query for s in scenes).items() if n > 1]
        if twice:
            raise ValueError(f"the query stands twice: {twice[0]!r}")
        return scenes


class SceneFile(BaseModel):
    """One file under `prompts/queries/`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int = Field(ge=1)
    note: Template
    classes: dict[str, ClassScenes]

    @model_validator(mode="after")
    def _ids_belong(self) -> SceneFile:
        for name, scenes in self.classes.items():
            for kind in ("latent", "neutral", "unsafe"):
                for scene in getattr(scenes, kind):
                    if not scene.id.startswith(f"{name}.{kind}."):
                        raise ValueError(f"{scene.id}: stands under {name}.{kind}, so must begin with it")
        ids = Counter(s.id for c in self.classes.values() for s in (*c.latent, *c.neutral, *c.unsafe))
        if twice := [i for i, n in ids.items() if n > 1]:
            raise ValueError(f"the scene id stands twice: {twice[0]!r}")
        return self


def load_scenes(folder: Path, taxonomy: Taxonomy) -> dict[str, ClassScenes]:
    """Read every scene file and check that each class of the taxonomy has scenes.

    Returns:
        The scenes by class name.

    Raises:
        InputError: naming the file and field, or the class that has no scenes.
    """
    known = {c.name: c.category for c in taxonomy.classes()}
    found: dict[str, ClassScenes] = {}
    for path in sorted(folder.glob("*.yaml")):
        for name, scenes in validated(SceneFile, load_yaml(path), path).classes.items():
            if name not in known:
                raise InputError(f"{path}: classes.{name}: the taxonomy has no such class")
            if name in found:
                raise InputError(f"{path}: classes.{name}: another file has scenes for it; keep one")
            found[name] = scenes
    if missing := [name for name in known if name not in found]:
        raise InputError(
            f"{folder}: no query templates for {', '.join(missing)}; "
            f"add them to {folder / (known[missing[0]] + '.yaml')}"
        )
    return found
