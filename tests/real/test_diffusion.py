"""DiffusionGenerator on the real code of diffusers: a tiny Stable Diffusion with random weights."""

from __future__ import annotations

import gzip
import inspect
import json
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.generate.diffusion import DiffusionGenerator, PromptRefusedError
from pipeline.generate.policy import ImagePrompt
from pipeline.parallel import given_to
from pipeline.runner import run_stage, stage_key
from pipeline.stages import STAGES
from pipeline.store import read_rows
from pipeline.workspace import Silent, Workspace
from schemas.taxonomy import load_taxonomy
from tests.conftest import REPOSITORY, make_workspace
from tests.elsewhere import Elsewhere

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
    (first,) = generator(checkpoint).generate([padlock], [1])
    (second,) = generator(checkpoint).generate([jar], [2])
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
        "device": "cpu",
        "steps": 2,
        "guidance": 3.0,
        "size": [64, 48],
        "seed": 7,
        "prompt": "a jar of jam",
        "negative_prompt": "text",
        "safety_checker": False,
    }
    assert str(checkpoint.parent) not in json.dumps(made)


def test_a_batch_has_its_own_seeds_and_names_its_companions(checkpoint: Path) -> None:
    prompts = [prompt("a padlock on a door"), prompt("a jar of jam"), prompt("a jar of jam")]
    batch = generator(checkpoint).generate(prompts, [1, 2, 2])
    assert batch[0].image.tobytes() != batch[1].image.tobytes()
    assert batch[1].image.tobytes() == batch[2].image.tobytes(), "one prompt and one seed"
    again = generator(checkpoint).generate(prompts, [1, 2, 2])
    assert [b.image.tobytes() for b in batch] == [a.image.tobytes() for a in again]
    alone = generator(checkpoint).generate(prompts[1:2], [2])[0]
    near = zip(alone.image.tobytes(), batch[1].image.tobytes(), strict=True)
    assert max(abs(x - y) for x, y in near) <= 8, "companions change the last bits at most"
    assert [b.recipe["batch"]["place"] for b in batch] == [0, 1, 2]  # type: ignore[index,call-overload]
    others = generator(checkpoint).asked(prompts[:2], [1, 2])
    assert others[0]["batch"] != batch[0].recipe["batch"]
    assert "batch" not in alone.recipe


@pytest.fixture(scope="module")
def checked(checkpoint: Path) -> Path:
    """The same checkpoint with a tiny safety checker of random weights, that flags everything."""
    import torch
    from diffusers import StableDiffusionPipeline
    from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPVisionConfig

    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    vision = CLIPVisionConfig(**small, image_size=32, patch_size=16, projection_dim=32)
    checker = StableDiffusionSafetyChecker(
        CLIPConfig(vision_config=vision.to_dict(), text_config=small, projection_dim=32)
    )
    with torch.no_grad():
        checker.concept_embeds_weights.fill_(-10.0)  # thresholds below every cosine
        checker.concept_embeds.fill_(1.0)
        checker.special_care_embeds.fill_(1.0)
    untyped: Any = StableDiffusionPipeline
    pipeline = untyped.from_pretrained(
        str(checkpoint),
        safety_checker=checker,
        feature_extractor=CLIPImageProcessor(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
        ),
        local_files_only=True,
    )
    saved = checkpoint.with_name("checked")
    pipeline.save_pretrained(saved)
    return saved


def test_what_the_safety_checker_takes_away_is_marked(checked: Path) -> None:
    jar = [prompt("a jar of jam")]
    kept = generator(checked).generate(jar, [1])[0]
    assert (kept.withheld, kept.recipe["safety_checker"]) == (True, True)
    assert not any(kept.image.tobytes())
    off = DiffusionGenerator(checked, steps=2, size=(64, 48), safety_checker="off").generate(jar, [1])[0]
    assert (off.withheld, off.recipe["safety_checker"]) == (False, False)
    assert any(off.image.tobytes())


def test_sdxl_is_loaded_too_and_has_no_checker(checkpoint: Path) -> None:
    import torch
    from diffusers import (
        AutoencoderKL,
        EulerAncestralDiscreteScheduler,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(str(checkpoint / "tokenizer"))
    first = CLIPTextModel.from_pretrained(str(checkpoint / "text_encoder"))
    config: CLIPTextConfig = first.config
    config.projection_dim = 32
    unet = UNet2DConditionModel(
        sample_size=32,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=64,
        attention_head_dim=8,
        norm_num_groups=8,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 32,
    )
    saved = checkpoint.with_name("xl")
    StableDiffusionXLPipeline(
        vae=AutoencoderKL.from_pretrained(str(checkpoint / "vae")),
        text_encoder=first,
        text_encoder_2=CLIPTextModelWithProjection(config),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet,
        scheduler=EulerAncestralDiscreteScheduler(),
        add_watermarker=False,
    ).save_pretrained(saved)
    # As SDXL-Turbo is used: one step, no guidance.
    made = DiffusionGenerator(saved, steps=1, guidance=0.0, size=(64, 64)).generate(
        [prompt("a jar")] * 2, [1, 2]
    )
    assert made[0].image.tobytes() != made[1].image.tobytes()
    assert {m.recipe["pipeline"] for m in made} == {"StableDiffusionXLPipeline"}
    assert [(m.withheld, m.recipe["safety_checker"]) for m in made] == [(False, False)] * 2
    off = DiffusionGenerator(saved, steps=1, guidance=0.0, size=(64, 64), safety_checker="off")
    assert not off.generate([prompt("a jar")], [1])[0].withheld


def test_offload_needs_accelerate(checkpoint: Path) -> None:
    """Where it is installed, moving models needs an accelerator too, which is tested on none."""
    if find_spec("accelerate") is None:
        with pytest.raises(ValueError, match="needs the package accelerate"):
            DiffusionGenerator(checkpoint, device="cuda", offload="model")
    else:
        DiffusionGenerator(checkpoint, device="cuda", offload="model")


def build(root: Path, checkpoint: Path, **values: Any) -> Workspace:
    make_workspace(root, ["weapon_related_violence"])
    path = root / "params.yaml"
    params = yaml.safe_load(path.read_text())
    if not (root / "models").exists():
        shutil.copytree(checkpoint, root / "models" / "tiny")
    said = {
        "kind": "diffusion", "name": "tiny", "model": "models/tiny", "per_class": {"safe": 4, "unsafe": 1},
        "size": [64, 64], "steps": 1, "guidance": 3.0, "batch": 2, "licence": "CC0-1.0",
        "redistributable": "yes",
    }  # fmt: skip
    params["generate"] = {"drawings": {"safe": 1, "unsafe": 0}, "pictures": [said | values]}
    path.write_text(yaml.safe_dump(params))
    return Workspace(root)


def rows(workspace: Workspace, table: str = "images") -> list[dict[str, Any]]:
    return list(read_rows(workspace.stage_dir("generate") / f"{table}.parquet"))


def test_the_stage_makes_each_picture_once_and_the_same(tmp_path: Path, checkpoint: Path) -> None:
    workspace = build(tmp_path / "one", checkpoint)
    workspace.check()
    assert run_stage(workspace, "generate", Silent())
    made = rows(workspace)
    assert [row["source_kind"] for row in made] == ["drawing"] + ["diffusion"] * 5
    assert {row["generator"] for row in made[1:]} == {"diffusion:tiny"}
    assert str(tmp_path) not in json.dumps([row["recipe"] for row in made])
    table = workspace.stage_dir("generate") / "images.parquet"
    before = table.read_bytes()

    # As a killed run leaves it: some pictures of a batch are there, some are not, one is damaged.
    notes = sorted((workspace.state / "pictures" / "recipes").rglob("*.json"))
    assert len(notes) == 5
    notes[0].unlink()
    file = sorted(p for p in (workspace.state / "pictures" / "files").rglob("*") if p.is_file())[0]
    file.write_bytes(b"damaged")
    table.unlink()
    assert run_stage(Workspace(workspace.root), "generate", Silent())
    assert table.read_bytes() == before

    # All are there: the model is not needed.
    times = {p: p.stat().st_mtime_ns for p in notes if p.exists()}
    table.unlink()
    assert run_stage(Workspace(workspace.root), "generate", Silent())
    assert table.read_bytes() == before
    assert times == {p: p.stat().st_mtime_ns for p in times}


def test_others_make_the_same_pictures(tmp_path: Path, checkpoint: Path) -> None:
    here, there = build(tmp_path / "here", checkpoint), build(tmp_path / "there", checkpoint)
    assert run_stage(here, "generate", Silent())
    others = Elsewhere()
    with given_to(others):
        assert run_stage(there, "generate", Silent())
    assert rows(there) == rows(here)
    assert others.asked == {("_drawn", 8, False), ("_diffuse", 1, False)}

    dead = build(tmp_path / "dead", checkpoint, device="cuda")
    others = Elsewhere(dies=True)
    with given_to(others):
        assert run_stage(dead, "generate", Silent())
    assert [row["reason"] for row in rows(dead, "failures")[1:]] == ["picture not made"] * 5
    assert ("_diffuse", 1, True) in others.asked


def test_a_killed_stage_goes_on(tmp_path: Path, checkpoint: Path) -> None:
    reference = build(tmp_path / "whole", checkpoint, per_class={"safe": 12, "unsafe": 0})
    run_stage(reference, "generate", Silent())
    killed = build(tmp_path / "killed", checkpoint, per_class={"safe": 12, "unsafe": 0})
    program = (
        "import sys; from pathlib import Path; from pipeline.runner import run_stage; "
        "from pipeline.workspace import Silent, Workspace; "
        "run_stage(Workspace(Path(sys.argv[1])), 'generate', Silent())"
    )
    child = subprocess.Popen([sys.executable, "-c", program, str(killed.root)], cwd=REPOSITORY)
    recipes = killed.state / "pictures" / "recipes"
    deadline = time.monotonic() + 120
    while len(list(recipes.rglob("*.json"))) < 3 and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert run_stage(killed, "generate", Silent())
    assert rows(killed) == rows(reference)


def test_withheld_pictures_are_failures(tmp_path: Path, checked: Path) -> None:
    workspace = build(tmp_path, checked, per_class={"safe": 2, "unsafe": 0})
    assert run_stage(workspace, "generate", Silent())
    assert [row["source_kind"] for row in rows(workspace)] == ["drawing"]
    assert [row["reason"] for row in rows(workspace, "failures")] == ["picture withheld"] * 2


def test_another_checkpoint_in_the_folder_is_another_stage_key(tmp_path: Path, checkpoint: Path) -> None:
    workspace = build(tmp_path, checkpoint)
    before = stage_key(workspace, STAGES["generate"])
    card = workspace.root / "models" / "tiny" / "model_index.json"
    card.write_text(card.read_text() + "\n")
    assert stage_key(workspace, STAGES["generate"]) != before


def test_refused_prompts_reach_no_model(checkpoint: Path) -> None:
    with pytest.raises(PromptRefusedError, match=r"prompt 0: .*images: drawn_only"):
        generator(checkpoint).generate([prompt("a sign", "race", safe=False)], [1])
