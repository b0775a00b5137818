"""Small image-text encoders of open_clip with random weights, saved as anybody would save theirs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "cat", "dog", "knife", "photo", "of", "the", "person"]

VIT: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
SIGLIP: dict[str, Any] = {
    "embed_dim": 64,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {
        "image_size": 160,
        "timm_model_name": "test_vit",
        "timm_model_pretrained": False,
        "timm_pool": "map",
        "timm_proj": "none",
    },
    "text_cfg": {
        "context_length": 64,
        "vocab_size": len(WORDS),
        "hf_tokenizer_name": "nobody/has-this",
        "tokenizer_kwargs": {"clean": "canonicalize"},
        "width": 32,
        "heads": 2,
        "layers": 2,
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
        "norm_kwargs": {"eps": 1e-6},
    },
}
SIGLIP_PREPARED = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}


@dataclass(frozen=True)
class SavedClip:
    config: Path
    checkpoint: Path


def save_clip(folder: Path, name: str, shape: dict[str, Any], **beside: Any) -> SavedClip:
    """Write a model config and random weights in its shape."""
    import open_clip
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    known = folder / f"{name}-known.json"
    known.write_text(json.dumps(shape))
    open_clip.add_model_config(known)
    torch.manual_seed(0)
    model = open_clip.create_model(known.stem, load_weights=False)
    saved = SavedClip(folder / f"{name}.json", folder / f"{name}.pt")
    saved.config.write_text(json.dumps({"model_cfg": shape, **beside} if beside else shape))
    torch.save(model.state_dict(), saved.checkpoint)
    return saved


def save_tokenizer(folder: Path) -> Path:
    """Write the files of a tokenizer that knows a dozen words."""
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertTokenizerFast

    words = {word: i for i, word in enumerate(WORDS)}
    tokens = BertWordPieceTokenizer(words)  # type: ignore[arg-type]
    BertTokenizerFast(tokenizer_object=tokens._tokenizer).save_pretrained(folder)
    return folder
