"""A head on features of a frozen network: one hidden layer, trained in seconds on a processor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["train_layers"]

BATCH, RATE, DECAY = 64, 1e-3, 0.05


def train_layers(
    x: Tensor,
    y: Tensor,
    classes: int,
    hidden: int,
    *,
    dropout: float,
    epochs: int,
    seed: int,
    weights: Tensor | None = None,
) -> nn.Sequential:
    """Train Linear, GELU, Dropout, Linear by cross-entropy.

    Args:
        x: features, (n, width), standardised.
        y: classes of them, 0 to `classes` less 1.
        classes: how many.
        hidden: width of the layer between.
        dropout: share of it that is left out of a step.
        epochs: how often each row is seen; the rate falls to 0 along a half cosine.
        seed: of first weights, order and dropout.
        weights: of the classes in the loss; None: all weigh the same.

    Returns:
        The layers, from features to logits, without dropout.
    """
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = nn.Sequential(
            nn.Linear(x.shape[1], hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, classes)
        )
        optimizer = torch.optim.AdamW(layers.parameters(), lr=RATE, weight_decay=DECAY)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * -(-len(y) // BATCH))
        for _ in range(epochs):
            for some in torch.split(torch.randperm(len(y)), BATCH):
                optimizer.zero_grad()
                loss: Any = nn.functional.cross_entropy(layers(x[some]), y[some], weights)
                loss.backward()
                optimizer.step()
                schedule.step()
    return layers.eval()
