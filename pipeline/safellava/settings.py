"""What people write about a training: a YAML file with these fields, and variants of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.errors import InputError, load_yaml, validated

__all__ = ["TrainSettings", "load_settings"]

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class TrainSettings(BaseModel):
    """How a SafeLLaVA is trained; the defaults are for SafeLLaVA-mini on two cores.

    Attributes:
        seed: of new weights, LoRA's weights, dropout, the split and the order of rows.
        safety_mode: as in `SafeLlavaConfig`.
        safety_head: as in `SafeLlavaConfig`.
        safety_loss_weight: as in `SafeLlavaConfig`.
        epochs: passes over the rows with a response; where no row has one, over all of them.
        max_steps: an end before that; None: none.
        batch: rows at one time.
        accumulate: batches before a step.
        rate: the learning rate of LoRA.
        rate_new: that of projector, token and head.
        rate_tower: that of the vision tower, where it is trained.
        warmup: share of the steps in which rates rise; afterwards they fall along a cosine.
        weight_decay: of AdamW.
        clip: the norm to which gradients are cut.
        language: `lora`, or `frozen`.
        train_tower: whether the vision tower learns too; its batch statistics stay as they are.
        lora_rank: of each adapter.
        lora_alpha: its scale times the rank.
        lora_dropout: of what goes into an adapter.
        ordinary_ratio: ordinary pairs in an epoch, for each row that is not one; 0: none.
        ordinary_safe: whether images of ordinary pairs count as safe; else the head does not see them.
        head_only_rows: whether rows without a response are taken, which train the head alone.
        head_only_ratio: of these, how many an epoch has for each row with a response, drawn anew for each
            epoch; None: all of them.
        test_share: of the leak groups of a class that are held out, where the dataset names no sides.
        max_tokens: of a row.
        gradient_checkpointing: whether activations are computed again instead of being kept.
        bf16: whether frozen weights are bfloat16 and the rest runs in it.
        checkpoint_every: steps between two checkpoints.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: Annotated[int, Field(ge=0)] = 0
    safety_mode: Literal["decoder", "encoder"] = "decoder"
    safety_head: Literal["meta_token", "visual_guard"] = "meta_token"
    safety_loss_weight: Annotated[float, Field(ge=0)] = 1.0
    epochs: Positive = 3.0
    max_steps: Count | None = None
    batch: Count = 4
    accumulate: Count = 2
    rate: Positive = 2e-4
    rate_new: Positive = 1e-3
    rate_tower: Positive = 1e-5
    warmup: Share = 0.03
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    clip: Positive = 1.0
    language: Literal["lora", "frozen"] = "lora"
    train_tower: bool = False
    lora_rank: Count = 8
    lora_alpha: Count = 16
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    ordinary_ratio: Annotated[float, Field(ge=0)] = 1.0
    ordinary_safe: bool = False
    head_only_rows: bool = False
    head_only_ratio: Annotated[float, Field(ge=0)] | None = None
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.26
    max_tokens: Annotated[int, Field(ge=16)] = 384
    gradient_checkpointing: bool = False
    bf16: bool = False
    checkpoint_every: Count = 50


class _File(TrainSettings):
    """The file: settings, and under `variants` what differs by name."""

    variants: dict[str, dict[str, Any]] = {}


def load_settings(path: Path | None, variant: str | None = None, **changes: Any) -> TrainSettings:
    """Read settings.

    Args:
        path: a YAML file; None: the defaults.
        variant: one of the file's `variants`.
        **changes: fields that were given otherwise; None: not given.

    Raises:
        InputError: naming the file and every wrong field.
    """
    where = path or Path("(options)")
    said = validated(_File, load_yaml(path) or {} if path else {}, where)
    fields = said.model_dump(exclude={"variants"})
    for name, differs in said.variants.items():
        validated(TrainSettings, fields | differs, where.with_name(f"{where.name} variants.{name}"))
    if variant is not None:
        if variant not in said.variants:
            raise InputError(
                f"{where}: variants: there is no {variant}; there are: {', '.join(said.variants)}"
            )
        fields |= said.variants[variant]
    fields |= {name: value for name, value in changes.items() if value is not None}
    return validated(TrainSettings, fields, where)
