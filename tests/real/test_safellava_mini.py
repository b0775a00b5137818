"""SafeLLaVA-mini out of the weights that the model store holds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from pipeline.models import ModelMissingError
from pipeline.safellava.load import load_model
from pipeline.safellava.mini import build_mini
from schemas.errors import InputError

pytestmark = pytest.mark.real


def test_it_is_built_and_writes_sense_behind_an_image(tmp_path: Path) -> None:
    try:
        made = build_mini(tmp_path / "mini")
    except ModelMissingError as error:
        pytest.skip(str(error))
    loaded = load_model(str(tmp_path / "mini"))
    state = loaded.model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in made.state_dict().items())
    assert loaded.model.config.placeholders == 37
    rows = [
        loaded.prompter.encode_prompt("What is the capital of France?", image=image)
        for image in (True, False)
    ]
    inputs = loaded.inputs(rows, [Image.new("RGB", (300, 200), "red"), None])
    said = loaded.model.generate(**inputs, do_sample=False, max_new_tokens=16)
    for ids in said:
        assert "Paris" in loaded.prompter.decode(ids[inputs["input_ids"].shape[1] :])
    with pytest.raises(InputError, match="is there already"):
        build_mini(tmp_path / "mini")
