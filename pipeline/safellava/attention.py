"""Do the words that a model writes look at its safety token? The weights, as numbers and as a picture."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image

from pipeline.safellava.load import Loaded
from pipeline.store import write_bytes
from schemas.errors import InputError

__all__ = ["Attention", "attention", "draw"]

MOST = 64


@dataclass(frozen=True)
class Attention:
    """Weights on the token.

    Attributes:
        words: tokens that were generated, as text.
        weights: (layers, words), the mean over heads, 0..1.
        even: what a weight would be if all places weighed the same, for each word.
    """

    words: tuple[str, ...]
    weights: NDArray[np.float64]
    even: NDArray[np.float64]


def attention(loaded: Loaded, image: Image, query: str, most: int = MOST) -> Attention:
    """Generate an answer, and read the attention that each of its tokens pays to the safety token.

    Args:
        loaded: a model that was loaded with `attn_implementation="eager"`.
        image: of the question.
        query: of the question.
        most: tokens of the answer.

    Raises:
        InputError: where the model has no token.
    """
    model = loaded.model
    if not model.config.safety_tokens:
        raise InputError(
            "this model has no safety token (safety_head: visual_guard); there is nothing to see"
        )
    encoded = loaded.prompter.encode_prompt(query)
    inputs = loaded.inputs([encoded], [image])
    asked = inputs["input_ids"].shape[1]
    at = asked - 1 - encoded.input_ids[::-1].index(model.config.image_token_id)
    with torch.inference_mode():
        ids = model.generate(**inputs, do_sample=False, max_new_tokens=most)
        whole = inputs | {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        layers = model(**whole, output_attentions=True).attentions
    # The state before a word decides it.
    rows = slice(asked - 1, ids.shape[1] - 1)
    weights = np.stack([layer[0, :, rows, at].float().mean(0).cpu().numpy() for layer in layers])
    words = tuple(loaded.processor.tokenizer.decode([i]) for i in ids[0, asked:].tolist())
    return Attention(words, weights.astype(np.float64), 1 / (np.arange(asked - 1, ids.shape[1] - 1) + 1.0))


def draw(found: Attention, path: Path, title: str) -> None:
    """Write a PNG: layers down, words across, and beneath them the mean over layers beside what is even."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    many = len(found.words)
    figure = Figure(figsize=(max(6.0, 0.28 * many), 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    map_, line = figure.subplots(2, 1, height_ratios=[3, 1])
    shown = map_.imshow(found.weights, aspect="auto", cmap="viridis", vmin=0)
    map_.set_ylabel("layer")
    map_.set_xticks([])
    map_.set_title(title)
    figure.colorbar(shown, ax=map_, label="attention to the safety token")
    line.plot(found.weights.mean(0), marker=".", label="mean over layers")
    line.plot(found.even, marker=".", linestyle=":", label="if even")
    line.set_xlim(-0.5, many - 0.5)
    # A dollar sign would begin a formula.
    line.set_xticks(range(many), [w.strip().replace("$", r"\$") or "·" for w in found.words], rotation=90)
    line.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_bytes(path, buffer.getvalue())
