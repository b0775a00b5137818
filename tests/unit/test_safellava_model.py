"""What must be true of the model, on small ones with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForImageTextToText,
    ConvNextConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from pipeline.safellava.config import CATEGORIES, SafeLlavaConfig
from pipeline.safellava.model import SafeLlavaForConditionalGeneration, from_llava
from schemas.taxonomy import load_taxonomy
from tests.conftest import REPOSITORY
from tests.safellava import (
    IMAGE,
    PATCHES,
    clip_config,
    ids,
    llama_config,
    pixels,
    siglip_config,
    tiny_config,
    tiny_model,
)

KINDS: dict[str, dict[str, Any]] = {
    "decoder": {},
    "encoder": {"safety_mode": "encoder"},
    "siglip": {
        "safety_mode": "encoder", "vision_config": siglip_config(), "vision_feature_select_strategy": "full",
    },
    "visual_guard": {"safety_head": "visual_guard"},
}  # fmt: skip
kinds = pytest.mark.parametrize("kind", KINDS)


def probs(
    model: SafeLlavaForConditionalGeneration, tokens: torch.Tensor, images: torch.Tensor
) -> torch.Tensor:
    with torch.no_grad():
        found = model(input_ids=tokens, pixel_values=images, do_safety=True).img_safety_probs
    assert isinstance(found, torch.Tensor)
    return found


def test_the_names_are_the_taxonomy_s() -> None:
    names = load_taxonomy(REPOSITORY / "schemas" / "taxonomy.yaml").names()
    assert [names[i] for i in range(20)] == list(CATEGORIES)


@kinds
def test_an_image_s_probabilities(kind: str) -> None:
    model = tiny_model(**KINDS[kind])
    found = probs(model, ids(model, 7, 8), pixels(1))
    assert found.shape == (1, 20)
    torch.testing.assert_close(found.sum(), torch.tensor(1.0))
    assert model.config.placeholders == PATCHES + (kind != "visual_guard")
    assert model(input_ids=ids(model, 7), pixel_values=pixels(1)).img_safety_probs is None


@pytest.mark.parametrize("kind", ["decoder", "encoder", "siglip"])
def test_the_token_stands_behind_the_visual_tokens(kind: str) -> None:
    model = tiny_model(**KINDS[kind])
    features = model.get_image_features(pixel_values=pixels(1)).pooler_output
    assert [tuple(one.shape) for one in features] == [(PATCHES + 1, 24)]
    if kind == "decoder":
        torch.testing.assert_close(features[0][-1], model.model.safety_token)
    changed = tiny_model(**KINDS[kind])
    changed.load_state_dict(model.state_dict())
    with torch.no_grad():
        changed.model.safety_token += 1
    again = changed.get_image_features(pixel_values=pixels(1)).pooler_output[0]
    # In the tower all attend to all: with the token the patches change too; behind it they do not.
    same = torch.equal(features[0][:-1], again[:-1])
    assert same == (kind == "decoder")
    assert not torch.equal(features[0][-1], again[-1])


def test_the_head_reads_the_state_at_the_token() -> None:
    model = tiny_model()
    tokens = ids(model, 7, 8, 9)
    out = model(input_ids=tokens, pixel_values=pixels(1), do_safety=True, output_hidden_states=True)
    at = 2 + PATCHES
    assert tokens[0, at] == IMAGE != tokens[0, at + 1]
    torch.testing.assert_close(out.safety_logits, model.safety_head(out.hidden_states[-1][:, at]))


@kinds
def test_the_query_changes_no_probability(kind: str) -> None:
    model = tiny_model(**KINDS[kind])
    one, other = (probs(model, ids(model, *query), pixels(1)) for query in ((7, 8), (50, 3, 9, 12)))
    torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    assert not torch.equal(one, probs(model, ids(model, 7, 8), pixels(2)))


def test_labels_of_minus_100_are_ignored() -> None:
    model = tiny_model()
    tokens = ids(model, 7, 8, 9).repeat(2, 1)
    out = model(input_ids=tokens, pixel_values=pixels(1, 2), safety_labels=torch.tensor([3, -100]))
    alone = model(input_ids=tokens[:1], pixel_values=pixels(1), safety_labels=torch.tensor([3]))
    torch.testing.assert_close(out.safety_loss, alone.safety_loss)
    torch.testing.assert_close(out.loss, out.safety_loss)
    labels = torch.full_like(tokens, -100)
    none = model(
        input_ids=tokens, pixel_values=pixels(1, 2), labels=labels, safety_labels=torch.tensor([-100] * 2)
    )
    assert none.loss == 0
    labels[0, -2:] = tokens[0, -2:]
    both = model(
        input_ids=tokens, pixel_values=pixels(1, 2), labels=labels, safety_labels=torch.tensor([3, -100])
    )
    torch.testing.assert_close(both.loss, both.next_token_loss + both.safety_loss)
    plain = torch.nn.functional.cross_entropy(both.logits[0, -3:-1], tokens[0, -2:])
    torch.testing.assert_close(both.next_token_loss, plain)
    model.config.safety_loss_weight = 0.5
    half = model(
        input_ids=tokens, pixel_values=pixels(1, 2), labels=labels, safety_labels=torch.tensor([3, -100])
    )
    torch.testing.assert_close(half.loss, half.next_token_loss + 0.5 * half.safety_loss)


@pytest.mark.parametrize("label", [20, -1])
def test_a_label_that_is_no_class(label: int) -> None:
    model = tiny_model()
    with pytest.raises(ValueError, match="a class is 0 to 19"):
        model(input_ids=ids(model, 7), pixel_values=pixels(1), safety_labels=torch.tensor([label]))


@kinds
def test_gradients_reach_what_is_trained_and_nothing_frozen(kind: str) -> None:
    model = tiny_model(**KINDS[kind])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("safety_" in name or "multi_modal_projector" in name)
    tokens = ids(model, 7, 8)
    model(
        input_ids=tokens, pixel_values=pixels(1), labels=tokens, safety_labels=torch.tensor([4])
    ).loss.backward()
    got = {
        name: parameter.grad is not None and bool(parameter.grad.any())
        for name, parameter in model.named_parameters()
    }
    assert {name for name, has in got.items() if has} == {
        n for n, p in model.named_parameters() if p.requires_grad
    }


@kinds
def test_what_is_saved_is_loaded(kind: str, tmp_path: Path) -> None:
    model = tiny_model(**KINDS[kind])
    model.save_pretrained(tmp_path)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    assert type(again) is SafeLlavaForConditionalGeneration
    assert again.config.safety_categories == list(CATEGORIES)
    state = again.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    tokens = ids(model, 7, 8)
    # Loaded weights lie elsewhere in memory, which the last digit hangs on with some processors.
    torch.testing.assert_close(
        probs(model, tokens, pixels(1)), probs(again, tokens, pixels(1)), rtol=0, atol=1e-6
    )


@kinds
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_batch_of_mixed_lengths_equals_singles(kind: str, side: str) -> None:
    model = tiny_model(**KINDS[kind])
    queries = [(7, 8), (9, 10, 11, 12, 13), (14,)]
    rows = [ids(model, *query)[0].tolist() for query in queries] + [[1, 6, 7]]  # the last has no image
    most = max(map(len, rows))
    pads = [[0] * (most - len(row)) for row in rows]
    tokens = torch.tensor([p + r if side == "left" else r + p for r, p in zip(rows, pads, strict=True)])
    mask = torch.tensor(
        [
            [0] * len(p) + [1] * len(r) if side == "left" else [1] * len(r) + [0] * len(p)
            for r, p in zip(rows, pads, strict=True)
        ]
    )
    out = model(input_ids=tokens, pixel_values=pixels(1, 2, 3), attention_mask=mask, do_safety=True)
    assert out.img_safety_probs[3].isnan().all()
    for i, row in enumerate(rows):
        images = pixels(i + 1) if i < 3 else None
        alone = model(input_ids=torch.tensor([row]), pixel_values=images, do_safety=True)
        torch.testing.assert_close(out.logits[i, mask[i].bool()], alone.logits[0], atol=1e-4, rtol=1e-4)
        if i < 3:
            torch.testing.assert_close(out.img_safety_probs[i], alone.img_safety_probs[0], atol=1e-5, rtol=0)
        else:
            assert alone.img_safety_probs is None
    labels = torch.tensor([1, -100, 3, 5])  # that of a row without an image is not counted
    assert model(
        input_ids=tokens, pixel_values=pixels(1, 2, 3), attention_mask=mask, safety_labels=labels
    ).loss.isfinite()


@kinds
def test_generation_with_the_cache_equals_that_without(kind: str) -> None:
    model = tiny_model(**KINDS[kind])
    tokens = ids(model, 7, 8)
    said: dict[str, Any] = {
        "input_ids": tokens,
        "pixel_values": pixels(1),
        "max_new_tokens": 8,
        "do_sample": False,
    }
    said |= {"attention_mask": torch.ones_like(tokens), "min_new_tokens": 8, "suppress_tokens": [IMAGE]}
    with torch.no_grad():
        with_cache, without = (model.generate(**said, use_cache=use) for use in (True, False))
    assert torch.equal(with_cache, without)
    assert with_cache.shape == (1, tokens.shape[1] + 8)


@pytest.mark.parametrize(
    "tower", [ConvNextConfig(hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1])], ids=["convnext"]
)
def test_encoder_mode_refuses_a_tower_without_patches(tower: Any) -> None:
    with pytest.raises(ValueError, match="no sequence of patches"):
        tiny_config(vision_config=tower, safety_mode="encoder")
    tiny_config(vision_config=tower)


@pytest.mark.parametrize(
    "said", [{"safety_loss_weight": -1.0}, {"safety_dropout": 1.0}, {"safety_categories": ["safe"]}]
)
def test_a_wrong_setting(said: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="safety_"):
        tiny_config(**said)


@pytest.mark.parametrize("mode", ["decoder", "encoder"])
def test_a_llava_becomes_one(mode: str) -> None:
    torch.manual_seed(3)
    config = LlavaConfig(
        vision_config=clip_config(), text_config=llama_config(tie_word_embeddings=True),
        image_token_index=IMAGE, image_seq_length=PATCHES,
    )  # fmt: skip
    base = LlavaForConditionalGeneration(config).eval()
    made = from_llava(base, safety_mode=mode).eval()
    assert isinstance(made.config, SafeLlavaConfig)
    assert made.lm_head.weight is made.get_input_embeddings().weight
    tokens = torch.tensor([[1, 6, 7, 9]])
    torch.testing.assert_close(made(input_ids=tokens).logits, base(input_ids=tokens).logits)
    wide = made.config.vision_config.hidden_size if mode == "encoder" else 24
    assert made.model.safety_token.shape == (wide,)
    assert made.model.safety_token.any()
    with pytest.raises(ValueError, match="no vision tower"):
        from_llava(base.model.language_model)
