"""The configuration of a SafeLLaVA."""

from __future__ import annotations

from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import LlavaConfig

__all__ = ["CATEGORIES", "PATCH_TOWERS", "SafeLlavaConfig"]

CATEGORIES = (
    "safe", "gender", "race", "religion", "harassment", "disability_discrimination", "drug_related_hazards",
    "property_crime", "facial_data_exposure", "identity_data_exposure", "physical_self_injury", "suicide",
    "animal_abuse", "obscene_gestures", "physical_altercation", "terrorism", "weapon_related_violence",
    "sexual_content", "financial_advice", "medical_advice",
)  # fmt: skip
"""HoliSafe's names by `image_safety_label`: 0 is safe, 1 to 19 are classes of harm (arXiv 2506.04704)."""

PATCH_TOWERS = ("clip_vision_model", "siglip_vision_model")
"""Towers that take one more state behind those of the patches."""


@strict
class SafeLlavaConfig(LlavaConfig):
    """LLaVA's configuration, the safety token's and the safety head's.

    Attributes:
        safety_mode: where the token joins: `decoder`, behind the projected visual tokens; `encoder`, behind
            the patches, so that it goes through tower, projector and language model.
        safety_head: what the head reads: `meta_token`, the language model's last state at the token;
            `visual_guard`, the mean of the projected visual tokens, and then there is no token.
        safety_loss_weight: of the head's loss beside that of the next token, from 0; λ in the paper.
        safety_dropout: of the head, 0..1.
        safety_categories: names by class; the first is that of safe images.
    """

    model_type = "safellava"

    vision_config: Any = None
    text_config: Any = None
    safety_mode: Literal["decoder", "encoder"] = "decoder"
    safety_head: Literal["meta_token", "visual_guard"] = "meta_token"
    safety_loss_weight: float | int = 1.0
    safety_dropout: float | int = 0.1
    safety_categories: list[str] | tuple[str, ...] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Fill in the names, and refuse what cannot be.

        Raises:
            ValueError: naming the field and the mend.
        """
        super().__post_init__(**kwargs)
        self.safety_categories = list(self.safety_categories or CATEGORIES)
        if len(self.safety_categories) < 2:
            raise ValueError("safety_categories: give two names or more, that of safe images first")
        if self.safety_loss_weight < 0 or not 0 <= self.safety_dropout < 1:
            raise ValueError("safety_loss_weight is to be 0 or more, safety_dropout from 0 to below 1")
        tower = getattr(self.vision_config, "model_type", None)
        if self.safety_mode == "encoder" and self.safety_tokens and tower not in PATCH_TOWERS:
            raise ValueError(
                f"safety_mode: encoder: the vision tower {tower} has no sequence of patches that a token "
                f"could join; take safety_mode: decoder, or one of the towers {', '.join(PATCH_TOWERS)}"
            )

    @property
    def classes(self) -> list[str]:
        """The names by class."""
        return list(self.safety_categories or ())

    @property
    def safety_tokens(self) -> int:
        """How many placeholders an image has beyond its visual tokens: 1 or 0."""
        return int(self.safety_head == "meta_token")

    @property
    def placeholders(self) -> int:
        """How many placeholders an image has in all."""
        return int(self.image_seq_length) + self.safety_tokens
