"""A model in a folder, with its processor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoProcessor, LlavaForConditionalGeneration

import pipeline.safellava.tower  # noqa: F401 - registers the tower
from pipeline.encoders._common import quiet
from pipeline.safellava.config import SafeLlavaConfig
from pipeline.safellava.model import SafeLlavaForConditionalGeneration, from_llava
from pipeline.safellava.processor import Encoded, Prompter
from schemas.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Loaded", "device", "load_base", "load_model"]

Model = SafeLlavaForConditionalGeneration


@dataclass(frozen=True)
class Loaded:
    """A model that can be asked.

    Attributes:
        model: it.
        processor: transformers' own, as it is saved beside it.
        prompter: makes its inputs.
    """

    model: Model
    processor: Any
    prompter: Prompter

    def inputs(self, rows: Sequence[Encoded], images: Sequence[Image | None]) -> dict[str, Tensor]:
        """Questions as the model takes them to answer: padded on the left, where and as precise as it is."""
        made = self.prompter.batch(rows, images, "left")
        del made["labels"]
        if "pixel_values" in made:
            made["pixel_values"] = made["pixel_values"].to(self.model.dtype)
        return {name: value.to(self.model.device) for name, value in made.items()}


def device() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_model(folder: str, **further: Any) -> Loaded:
    """A trained SafeLLaVA.

    Args:
        folder: where it was saved.
        **further: of `from_pretrained`.

    Raises:
        InputError: where there is no SafeLLaVA.
    """
    config = _config(folder)
    if not isinstance(config, SafeLlavaConfig):
        raise InputError(
            f"{folder}: config.json: model_type is {config.model_type}, no safellava; train one first with "
            "`holisafe safellava train`"
        )
    with quiet():
        model = Model.from_pretrained(folder, **further).eval()
    return _loaded(folder, model)


def load_base(folder: str, *, dtype: torch.dtype, **settings: Any) -> Loaded:
    """A SafeLLaVA to be trained, from one or from a LLaVA.

    Args:
        folder: a folder, or a name on the Hub, such as `llava-hf/llava-1.5-7b-hf`.
        dtype: of its weights.
        **settings: fields of `SafeLlavaConfig`. Where they make another model than that in the folder, token
            and head are new.

    Raises:
        InputError: where there is no LLaVA, or settings do not go with it.
    """
    config = _config(folder)
    if getattr(config, "vision_config", None) is None:
        raise InputError(
            f"{folder}: config.json: {config.model_type} has no vision tower; give a LLaVA, or make one with "
            "`holisafe safellava mini`"
        )
    if config.model_type not in ("llava", SafeLlavaConfig.model_type):
        raise InputError(f"{folder}: config.json: model_type is {config.model_type}; give one of llava")
    try:
        with quiet():
            if isinstance(config, SafeLlavaConfig):
                model = Model.from_pretrained(folder, dtype=dtype)
                if any(getattr(config, key) != value for key, value in settings.items() if key in _SHAPE):
                    model = from_llava(model, **settings)
                for key, value in settings.items():
                    setattr(model.config, key, value)
            else:
                model = from_llava(
                    LlavaForConditionalGeneration.from_pretrained(folder, dtype=dtype), **settings
                )
    except ValueError as error:
        raise InputError(f"{folder}: {error}") from error
    return _loaded(folder, model)


_SHAPE = ("safety_mode", "safety_head")


def _config(folder: str) -> Any:
    try:
        return AutoConfig.from_pretrained(folder)
    except (OSError, ValueError) as error:
        told = " ".join(str(error).split())[:200]
        raise InputError(
            f"{folder}: no model of transformers ({told}); name a folder with config.json"
        ) from error


def _loaded(folder: str, model: Model) -> Loaded:
    try:
        with quiet():
            processor = AutoProcessor.from_pretrained(folder)
        return Loaded(model, processor, Prompter(processor, model.config))
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{folder}: its processor cannot be used: {error}") from error
