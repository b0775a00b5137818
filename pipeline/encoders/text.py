"""Sentence embeddings by MiniLM."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.encoders._common import FloatArray, fingerprint, fixed_threads, padded, quiet, require, unit
from pipeline.extras import needs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_BATCH = 16
_LENGTHS = (8, 16, 32, 64, 128, 256)
"""Padded lengths in tokens. The length of a text alone picks its bucket, so companions cannot."""


class TextEncoder:
    """A sentence encoder with mean pooling (all-MiniLM-L6-v2), run as open_clip's text tower."""

    def __init__(self, path: Path, tower: Any = None) -> None:
        """Load the encoder.

        Args:
            path: Directory with config.json, model.safetensors and tokenizer.json.
            tower: An open_clip text tower that is loaded already; by default it is loaded from `path`.
        """
        require(path, "a sentence encoder (config.json, model.safetensors, tokenizer.json)", directory=True)
        for name in ("config.json", "model.safetensors", "tokenizer.json"):
            require(path / name, "part of the sentence encoder")
        from open_clip.hf_model import HFTextEncoder
        from transformers import AutoConfig, AutoTokenizer

        self.path = path
        self.dim: int = AutoConfig.from_pretrained(str(path), local_files_only=True).hidden_size
        with quiet():
            if tower is None:
                tower = HFTextEncoder(str(path), self.dim, pooler_type="mean_pooler", proj_type=None)
            self._tokenizer = AutoTokenizer.from_pretrained(str(path), local_files_only=True)
        self._tower = tower.eval()
        limit = min(_LENGTHS[-1], tower.config.max_position_embeddings)
        self._lengths = (*(n for n in _LENGTHS if n < limit), limit)

    @cached_property
    def identity(self) -> str:
        """Name of the weights, for cache keys: changes when a file of the encoder does."""
        files = [self.path / name for name in ("config.json", "model.safetensors", "tokenizer.json")]
        return f"minilm-{fingerprint(files)}"

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Embed texts; what lies beyond 256 tokens (some 190 English words) is not read.

        Returns:
            float32 array (n, 384), rows of length 1, in the order of the texts.
        """
        import torch

        out = np.zeros((len(texts), self.dim), np.float32)
        if not texts:
            return out
        # Surrogates that came out of broken files would stop the tokenizer.
        clean = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        tokens = self._tokenize(clean)
        empty = self._tokenize([""])[0]
        pad: int = self._tower.config.pad_token_id
        for shorter, length in zip((0, *self._lengths), self._lengths, strict=False):
            rows = [i for i, ids in enumerate(tokens) if shorter < len(ids) <= length]
            start = 0
            for batch, real in padded([tokens[i] for i in rows], _BATCH, empty):
                ids = torch.tensor([row + [pad] * (length - len(row)) for row in batch])
                with fixed_threads():
                    vectors = self._tower(ids).numpy()
                out[rows[start : start + real]] = vectors[:real]
                start += real
        return unit(out)

    def _tokenize(self, texts: list[str]) -> list[list[int]]:
        ids: list[list[int]] = self._tokenizer(texts, truncation=True, max_length=self._lengths[-1])[
            "input_ids"
        ]
        return ids


def load_text_encoder() -> TextEncoder:
    """Load MiniLM from the local model store."""
    from pipeline.models import locate

    needs("open_clip", "torch", "transformers")
    return TextEncoder(locate("all-minilm-l6-v2"))
