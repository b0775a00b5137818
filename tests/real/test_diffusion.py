"""DiffusionGenerator on the real code of diffusers: a tiny Stable Diffusion with random weights."""

from __future__ import annotations

import gzip
import inspect
import json
from pathlib import Path

import pytest

from pipeline.generate.diffusion import DiffusionGenerator, PromptRefusedError
from pipeline.generate.policy import ImagePrompt
from schemas.taxonomy import load_taxonomy

pytestmark = [
    pytest.mark.real,
    # Of the libraries, about themselves.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

TAXONOMY = load_taxonomy(Path(inspect.getfile(load_taxonomy)).with_name("taxonomy.yaml"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved StableDiffusionPipeline from configs alone: its pictures are noise."""
    import open_clip
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    folder = tmp_path_factory.mktemp("tiny-diffusion")
    torch.manual_seed(0)
    merges = (
        gzip.decompress(Path(open_clip.__file__).with_name("bpe_simple_vocab_16e6.txt.gz").read_bytes())
        .decode()
        .split("\n")[1 : 49152 - 256 - 2 + 1]
    )
    letters = [*range(33, 127), *range(161, 173), *range(174, 256)]
    extra = [chr(256 + i) for i in range(256 - len(letters))]
    symbols = [chr(c) for c in letters] + extra
    words = [*symbols, *(s + "</w>" for s in symbols), *("".join(m.split()) for m in merges)]
    vocabulary = {w: i for i, w in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77)
    text = CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        bos_token_id=vocabulary["<|startoftext|>"],
        eos_token_id=vocabulary["<|endoftext|>"],
        pad_token_id=vocabulary["<|endoftext|>"],
    )
    unet = UNet2DConditionModel(
        sample_size=32,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=8,
        norm_num_groups=8,
    )
    vae = AutoencoderKL(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
        norm_num_groups=8,
    )
    saved = folder / "tiny"
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(saved)
    return saved


def prompt(text: str, name: str = "property_crime", *, safe: bool = True) -> ImagePrompt:
    return ImagePrompt(text, TAXONOMY.by_name(name), safe)


def generator(checkpoint: Path) -> DiffusionGenerator:
    return DiffusionGenerator(checkpoint, steps=2, guidance=3.0, size=(64, 48), negative_prompt="text")


def test_pictures_depend_on_prompt_and_seed_alone(checkpoint: Path) -> None:
    padlock, jar = prompt("a padlock on a door"), prompt("a jar of jam")
    first, second = generator(checkpoint).generate([padlock, jar], [1, 2])
    assert first.image.size == (64, 48)
    assert (first.image.mode, first.withheld) == ("RGB", False)
    assert first.image.tobytes() != second.image.tobytes()

    alone = generator(checkpoint).generate([jar], [2])[0]
    assert alone.image.tobytes() == second.image.tobytes()
    assert alone.recipe == second.recipe
    assert generator(checkpoint).generate([jar], [3])[0].image.tobytes() != second.image.tobytes()


def test_the_recipe_says_all_but_the_path(checkpoint: Path) -> None:
    made = generator(checkpoint).generate([prompt("a jar of jam")], [7])[0].recipe
    revision = str(made.pop("revision"))
    assert revision.startswith("sha256:")
    assert set(made.pop("versions") or {}) == {"diffusers", "torch"}  # type: ignore[arg-type]
    assert made == {
        "method": "diffusion",
        "model": "tiny",
        "pipeline": "StableDiffusionPipeline",
        "scheduler": "DDIMScheduler",
        "dtype": "float32",
        "steps": 2,
        "guidance": 3.0,
        "size": [64, 48],
        "seed": 7,
        "prompt": "a jar of jam",
        "negative_prompt": "text",
        "safety_checker": False,
    }
    assert str(checkpoint.parent) not in json.dumps(made)


def test_what_the_safety_checker_takes_away_is_marked(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import SimpleNamespace

    from PIL import Image

    class Checked:
        safety_checker = object()
        scheduler = object()

        def __call__(self, **_: object) -> SimpleNamespace:
            return SimpleNamespace(images=[Image.new("RGB", (64, 48))], nsfw_content_detected=[True])

    strict = generator(checkpoint)
    monkeypatch.setitem(strict.__dict__, "_pipeline", Checked())
    made = strict.generate([prompt("a jar of jam")], [1])[0]
    assert made.withheld
    assert made.recipe["safety_checker"] is True


def test_refused_prompts_reach_no_model(checkpoint: Path) -> None:
    with pytest.raises(PromptRefusedError, match=r"prompt 0: .*images: drawn_only"):
        generator(checkpoint).generate([prompt("a sign", "race", safe=False)], [1])
