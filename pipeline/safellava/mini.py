"""SafeLLaVA-mini: a SafeLLaVA out of weights that install from a package registry.

EfficientNet-Lite2 looks, a new projector of two layers translates, SmolLM2-135M-Instruct or Qwen2.5-Coder
0.5B writes. Its projector, token and head know nothing before they are trained.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlavaProcessor
from transformers.models.llava.image_processing_llava import LlavaImageProcessor

from pipeline.encoders._common import quiet
from pipeline.models import locate
from pipeline.safellava.config import SafeLlavaConfig
from pipeline.safellava.model import SafeLlavaForConditionalGeneration, assembled
from pipeline.safellava.processor import fit_processor
from pipeline.safellava.tower import LiteTower, load_lite_tower
from pipeline.store import replace_directory
from schemas.errors import InputError

__all__ = ["LANGUAGES", "build_mini", "join"]

LANGUAGES = {
    "smollm2": "smollm2-135m-instruct-q4_1",
    "qwen2.5": "qwen2.5-coder-0.5b-instruct-q4_k_m",
}
"""Language models of the registry, by the name that people give."""
TOWER = "efficientnet-lite2"
GRID = 6
"""36 visual tokens: of 9 x 9 places the pooled ones tell as much of the kind of image, in half the time."""
IMAGE_TOKEN = "<image>"  # noqa: S105 - a placeholder, no secret
MEAN, STD = 127 / 255, 128 / 255
CHAT = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% for c in m['content'] if c['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for c in m['content'] if c['type'] == 'text' %}{{ c['text'] }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""ChatML, images first. Both language models were tuned on it."""


def build_mini(
    out: Path, *, language: str = "smollm2", grid: int = GRID, seed: int = 0, **settings: Any
) -> SafeLlavaForConditionalGeneration:
    """Write the model and its processor to `out`, which is not there yet.

    Args:
        out: a folder that `from_pretrained` reads afterwards.
        language: one of `LANGUAGES`.
        grid: the side of the map of visual tokens, 1 to 9.
        seed: of the new weights.
        **settings: fields of `SafeLlavaConfig`.

    Raises:
        InputError: where `out` is there, or a setting is wrong.
        ModelMissingError: where weights were not pulled.
    """
    if out.exists():
        raise InputError(f"{out}: is there already; name another folder, or delete it")
    if language not in LANGUAGES or not 1 <= grid <= 9:
        raise InputError(f"language {language}, grid {grid}: take {' or '.join(LANGUAGES)}, and 1 to 9")
    weights, file = locate(TOWER), locate(LANGUAGES[language])
    with quiet():
        tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
        model = AutoModelForCausalLM.from_pretrained(
            str(file.parent), gguf_file=file.name, dtype=torch.float32
        )
    model.config.__dict__.pop("quantization_config", None)
    torch.manual_seed(seed)
    try:
        made = join(load_lite_tower(weights, grid), model, tokenizer, **settings)
    except ValueError as error:
        raise InputError(str(error)) from error
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    with quiet():
        made.save_pretrained(partial)
    _processor(tokenizer, made.config).save_pretrained(partial)
    replace_directory(partial, out)
    return made


def join(
    tower: LiteTower, language: Any, tokenizer: Any, **settings: Any
) -> SafeLlavaForConditionalGeneration:
    """A SafeLLaVA of a tower and a causal language model; the tokenizer learns the placeholder."""
    tokenizer.add_special_tokens(
        {"additional_special_tokens": [IMAGE_TOKEN]}, replace_extra_special_tokens=False
    )
    place = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    if len(tokenizer) > language.config.vocab_size:
        language.resize_token_embeddings(len(tokenizer))
    config = SafeLlavaConfig(
        vision_config=tower.config,
        text_config=language.config,
        image_token_index=place,
        image_seq_length=tower.config.grid**2,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        **settings,
    )
    made = assembled(
        config,
        vision_tower=tower,
        multi_modal_projector=None,
        language_model=language.model,
        lm_head=language.lm_head,
    )
    made.generation_config = language.generation_config
    made.generation_config.suppress_tokens = [place]
    made.generation_config.pad_token_id = tokenizer.pad_token_id
    return made


def _processor(tokenizer: Any, config: SafeLlavaConfig) -> LlavaProcessor:
    side = config.vision_config.image_size
    images = LlavaImageProcessor(
        do_pad=True,
        do_center_crop=False,
        size={"height": side, "width": side},
        crop_size={"height": side, "width": side},
        image_mean=[MEAN] * 3,
        image_std=[STD] * 3,
    )
    processor = LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=side // config.vision_config.grid,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        chat_template=CHAT,
    )
    fit_processor(processor, config)
    return processor
