"""EfficientNet-Lite2 as a vision tower of transformers: places of its feature map as visual tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

__all__ = ["LiteTower", "LiteTowerConfig", "load_lite_tower"]


@strict
class LiteTowerConfig(PreTrainedConfig):
    """Its shape.

    Attributes:
        architecture: a convolutional network of timm that gives a feature map.
        hidden_size: channels of the map.
        image_size: side of the images in pixels.
        grid: side of the map after pooling: grid * grid visual tokens.
    """

    model_type = "safellava_lite_tower"

    architecture: str = "tf_efficientnet_lite2"
    hidden_size: int = 1280
    image_size: int = 260
    grid: int = 9


class LiteTower(PreTrainedModel):
    """The network without its classifier."""

    config_class = LiteTowerConfig
    main_input_name = "pixel_values"
    base_model_prefix = "trunk"

    def __init__(self, config: LiteTowerConfig) -> None:
        """Build it with random weights."""
        import timm

        super().__init__(config)
        self.trunk = timm.create_model(config.architecture, pretrained=False, num_classes=0)
        self.post_init()

    def get_input_embeddings(self) -> None:  # type: ignore[override]
        """None: it reads pixels."""

    def forward(self, pixel_values: Tensor, **_: Any) -> BaseModelOutputWithPooling:
        """Look at images.

        Args:
            pixel_values: (images, 3, side, side).

        Returns:
            `last_hidden_state` (images, grid * grid, channels), row by row; `hidden_states` holds it alone;
            `pooler_output` (images, channels) is the mean over the whole map.
        """
        trunk: Any = self.trunk
        seen = trunk.forward_features(pixel_values)
        grid = self.config.grid
        tokens = nn.functional.adaptive_avg_pool2d(seen, (grid, grid)).flatten(2).transpose(1, 2)
        return BaseModelOutputWithPooling(
            last_hidden_state=tokens, pooler_output=seen.mean((2, 3)), hidden_states=(tokens,)
        )


def load_lite_tower(path: Path, grid: int) -> LiteTower:
    """The tower with ImageNet's weights.

    Args:
        path: the state dictionary of EfficientNet-Lite2 for 1,000 classes.
        grid: as in the configuration.

    Raises:
        ValueError: where the file holds another network.
    """
    tower = LiteTower(LiteTowerConfig(grid=grid))
    stored = list(torch.load(path, map_location="cpu", weights_only=True).values())[:-2]  # no classifier
    wanted = tower.trunk.state_dict()
    # The file names its tensors in its own way, but in the same order.
    if [t.shape for t in stored] != [t.shape for t in wanted.values()]:
        raise ValueError(f"{path}: not EfficientNet-Lite2 for 1,000 classes; give its state dictionary")
    tower.trunk.load_state_dict(dict(zip(wanted, stored, strict=True)))
    tower.eval()
    return tower


AutoConfig.register(LiteTowerConfig.model_type, LiteTowerConfig, exist_ok=True)
AutoModel.register(LiteTowerConfig, LiteTower, exist_ok=True)
