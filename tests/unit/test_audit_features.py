"""Probabilities from queries, numbers and pixels: out of fold, in range, telling what there is to tell."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.audit.features import (
    PIXELS,
    low_level,
    number_probabilities,
    numbers_out_of_fold,
    pixel_features,
    text_probabilities,
)
from pipeline.audit.judging import auc
from pipeline.audit.logistic import Terms
from pipeline.audit.probes import out_of_fold, terms


def encoded(pixels: Any, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.asarray(pixels, np.uint8))
    image.save(file, kind, **options)
    return file.getvalue()


def told(data: bytes) -> dict[str, float]:
    found = pixel_features(data)
    assert found is not None
    return dict(zip(PIXELS, found.tolist(), strict=True))


def test_queries_are_judged_by_the_probe_s_own_model() -> None:
    draw = np.random.default_rng(1)
    labels = draw.random(300) < 0.4
    texts = [f"{'old' if u else 'new'} lamp {draw.integers(9)} of {i}" for i, u in enumerate(labels)]
    p = text_probabilities(texts, labels)
    assert np.array_equal(p[:, 1], out_of_fold(Terms([terms(t) for t in texts]), labels, np.arange(300), 0))
    assert np.allclose(p.sum(1), 1)
    assert auc(labels, p[:, 1]) > 0.99
    three = text_probabilities([f"{'abc'[i % 3]} lamp {i}" for i in range(120)], np.arange(120) % 3)
    assert (three.argmax(1) == np.arange(120) % 3).all()


def test_equal_queries_stay_in_one_fold() -> None:
    texts = [f"lamp {i // 4}" for i in range(400)]
    labels = np.random.default_rng(0).random(100)[np.arange(400) // 4] < 0.5
    assert 0.3 < auc(labels, text_probabilities(texts, labels)[:, 1]) < 0.65
    assert auc(labels, text_probabilities(texts, labels, np.arange(400))[:, 1]) > 0.9


def test_numbers_tell_what_they_hold_and_no_more() -> None:
    draw = np.random.default_rng(2)
    labels = draw.random(2000) < 0.3
    numbers = draw.standard_normal((2000, 6))
    assert auc(labels, numbers_out_of_fold(numbers, labels, np.arange(2000), 0)) == pytest.approx(
        0.5, abs=0.05
    )
    numbers[:, 2] += 1.812 * labels
    p = number_probabilities(numbers, labels)
    assert auc(labels, p[:, 1]) == pytest.approx(auc(labels, numbers[:, 2]), abs=0.01)
    groups = np.arange(2000) // 20
    own = draw.random(100)[groups] < 0.5
    memory = np.eye(100)[groups]
    assert auc(own, number_probabilities(memory, own)[:, 1]) > 0.9
    assert 0.3 < auc(own, number_probabilities(memory, own, groups)[:, 1]) < 0.6


def test_statistics_of_pixels_are_what_they_are_called() -> None:
    red = told(encoded(np.full((40, 80, 3), (200, 0, 0))))
    assert (red["mean red"], red["mean green"], red["saturation"]) == (200, 0, 1)
    assert (red["edge density"], red["sharpness"], red["entropy"], red["spread red"]) == (0, 0, 0, 0)
    assert red["aspect"] == pytest.approx(np.log(2))
    grey = told(encoded(np.full((40, 40, 3), 90)))
    assert (grey["saturation"], grey["colourfulness"]) == (0, 0)
    assert red["colourfulness"] > 50
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3))
    rough, smooth = told(encoded(noise)), told(encoded(np.full((64, 64, 3), np.arange(64)[:, None])))
    for name in ("edge density", "sharpness", "entropy"):
        assert rough[name] > smooth[name]
    halves = np.zeros((64, 64, 3))
    halves[:, 32:] = 255
    assert told(encoded(halves))["entropy"] == pytest.approx(1)
    quality = [told(encoded(noise, "JPEG", quality=q))["JPEG quantisation"] for q in (95, 60, 20)]
    assert quality == sorted(quality)
    assert quality[0] > 0
    assert told(encoded(noise))["JPEG quantisation"] == 0


def test_what_is_transparent_lies_on_white_and_odd_images_are_read() -> None:
    clear = told(encoded(Image.new("RGBA", (20, 20), (0, 0, 0, 0))))
    assert clear["mean red"] == 255
    for mode in ("1", "L", "P", "LA", "CMYK", "I;16"):
        image = Image.new(mode, (1, 1) if mode == "1" else (30, 3))
        found = pixel_features(encoded(image, "TIFF"))
        assert found is not None
        assert np.isfinite(found).all()


def test_what_is_no_image_has_no_statistics() -> None:
    whole = encoded(np.random.default_rng(0).integers(0, 255, (64, 64, 3)), "JPEG")
    assert pixel_features(b"") is None
    assert pixel_features(b"not an image") is None
    assert pixel_features(whole[: len(whole) // 2]) is None
    assert pixel_features(encoded(Image.new("1", (9000, 9000)))) is None


@settings(max_examples=60)
@given(st.binary(max_size=40), st.integers(0, 400))
def test_broken_bytes_never_stop_it(junk: bytes, place: int) -> None:
    whole = encoded(np.arange(300).reshape(10, 10, 3) % 255, "PNG")
    found = pixel_features(whole[:place] + junk + whole[place + len(junk) :])
    assert found is None or np.isfinite(found).all()


def test_pixels_that_tell_the_label_are_named() -> None:
    draw = np.random.default_rng(3)
    unsafe = np.arange(200) % 2 == 0
    plain = [pixel_features(encoded(draw.integers(0, 255, (16, 16, 3)))) for _ in unsafe]
    chance = low_level(plain, unsafe)
    assert not chance.named
    assert chance.low < 0.5 < chance.high  # type: ignore[operator]
    tied = [
        pixel_features(encoded(draw.integers(0, 230 if u else 255, (16, 16, 3)))) for u in unsafe.tolist()
    ]
    found = low_level([*tied, None, None], np.append(unsafe, [True, False]))
    assert (found.n, found.unreadable, found.unsafe) == (200, 2, 100)
    assert found.named
    assert found.auc > 0.9  # type: ignore[operator]
    assert any(name.startswith(("mean", "spread", "entropy")) for name in found.top)
    few = low_level(tied[:30], unsafe[:30])
    assert (few.auc, few.named) == (None, False)
    assert few.reason == "15 rows of the rarer class, 20 are needed"
    assert low_level([None] * 50, np.arange(50) < 25).n == 0
