import csv
from pathlib import Path

import pytest

from schemas.errors import InputError
from schemas.taxonomy import PAIR_TYPES
from scripts.blind_sample import lower_bound, sample, score
from tests.built import built, row


def test_sample_tells_no_type_and_verdicts_are_scored(tmp_path: Path) -> None:
    rows = [row(5 * i + k, kind, caption="a thing") for i in range(4) for k, kind in enumerate(PAIR_TYPES)]
    data = built(tmp_path / "data", rows)
    assert sample(data, 3, 3, tmp_path / "out") == 15
    shown = list(csv.DictReader((tmp_path / "out" / "sample.csv").read_text().splitlines()))
    assert list(shown[0]) == ["key", "image", "caption", "query", "class"]
    assert all((tmp_path / "out" / r["image"]).is_file() for r in shown)
    assert not any(kind in (tmp_path / "out" / "sample.csv").read_text() for kind in PAIR_TYPES)
    keys = list(csv.DictReader((tmp_path / "out" / "key.csv").read_text().splitlines()))
    verdicts = tmp_path / "verdicts.csv"
    verdicts.write_text("key,verdict\n" + "".join(f"{r['key']},SSS\n" for r in keys))
    lines = score(tmp_path / "out", verdicts)
    assert "SSS: 3 of 3 right, 1.000, at least 0.368" in lines
    assert "USU: 0 of 3 right, 0.000, at least 0.000" in lines
    assert lines[-1].split() == ["UUU", "3", "0", "0", "0", "0"]
    verdicts.write_text(verdicts.read_text().replace("SSS", "maybe", 1))
    with pytest.raises(InputError, match="MAYBE"):
        score(tmp_path / "out", verdicts)


def test_bound_of_worked_cases() -> None:
    assert lower_bound(60, 60) == pytest.approx(0.05 ** (1 / 60))
    assert lower_bound(57, 60) == pytest.approx(0.8764, abs=2e-3)
    assert lower_bound(0, 9) == 0
