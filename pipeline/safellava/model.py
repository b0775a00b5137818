"""The model: transformers' LLaVA, one learnable token behind the visual tokens, and a head that reads it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    LlavaForConditionalGeneration,
    LlavaModel,
)
from transformers import initialization as init
from transformers.modeling_utils import slice_logits_to_keep
from transformers.models.llava.modeling_llava import LlavaCausalLMOutputWithPast
from transformers.utils.generic import can_return_tuple

from pipeline.safellava.config import SafeLlavaConfig

__all__ = [
    "IGNORED",
    "SafeLlavaForConditionalGeneration",
    "SafeLlavaModel",
    "SafeLlavaOutput",
    "assembled",
    "from_llava",
]

IGNORED = -100
"""A label that no loss counts."""


@dataclass
class SafeLlavaOutput(LlavaCausalLMOutputWithPast):
    """LLaVA's output and the head's.

    Attributes:
        loss: next-token loss + λ · the head's; None without any labels.
        next_token_loss: the mean over labelled tokens; 0 where there is none.
        safety_loss: the mean over labelled images; 0 where there is none.
        safety_logits: (batch, classes); NaN in rows without an image. None where the head was not asked.
        img_safety_probs: their softmax.
    """

    next_token_loss: Tensor | None = None
    safety_loss: Tensor | None = None
    safety_logits: Tensor | None = None
    img_safety_probs: Tensor | None = None


class SafeLlavaModel(LlavaModel):
    """LLaVA's model, whose images give one feature more: the safety token."""

    config_class = SafeLlavaConfig
    if TYPE_CHECKING:
        config: SafeLlavaConfig

    def __init__(self, config: SafeLlavaConfig) -> None:
        """Build it, with a token as wide as what it joins."""
        super().__init__(config)
        if config.safety_tokens:
            of = config.vision_config if config.safety_mode == "encoder" else config.text_config
            # Not left to `post_init`, which has passed over this module when LLaVA's own part was built.
            self.safety_token = nn.Parameter(torch.randn(of.hidden_size) * of.hidden_size**-0.5)

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        _init_token(module)

    def get_image_features(self, *args: Any, **kwargs: Any) -> Any:
        """LLaVA's, with the token last: `pooler_output` is a list of (visual tokens + 1, text width)."""
        if not self.config.safety_tokens:
            return super().get_image_features(*args, **kwargs)
        if self.config.safety_mode == "encoder":
            with _one_more(self.vision_tower.embeddings, self.safety_token):
                return super().get_image_features(*args, **kwargs)
        found = super().get_image_features(*args, **(kwargs | {"return_dict": True}))
        token = self.safety_token[None]
        found.pooler_output = [torch.cat([one, token.to(one.dtype)]) for one in found.pooler_output]
        return found


class SafeLlavaForConditionalGeneration(LlavaForConditionalGeneration):
    """LLaVA with a safety head: text by `generate` as ever, `img_safety_probs` by `do_safety=True`."""

    config_class = SafeLlavaConfig
    if TYPE_CHECKING:
        config: SafeLlavaConfig

    def __init__(self, config: SafeLlavaConfig) -> None:
        """Build it."""
        # Past LLaVA's, which would build a second tower and language model.
        super(LlavaForConditionalGeneration, self).__init__(config)
        self.model = SafeLlavaModel(config)
        width = config.text_config.hidden_size
        self.lm_head = nn.Linear(width, config.text_config.vocab_size, bias=False)
        self.safety_head = nn.Sequential(
            nn.Linear(width, width // 2),
            nn.GELU(),
            nn.Dropout(config.safety_dropout),
            nn.Linear(width // 2, len(config.classes)),
        )
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        _init_token(module)

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        safety_labels: Tensor | None = None,
        do_safety: bool = False,
        logits_to_keep: int | Tensor = 0,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> SafeLlavaOutput:
        """Run it.

        Args:
            input_ids: (batch, length), with `config.placeholders` image tokens for each image.
            pixel_values: (images, 3, height, width), in the order of the rows.
            attention_mask: (batch, length).
            labels: (batch, length); -100 is ignored.
            safety_labels: (batch,), 0 to the number of classes less 1; -100 is ignored.
            do_safety: whether to ask the head without labels, too.
            logits_to_keep: as LLaVA's; the loss is then of the labels of these places but the first.
            num_items_in_batch: what the sum over tokens is divided by; default: labelled tokens.
            **kwargs: LLaVA's further arguments.

        Raises:
            ValueError: where the head is asked without `input_ids`, or a label is none of its classes.
        """
        outputs = self.model(
            input_ids=input_ids, pixel_values=pixel_values, attention_mask=attention_mask, **kwargs
        )
        states = outputs[0]
        logits = self.lm_head(slice_logits_to_keep(states, logits_to_keep))
        next_token = safety = found = None
        if labels is not None:
            if isinstance(logits_to_keep, int) and logits_to_keep:
                labels = labels[:, -logits_to_keep:]
            many = (labels[:, 1:] != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
            next_token = self.loss_function(
                logits=logits,
                labels=labels,
                vocab_size=self.config.text_config.vocab_size,
                # With a batch of rows for the head alone, the mean over no token would be NaN.
                num_items_in_batch=torch.as_tensor(many).clamp(min=1),
            )
        if safety_labels is not None or do_safety:
            found = self._judge(input_ids, states, outputs.image_outputs)
        if safety_labels is not None and found is not None:
            safety = self._safety_loss(found, safety_labels)
        loss: Any = _total(next_token, safety, self.config.safety_loss_weight)
        return SafeLlavaOutput(
            loss=loss,
            logits=logits,
            cache=outputs.cache,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            image_outputs=outputs.image_outputs,
            next_token_loss=next_token,
            safety_loss=safety,
            safety_logits=found,
            img_safety_probs=None if found is None else found.float().softmax(-1),
        )

    def _judge(self, input_ids: Tensor | None, states: Tensor, images: Any) -> Tensor | None:
        """The head's logits of each row, NaN where it has no image; None where no row has one."""
        if input_ids is None:
            raise ValueError("the head finds images by their placeholders: give input_ids, not inputs_embeds")
        places = input_ids == self.config.image_token_id
        has = places.any(1)
        if not has.any() or images is None:
            return None
        if self.config.safety_tokens:
            last = places.shape[1] - 1 - places.flip(1).int().argmax(1)
            read = states[has, last[has]]
        else:
            # Of a row with several images the last one, as with the token.
            ends = (places.sum(1) // self.config.placeholders).cumsum(0)[has] - 1
            read = torch.stack(list(images.pooler_output)).mean(1)[ends].to(states.dtype)
        judged: Tensor = self.safety_head(read)
        found = judged.new_full((len(has), judged.shape[-1]), torch.nan)
        return found.masked_scatter(has[:, None], judged)

    def _safety_loss(self, found: Tensor, labels: Tensor) -> Tensor:
        known = labels != IGNORED
        classes = found.shape[-1]
        if bool((known & ((labels < 0) | (labels >= classes))).any()):
            raise ValueError(
                f"safety_labels: {labels.tolist()}: a class is 0 to {classes - 1}; -100 is ignored"
            )
        known = known & ~found[:, 0].isnan()
        total = nn.functional.cross_entropy(found[known].float(), labels[known], reduction="sum")
        return total / known.sum().clamp(min=1)


def from_llava(base: Any, **settings: Any) -> SafeLlavaForConditionalGeneration:
    """A SafeLLaVA with the weights of a LLaVA; token and head are new.

    Args:
        base: a `LlavaForConditionalGeneration`, as `from_pretrained` gives for LLaVA-1.5. Its parts are
            taken over, not copied.
        **settings: the fields of `SafeLlavaConfig` that LLaVA has not.

    Raises:
        ValueError: where settings do not go with the base, or it has no vision tower.
    """
    if not hasattr(getattr(base, "model", None), "vision_tower"):
        raise ValueError(f"{type(base).__name__} has no vision tower; give a LLaVA of transformers")
    said = base.config.to_dict()
    said = {k: v for k, v in said.items() if k not in ("model_type", "architectures", "transformers_version")}
    said |= {"vision_config": base.config.vision_config, "text_config": base.config.text_config}
    config = SafeLlavaConfig(**(said | settings))
    made = assembled(
        config,
        vision_tower=base.model.vision_tower,
        multi_modal_projector=base.model.multi_modal_projector,
        language_model=base.model.language_model,
        lm_head=base.lm_head,
    )
    made.generation_config = base.generation_config
    return made


def assembled(
    config: SafeLlavaConfig,
    *,
    vision_tower: nn.Module,
    multi_modal_projector: nn.Module | None,
    language_model: nn.Module,
    lm_head: nn.Module,
) -> SafeLlavaForConditionalGeneration:
    """A SafeLLaVA out of parts, which are taken over; token, head and a projector of None are new."""
    with torch.device("meta"):
        made = SafeLlavaForConditionalGeneration(config)
    like = next(language_model.parameters())
    new: list[nn.Module] = [made.safety_head]
    made.model.vision_tower, made.model.language_model = vision_tower, language_model
    made.lm_head = lm_head
    if multi_modal_projector is None:
        new.append(made.model.multi_modal_projector)
    else:
        made.model.multi_modal_projector = multi_modal_projector
    for part in new:
        part.to_empty(device=like.device).to(like.dtype).apply(made._init_weights)
    if config.safety_tokens:
        empty = torch.empty_like(made.model.safety_token, device=like.device, dtype=like.dtype)
        made.model.safety_token = nn.Parameter(empty)
        _init_token(made.model)
    return made


def _total(next_token: Tensor | None, safety: Tensor | None, weight: float) -> Tensor | None:
    if safety is None:
        return next_token
    return weight * safety if next_token is None else next_token + weight * safety


def _init_token(module: nn.Module) -> None:
    if isinstance(module, SafeLlavaModel) and module.config.safety_tokens:
        init.normal_(module.safety_token, std=module.safety_token.shape[0] ** -0.5)


@contextmanager
def _one_more(embeddings: nn.Module, token: Tensor) -> Iterator[None]:
    """While it lasts, what embeds patches gives one state more, in the last place."""

    def append(_module: nn.Module, _args: Any, states: Tensor) -> Tensor:
        more = token.to(states.dtype).expand(states.shape[0], 1, -1)
        return torch.cat([states, more], dim=1)

    handle = embeddings.register_forward_hook(append)
    try:
        yield
    finally:
        handle.remove()


AutoConfig.register(SafeLlavaConfig.model_type, SafeLlavaConfig, exist_ok=True)
AutoModelForImageTextToText.register(SafeLlavaConfig, SafeLlavaForConditionalGeneration, exist_ok=True)
