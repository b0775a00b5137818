"""Questions about an image as token ids, with placeholders for its visual tokens and the safety token.

The image stands before the query, so that under a causal mask the token's state cannot depend on the query.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from pipeline.safellava.config import SafeLlavaConfig
from pipeline.safellava.model import IGNORED

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Encoded", "Prompter", "UnusableTextError", "fit_processor"]


class UnusableTextError(ValueError):
    """A text that cannot be put to this model; the message is one of few phrases."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A row as token ids.

    Attributes:
        input_ids: of prompt and answer.
        labels: of each: itself in the answer and its end, -100 elsewhere.
    """

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]


def fit_processor(processor: Any, config: SafeLlavaConfig) -> None:
    """Tell transformers' `LlavaProcessor` how many placeholders an image has in this model."""
    images = processor.image_processor
    size = images.crop_size if images.do_center_crop else images.size
    places = (size["height"] // processor.patch_size) * (size["width"] // processor.patch_size)
    first = int(processor.vision_feature_select_strategy == "default")  # it takes the class token off
    processor.num_additional_image_tokens = config.placeholders - places + first


class Prompter:
    """Makes batches of questions and answers for one model."""

    def __init__(self, processor: Any, config: SafeLlavaConfig) -> None:
        """Bind both.

        Args:
            processor: transformers' `LlavaProcessor` of the model, with a chat template.
            config: the model's.

        Raises:
            ValueError: where the template does not put the image before the query.
        """
        self._processor, self._tokenizer = processor, processor.tokenizer
        self._mark: str = processor.image_token
        self._many = config.placeholders
        self._place = config.image_token_id
        text = self._rendered("QUERY", image=True)
        if text.count(self._mark) != 1 or text.index(self._mark) > text.index("QUERY"):
            raise ValueError(
                "the chat template does not put one image before the query; correct chat_template"
            )

    @cached_property
    def _reserved(self) -> tuple[str, ...]:
        added = [str(token) for token in self._tokenizer.added_tokens_decoder.values() if token.special]
        return (self._mark, *self._tokenizer.all_special_tokens, *added)

    @property
    def pad(self) -> int:
        """The id that fills up."""
        pad = self._tokenizer.pad_token_id
        return int(self._tokenizer.eos_token_id if pad is None else pad)

    def prompt(self, query: str, *, image: bool = True) -> str:
        """What the model reads before it answers.

        Raises:
            UnusableTextError: where the query holds a token that steers the model, such as another image.
        """
        if any(token in query for token in self._reserved):
            raise UnusableTextError("holds a special token")
        return self._rendered(query, image).replace(self._mark, self._mark * self._many)

    def encode_prompt(self, query: str, *, image: bool = True) -> Encoded:
        """A question alone, nothing labelled."""
        ids = tuple(self._ids(self.prompt(query, image=image))["input_ids"])
        return Encoded(ids, (IGNORED,) * len(ids))

    def encode_image(self) -> Encoded:
        """An image alone, up to the last placeholder: all that the head reads."""
        ids = self.encode_prompt("?").input_ids
        end = len(ids) - ids[::-1].index(self._place)
        return Encoded(ids[:end], (IGNORED,) * end)

    def encode(self, query: str, answer: str, most: int, *, image: bool = True) -> Encoded:
        """A question with its answer, labelled.

        Args:
            query: never empty.
            answer: never empty.
            most: tokens in all; a longer answer is cut off.
            image: whether there is one.

        Raises:
            UnusableTextError: where a text holds a special token, or nothing of the answer is left.
        """
        prompt = self.prompt(query, image=image)
        if any(token in answer for token in self._reserved):
            raise UnusableTextError("holds a special token")
        glue = "" if prompt[-1:].isspace() else " "
        found = self._ids(f"{prompt}{glue}{answer.strip()}{self._tokenizer.eos_token}", offsets=True)
        ids = found["input_ids"][:most]
        starts = [start for start, _ in found["offset_mapping"][:most]]
        labels = [i if at >= len(prompt) else IGNORED for i, at in zip(ids, starts, strict=True)]
        if all(label == IGNORED for label in labels):
            raise UnusableTextError("too long")
        return Encoded(tuple(ids), tuple(labels))

    def batch(
        self, rows: Sequence[Encoded], images: Sequence[Image | None], padding: Literal["left", "right"]
    ) -> dict[str, Tensor]:
        """Padded inputs of the model.

        Args:
            rows: one or more.
            images: of each row.
            padding: right for training, left for generation.

        Returns:
            `input_ids`, `attention_mask` and `labels` (rows, longest); `pixel_values` (images, 3, height,
            width) where there is an image.
        """
        longest = max(len(row.input_ids) for row in rows)

        def padded(values: Sequence[int], filler: int) -> list[int]:
            more = [filler] * (longest - len(values))
            return [*more, *values] if padding == "left" else [*values, *more]

        made = {
            "input_ids": torch.tensor([padded(row.input_ids, self.pad) for row in rows]),
            "attention_mask": torch.tensor([padded([1] * len(row.input_ids), 0) for row in rows]),
            "labels": torch.tensor([padded(row.labels, IGNORED) for row in rows]),
        }
        if there := [image for image in images if image is not None]:
            made["pixel_values"] = self.pixels(there)
        return made

    def pixels(self, images: Sequence[Image]) -> Tensor:
        """(images, 3, height, width) as the tower takes them."""
        found: Tensor = self._processor.image_processor(images=list(images), return_tensors="pt")[
            "pixel_values"
        ]
        return found

    def decode(self, ids: Tensor) -> str:
        """Generated ids as text."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def _rendered(self, query: str, image: bool) -> str:
        content: list[dict[str, str]] = [{"type": "image"}] if image else []
        said = [{"role": "user", "content": [*content, {"type": "text", "text": query}]}]
        return str(self._processor.apply_chat_template(said, add_generation_prompt=True, tokenize=False))

    def _ids(self, text: str, *, offsets: bool = False) -> Any:
        bos = self._tokenizer.bos_token
        return self._tokenizer(
            text,
            add_special_tokens=not (bos and text.startswith(bos)),
            return_offsets_mapping=offsets,
        )
