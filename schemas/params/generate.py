"""Params of generate: drawings, and the models that make pictures."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from schemas.params._base import PerClass, Strict

__all__ = ["DiffusionPictures", "Generate", "ImagesApiPictures", "Pictures", "Placeholders"]

Side = Annotated[int, Field(ge=64, le=4096)]


class _Pictures(Strict):
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")] = Field(
        description="decides, with the build's seed, which prompts it gets"
    )
    classes: list[str] = Field(default=[], description="empty: every class that the build covers")
    per_class: PerClass
    size: tuple[Side, Side] = Field(description="width and height in pixels")
    licence: str = Field(min_length=1, description="SPDX, of the pictures that it makes")
    redistributable: Literal["yes", "no", "unknown"]


class DiffusionPictures(_Pictures):
    """Pictures from a text-to-image checkpoint that diffusers can load."""

    kind: Literal["diffusion"]
    model: str = Field(min_length=1, description="a folder below the workspace, or a repository on the Hub")
    revision: str | None = Field(
        default=None, pattern=r"^[0-9a-f]{40}$", description="commit of the repository: branches move"
    )
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    device: str = "cpu"
    offload: Literal["none", "model", "sequential"] = Field(
        default="none", description="what waits in main memory: nothing, whole models, single layers"
    )
    batch: int = Field(default=1, ge=1, description="pictures at a time")
    steps: int = Field(ge=1)
    guidance: float = Field(ge=0)
    negative_prompt: str = ""
    safety_checker: Literal["keep", "off"] = "keep"

    @model_validator(mode="after")
    def _loadable(self) -> DiffusionPictures:
        if any(side % 8 for side in self.size):
            raise ValueError("size: both sides must be multiples of 8")
        if self.offload != "none" and self.device == "cpu":
            raise ValueError(
                "offload: there is nothing to offload from the cpu; write none, or name a device"
            )
        return self


class ImagesApiPictures(_Pictures):
    """Pictures from an endpoint that serves `POST /images/generations`."""

    kind: Literal["images_api"]
    endpoint: str = Field(description="its name under `endpoints`, which says model, limits and price")


Pictures = Annotated[DiffusionPictures | ImagesApiPictures, Field(discriminator="kind")]
"""What makes pictures."""


class Placeholders(Strict):
    """Cards that stand for pictures in a rehearsal: a pattern, and in words what they stand for."""

    classes: list[str] = Field(default=[], description="empty: every class that the build covers")
    per_class: PerClass


class Generate(Strict):
    """Which images are made."""

    drawings: PerClass
    writer: str | None = Field(
        default=None, description="the endpoint that writes prompts for pictures; null: they are composed"
    )
    pictures: list[Pictures] = Field(default=[], description="the models that make them")
    placeholders: list[Placeholders] = Field(
        default=[], description="for rehearsals, where every endpoint is scripted"
    )

    @model_validator(mode="after")
    def _distinct(self) -> Generate:
        names = [maker.name for maker in self.pictures]
        if len(set(names)) < len(names):
            raise ValueError("pictures: two generators have one name")
        return self
