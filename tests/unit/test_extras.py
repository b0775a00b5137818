"""What each extra brings, and what is said where it is missing."""

from __future__ import annotations

import re
import tomllib

import pytest

from pipeline.extras import EXTRAS, missing, needs
from schemas.errors import InputError
from tests.conftest import REPOSITORY

MODULES = {"open_clip_torch": "open_clip", "scikit-learn": "sklearn"}
"""Packages that are imported by another name."""


def test_the_table_is_that_of_the_project() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = {}
    for extra, requirements in project["optional-dependencies"].items():
        names = [re.split(r"[\[>=]", wanted)[0] for wanted in requirements]
        found = {MODULES.get(name, name.replace("-", "_")) for name in names if name != project["name"]}
        if extra not in ("all", "dev"):
            wanted[extra] = found
    # What two extras bring is told of one of them.
    wanted["safellava"].remove("matplotlib")
    assert {extra: set(modules) for extra, modules in EXTRAS.items()} == wanted
    for extra in EXTRAS:
        assert extra in project["optional-dependencies"]["all"][0]


def test_what_is_not_installed_is_told_with_its_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    needs("numpy", "torch")
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(InputError) as told:
        needs("accelerate", "peft", "torch")
    assert str(told.value) == (
        "not installed here: peft, torch; run: pip install 'holisafe-pipeline[models,safellava]'"
    )


def test_an_import_that_fails_names_the_extra_of_its_package() -> None:
    told = missing(ModuleNotFoundError("No module named 'torch'", name="torch.nn"))
    assert "pip install 'holisafe-pipeline[models]'" in str(told)
    assert missing(ModuleNotFoundError("No module named 'fastapi'", name="fastapi")) is None
    assert missing(ImportError("cannot import name 'x'")) is None
