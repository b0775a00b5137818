"""Small SafeLLaVAs with random weights, for tests."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
)

from pipeline.safellava.config import SafeLlavaConfig
from pipeline.safellava.load import Loaded
from pipeline.safellava.model import SafeLlavaForConditionalGeneration
from pipeline.safellava.processor import Prompter, fit_processor

IMAGE = 99
"""The placeholder's id."""
SIDE, PATCHES = 16, 4
VOCABULARY = 100


def clip_config(**settings: Any) -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE,
        patch_size=8, projection_dim=16, **settings,
    )  # fmt: skip


def siglip_config() -> SiglipVisionConfig:
    return SiglipVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE,
        patch_size=8, vision_use_head=False,
    )  # fmt: skip


def llama_config(**settings: Any) -> LlamaConfig:
    said: dict[str, Any] = {
        "hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1,
        "eos_token_id": 2, "max_position_embeddings": 256, "initializer_range": 0.2,
    }  # fmt: skip
    return LlamaConfig(**(said | settings))


def tiny_config(**settings: Any) -> SafeLlavaConfig:
    said: dict[str, Any] = {
        "vision_config": clip_config(), "text_config": llama_config(), "image_token_index": IMAGE,
        "image_seq_length": PATCHES,
    }  # fmt: skip
    return SafeLlavaConfig(**(said | settings))


def tiny_model(seed: int = 0, **settings: Any) -> SafeLlavaForConditionalGeneration:
    torch.manual_seed(seed)
    return SafeLlavaForConditionalGeneration(tiny_config(**settings)).eval()


def ids(model: SafeLlavaForConditionalGeneration, *query: int) -> torch.Tensor:
    """One row: the beginning, an image, a query."""
    return torch.tensor([[1, 5, *[IMAGE] * model.config.placeholders, *query]])


def pixels(*seeds: int) -> torch.Tensor:
    made = [torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(s)) for s in seeds]
    return torch.stack(made)


WORDS = [
    "what",
    "is",
    "it",
    "a",
    "the",
    "no",
    "i",
    "can",
    "not",
    "dog",
    "word",
    "here",
    "and",
    "red",
    "gun",
    "of",
]
MARKS = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
CHAT = (
    "{% for m in messages %}"
    "{% for c in m['content'] if c['type'] == 'image' %}{{ '<image> ' }}{% endfor %}"
    "{% for c in m['content'] if c['type'] == 'text' %}{{ c['text'] }}{% endfor %}{{ ' : ' }}{% endfor %}"
)


def tiny_processor(model: SafeLlavaForConditionalGeneration) -> Any:
    """A tokenizer of a few words, and CLIP's image processor for small images."""
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, ":": 4}
    vocabulary |= {word: 5 + i for i, word in enumerate(WORDS)} | {"<image>": IMAGE}
    made = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))  # noqa: S106 - no password
    made.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, extra_special_tokens={"image_token": "<image>"}, **MARKS
    )  # fmt: skip
    size = {"height": SIDE, "width": SIDE}
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(size=size, crop_size=size), tokenizer=tokenizer, patch_size=8,
        vision_feature_select_strategy="default", chat_template=CHAT,
    )  # fmt: skip
    fit_processor(processor, model.config)
    return processor


def tiny_loaded(seed: int = 0, **settings: Any) -> Loaded:
    model = tiny_model(seed, **settings)
    processor = tiny_processor(model)
    return Loaded(model, processor, Prompter(processor, model.config))
