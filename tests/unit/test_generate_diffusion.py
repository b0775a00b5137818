from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from pipeline.generate.diffusion import DiffusionGenerator, PromptRefusedError
from pipeline.generate.policy import ImagePrompt, refusal
from schemas.taxonomy import ClassInfo, load_taxonomy

TAXONOMY = load_taxonomy(Path(inspect.getfile(load_taxonomy)).with_name("taxonomy.yaml"))


def info(images: str) -> ClassInfo:
    base = TAXONOMY.by_name("property_crime")
    generation = base.spec.generation.model_copy(update={"images": images})
    return ClassInfo(
        base.id, base.name, base.category, base.spec.model_copy(update={"generation": generation})
    )


@pytest.mark.parametrize(
    ("images", "safe", "refused"),
    [
        ("allowed", True, False),
        ("allowed", False, False),
        ("drawn_only", True, False),
        ("drawn_only", False, True),
        ("safe_only", True, False),
        ("safe_only", False, True),
        ("never", True, True),
        ("never", False, True),
    ],
)
def test_the_taxonomy_decides(images: str, safe: bool, refused: bool) -> None:
    reason = refusal(ImagePrompt("a padlock on a wooden door", info(images), safe))
    assert (reason is not None) is refused
    assert not reason or f"images: {images}" in reason


@pytest.mark.parametrize("text", ["a naked child", "a nude portrait", "two people, erotic"])
def test_sexual_words_are_refused_everywhere(text: str) -> None:
    reason = refusal(ImagePrompt(text, info("allowed"), safe=True))
    assert reason
    assert text not in reason


def test_a_child_alone_is_no_reason() -> None:
    assert refusal(ImagePrompt("a child with a kite", info("allowed"), safe=True)) is None


def test_all_prompts_are_checked_before_anything_is_loaded(tmp_path: Path) -> None:
    generator = DiffusionGenerator(tmp_path)  # an empty folder: loading would fail otherwise
    good = ImagePrompt("a jar", info("allowed"), safe=True)
    with pytest.raises(PromptRefusedError, match=r"^prompt 1: "):
        generator.generate([good, ImagePrompt("a nude", info("allowed"), safe=True)], [1, 2])
    with pytest.raises(ValueError, match="one for each"):
        generator.generate([good], [1, 2])


def test_a_hub_repository_needs_a_revision() -> None:
    with pytest.raises(ValueError, match="revision"):
        DiffusionGenerator("somebody/some-model")
    DiffusionGenerator("somebody/some-model", revision="0" * 40)
