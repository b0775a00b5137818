"""Params of the image-text encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from schemas.params._base import Strict

__all__ = ["CheckpointEncoder", "EmbeddedEncoder", "Encoder"]


class _Encoder(Strict):
    temperature: float = Field(gt=0, description="turns cosines into shares of P(unsafe)")
    offset: float = Field(ge=-1, le=1, description="taken from the cosine of every unsafe sentence")
    calibration: Path | None = Field(
        default=None, description="thresholds by class (scripts/calibrate_encoder.py); null for none"
    )


class EmbeddedEncoder(_Encoder):
    """EfficientNet-Lite2 and MiniLM, whose weights the registry names."""

    kind: Literal["embedded"]
    family: Literal["efficientnet-lite2"] = "efficientnet-lite2"

    def identity(self) -> dict[str, Any]:
        """What decides its votes, beside the files that it names."""
        return self.model_dump(mode="json")


class CheckpointEncoder(_Encoder):
    """Any open_clip architecture with weights from a local file."""

    kind: Literal["open_clip"]
    arch: str = Field(min_length=1, description="as open_clip lists it, or a model-config file (.json)")
    checkpoint: Path
    family: str = Field(min_length=1, description="lineage of the weights, as for endpoints")
    pretrained_tag: str | None = Field(
        default=None, description="open_clip's name for the weights: how images are prepared, which GELU"
    )
    tokenizer: Path | None = Field(
        default=None, description="folder of tokenizer files, where open_clip would fetch them"
    )
    precision: Literal["fp32", "bf16"] = "fp32"
    batch: int = Field(default=16, ge=1, description="images that run through the network together")
    threads: int = Field(default=2, ge=1, description="batches at once, each decoded and run on one core")
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?)$")] = Field(
        default="cpu", description="as torch names it"
    )

    @property
    def config(self) -> Path | None:
        """The model-config file, where `arch` is one."""
        return Path(self.arch) if self.arch.endswith(".json") else None

    def identity(self) -> dict[str, Any]:
        """What decides its votes, beside the files that it names: not how many images run at once."""
        # A GPU gives other last bits than the processor, and every one of a kind the same.
        told = self.model_dump(mode="json", exclude={"batch", "threads", "checkpoint", "device"})
        return told if self.device == "cpu" else told | {"device": "cuda"}


Encoder = Annotated[EmbeddedEncoder | CheckpointEncoder, Field(discriminator="kind")]
"""How images and sentences are embedded, and how their cosines become P(unsafe)."""
