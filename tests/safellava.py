"""Small SafeLLaVAs with random weights, for tests."""

from __future__ import annotations

from typing import Any

import torch
from transformers import CLIPVisionConfig, LlamaConfig, SiglipVisionConfig

from pipeline.safellava.config import SafeLlavaConfig
from pipeline.safellava.model import SafeLlavaForConditionalGeneration

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
        "eos_token_id": 2, "max_position_embeddings": 256,
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
