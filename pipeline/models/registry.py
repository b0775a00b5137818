"""The registry file: which weights there are, by hash, and where their bytes may come from."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from schemas.errors import load_yaml, validated

__all__ = [
    "LICENCES",
    "REGISTRY",
    "Hub",
    "Model",
    "ModelFile",
    "Registry",
    "Source",
    "Wheels",
    "load_registry",
]

REGISTRY = Path(__file__).with_name("registry.yaml")
LICENCES = Path(__file__).with_name("licences")

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
Pin = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.+!]+$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelFile(_Strict):
    """One file of a model: where it lies in the model's folder, and what its bytes must be."""

    path: str
    sha256: Sha256
    bytes: Annotated[int, Field(gt=0)]

    @field_validator("path")
    @classmethod
    def _inside(cls, value: str) -> str:
        path = PurePosixPath(value)
        if path.is_absolute() or ".." in path.parts or not path.parts or path.parts[0].startswith("."):
            raise ValueError(f"{value!r} must lie inside the model's folder and not be hidden")
        return value


class Hub(_Strict):
    """A model hub repository."""

    repo: str
    file: str | None = None
    revision: str | None = None


class Wheels(_Strict):
    """Data carried in wheels: exactly one of `member`, `root` and `join` says where it is in them."""

    packages: Annotated[list[Pin], Field(min_length=1)]
    member: str | None = None
    root: str | None = None
    join: str | None = None

    @model_validator(mode="after")
    def _one_layout(self) -> Self:
        if sum(value is not None for value in (self.member, self.root, self.join)) != 1:
            raise ValueError("give exactly one of member, root and join")
        if self.join is None and len(self.packages) != 1:
            raise ValueError("several packages need join")
        return self


class Source(_Strict):
    """One place to get a model from: exactly one of path, hub and wheels."""

    path: Path | None = None
    hub: Hub | None = None
    wheels: Wheels | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if sum(value is not None for value in (self.path, self.hub, self.wheels)) != 1:
            raise ValueError("give exactly one of path, hub and wheels")
        return self


class Model(_Strict):
    """A model: its files by hash, its licence, and where to get it."""

    name: Name
    role: str
    licence: str
    licence_text: str
    files: Annotated[list[ModelFile], Field(min_length=1)]
    sources: list[Source] = []

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len({file.path for file in self.files}) != len(self.files):
            raise ValueError("files: a path stands twice")
        if len(self.files) > 1:
            for source in self.sources:
                if (source.wheels and source.wheels.root is None) or (source.hub and source.hub.file):
                    raise ValueError("sources: several files need wheels.root, and a hub source without file")
        if not (LICENCES / self.licence_text).is_file():
            raise ValueError(f"licence_text: no file {self.licence_text} in {LICENCES}")
        return self

    @property
    def sha256(self) -> str:
        """The model's identity: its file's hash, or for several files the hash of their sorted list."""
        if len(self.files) == 1:
            return self.files[0].sha256
        listing = "".join(
            f"{file.sha256}  {file.path}\n" for file in sorted(self.files, key=lambda f: f.path)
        )
        return hashlib.sha256(listing.encode()).hexdigest()

    @property
    def bytes(self) -> int:
        """Size of all its files."""
        return sum(file.bytes for file in self.files)


class Registry(_Strict):
    """All models by name."""

    models: list[Model]

    @model_validator(mode="after")
    def _unique(self) -> Self:
        names = [model.name for model in self.models]
        if len(set(names)) != len(names):
            raise ValueError("models: a name stands twice")
        return self

    def get(self, name: str) -> Model | None:
        """The model of that name, if there is one."""
        return next((model for model in self.models if model.name == name), None)


def load_registry(path: Path = REGISTRY) -> Registry:
    """Read a registry file.

    Raises:
        InputError: when the file is missing or a field is wrong.
    """
    return validated(Registry, load_yaml(path), path)
