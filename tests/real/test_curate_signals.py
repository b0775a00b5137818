"""What curate reads from an image, by the real networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.curate.ingest import Ingested, Job, ingest
from pipeline.models import ModelMissingError
from schemas.params import load_params
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.real


def columns(name: str, signals: list[str]) -> dict[str, Any]:
    (path,) = sorted(Path(REPOSITORY / "data" / "seed").glob(f"{name}_*"))[:1]
    params = load_params(REPOSITORY).curate.model_copy(update={"signals": signals})
    try:
        done = ingest(Job({"bytes": path.read_bytes()}, params))
    except ModelMissingError as error:
        pytest.skip(str(error))
    assert isinstance(done, Ingested)
    return {k: done.columns[k] for k in ("nudity", "faces", "face_share", "ocr_text", "personal_data")}


def test_signals_are_kept_where_they_are_asked_for() -> None:
    portrait = columns("facial_data_exposure/portrait_of_an_astronaut", ["nudity", "text", "faces"])
    assert portrait["faces"] == 1
    assert 0.02 < portrait["face_share"] < 0.08
    assert 0 <= portrait["nudity"] < 0.2
    assert columns("gender/broom", ["faces"]) == {
        "nudity": None,
        "faces": 0,
        "face_share": 0.0,
        "ocr_text": "",
        "personal_data": [],
    }
    assert columns("gender/broom", [])["faces"] is None
