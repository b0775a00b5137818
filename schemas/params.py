"""The params model: everything a build can be told, in one explicit file, `params.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.errors import InputError, load_yaml, validated

__all__ = [
    "Annotators",
    "Curate",
    "Encoder",
    "FolderSource",
    "Params",
    "PerClass",
    "Thresholds",
    "load_params",
]

Share = Annotated[float, Field(gt=0, lt=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FolderSource(_Strict):
    """A local imagefolder with `metadata.jsonl`."""

    kind: Literal["folder"]
    path: Path
    unknown_licence: Literal["refuse", "keep"] = "refuse"


class PerClass(_Strict):
    """The most images of one class to take for each side; labelling every image costs a call."""

    safe: int = Field(ge=0)
    unsafe: int = Field(ge=0)


class Collect(_Strict):
    """Where images come from."""

    sources: list[FolderSource] = Field(min_length=1)
    per_class: PerClass


class Generate(_Strict):
    """Which images are made."""

    drawings: PerClass


class Curate(_Strict):
    """How images are decoded, normalised and deduplicated."""

    max_pixels: int = Field(gt=0, description="an image that declares more is rejected unread")
    max_side: int = Field(ge=64, description="longer sides are scaled down to this")
    jpeg_quality: int = Field(ge=50, le=100)
    near_duplicate_bits: int = Field(ge=0, le=32, description="of a 64-bit perceptual hash")
    near_duplicate_bits_fine: int = Field(ge=0, le=128, description="of a 256-bit one; both must hold")
    leak_bits: int = Field(ge=0, le=32, description="this near, images stay on one side of the split")
    nudity_reject: Share


class Split(_Strict):
    """How groups are divided into train and test."""

    test_share: Share


class Annotators(_Strict):
    """The language model that annotates, and how it is run."""

    model: str
    context_tokens: int = Field(ge=1024)
    threads: int = Field(ge=1)


class Encoder(_Strict):
    """How the image-text encoder's cosines become P(unsafe); calibrated on labelled images."""

    temperature: float = Field(gt=0)
    offset: float = Field(ge=-1, le=1, description="taken from the cosine of every unsafe sentence")


class Thresholds(_Strict):
    """P(unsafe) from which an item counts as unsafe, measured on gold labels (docs/quality.md)."""

    image_safe: Share
    text_safe: Share
    pair_safe: Share


class Synthesize(_Strict):
    """How many squares are drafted."""

    surplus: float = Field(ge=1, description="squares drafted for each square wanted")


class LabelPairs(_Strict):
    """How often short cells are topped up from the surplus."""

    rounds: int = Field(ge=1, le=10)


class Params(_Strict):
    """The whole file."""

    profile: Literal["embedded"]
    tier: Literal["demo"]
    seed: int = Field(ge=0)
    taxonomy: Path
    prompts: Path
    quota_scale: float = Field(gt=0)
    only_classes: list[str] = []
    collect: Collect
    generate: Generate
    curate: Curate
    split: Split
    annotators: Annotators
    encoder: Encoder
    thresholds: Thresholds
    synthesize: Synthesize
    label_pairs: LabelPairs

    @model_validator(mode="after")
    def _ordered(self) -> Params:
        if self.curate.leak_bits < self.curate.near_duplicate_bits:
            raise ValueError("curate.leak_bits must be at least curate.near_duplicate_bits")
        return self


def load_params(root: Path) -> Params:
    """Read `params.yaml` in `root` and check it, the taxonomy file's place and the sources' folders.

    Raises:
        InputError: naming the file, the field and the mend.
    """
    path = root / "params.yaml"
    params = validated(Params, load_yaml(path), path)
    for i, source in enumerate(params.collect.sources):
        if not (root / source.path).is_dir():
            raise InputError(
                f"{path}: collect.sources.{i}.path: {source.path} is no folder; create or remove it"
            )
    return params
