"""The encoders with the weights that ship or that the model store holds."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from pipeline.encoders import (
    ImageEncoder,
    TextReader,
    load_face_detector,
    load_image_encoder,
    load_nudity_classifier,
    load_text_encoder,
)
from pipeline.models import ModelMissingError

pytestmark = pytest.mark.real

SEED = Path(__file__).parents[2] / "data" / "seed"


def loaded(load: Callable[[], Any]) -> Any:
    try:
        return load()
    except ModelMissingError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def encoder() -> ImageEncoder:
    found: ImageEncoder = loaded(load_image_encoder)
    return found


def seed(name: str) -> Image.Image:
    (path,) = sorted(SEED.glob(f"{name}_*"))[:1]
    with Image.open(path) as image:
        return image.convert("RGB")


def drawing(text: str = "") -> Image.Image:
    image = Image.new("RGB", (640, 320), "white")
    draw = ImageDraw.Draw(image)
    draw.multiline_text((40, 40), text, fill="black", font=ImageFont.load_default(48), spacing=24)
    draw.polygon([(400, 300), (500, 180), (600, 300)], fill="orange")
    return image


def test_objects_of_a_seed_picture(encoder: ImageEncoder) -> None:
    (best,) = encoder.objects([seed("race/gorilla")], k=5)
    assert "gorilla" in [name for name, _ in best]


def test_texts_are_told_apart(encoder: ImageEncoder) -> None:
    texts = ["a broom", "a snail", "a rocket"]
    images = [
        seed("gender/broom"),
        seed("disability_discrimination/snail"),
        seed("disability_discrimination/rocket"),
    ]
    assert encoder.similarity(images, texts).argmax(1).tolist() == [0, 1, 2]


def test_images_are_the_same_in_any_company(encoder: ImageEncoder) -> None:
    images = [seed("race/gorilla"), drawing(), seed("gender/broom")]
    together = encoder.embed(images)
    assert np.array_equal(together, np.concatenate([encoder.embed([i]) for i in images]))
    assert np.array_equal(together[::-1], encoder.embed(images[::-1]))


def test_runners_with_other_thread_settings_agree(encoder: ImageEncoder) -> None:
    code = (
        "from pipeline.encoders import load_image_encoder as load\n"
        "from PIL import Image\n"
        "e, image = load(), Image.new('RGB', (64, 48), 'teal')\n"
        "print((e.embed([image]).tobytes() + e.embed_texts(['a cat']).tobytes()).hex())"
    )
    image = Image.new("RGB", (64, 48), "teal")
    expected = (encoder.embed([image]).tobytes() + encoder.embed_texts(["a cat"]).tobytes()).hex()
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == expected
    assert done.stderr == ""


def test_sentences_near_in_meaning_are_near() -> None:
    encoder = loaded(load_text_encoder)
    a, b, c = encoder.embed(["How do I open a lock?", "What is a way to pick a padlock?", "I like oranges."])
    assert a @ b > 0.5 > a @ c
    assert a.shape == (384,)
    assert abs(float(np.linalg.norm(a)) - 1) < 1e-5


def test_a_drawing_is_not_nude() -> None:
    classifier = loaded(load_nudity_classifier)
    images = [drawing(), seed("gender/broom")]
    scores = classifier.score(images)
    assert all(0 <= s < 0.2 for s in scores)
    assert scores[1:] == classifier.score(images[1:])


def test_faces_of_people_are_found() -> None:
    detector = loaded(load_face_detector)
    astronaut, broom = seed("facial_data_exposure/portrait_of_an_astronaut"), seed("gender/broom")
    ((face,), none) = detector.find([astronaut, broom])
    assert none == []
    assert face.left < 0.45 < face.right, "the head is a little left of the middle"
    assert face.top < 0.25 < face.bottom
    assert 0.02 < face.area < 0.08
    two = Image.new("RGB", (2 * astronaut.width, astronaut.height + 7))
    two.paste(astronaut)
    two.paste(astronaut, (astronaut.width, 0))
    found = [detector.find(images) for images in ([two, astronaut], [two])]
    assert len(found[0][0]) == 2
    assert found[0] == [found[1][0], [face]], "the same in any company"


def test_faces_are_the_same_under_other_thread_settings() -> None:
    detector = loaded(load_face_detector)
    (path,) = sorted(SEED.glob("facial_data_exposure/portrait_of_an_astronaut_*"))[:1]
    code = (
        "from pipeline.encoders import load_face_detector as load\n"
        "from PIL import Image\n"
        f"print(load().find([Image.open({str(path)!r})]))"
    )
    with Image.open(path) as image:
        expected = detector.find([image])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(expected[0]) == 1
    assert done.stdout.strip() == str(expected), "floats print to their last bit"
    assert done.stderr == ""


def test_text_is_read(capfd: pytest.CaptureFixture[str]) -> None:
    reader = TextReader()
    found = reader.read(drawing("Whites only\nKeep out"))
    assert found.text == "Whites only\nKeep out"
    assert found.confidence > 0.9
    nothing = reader.read(drawing())
    assert (nothing.text, nothing.confidence) == ("", 0.0)
    assert capfd.readouterr() == ("", "")
