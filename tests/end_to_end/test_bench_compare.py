"""`holisafe bench compare` from the command line, on folders that `holisafe bench score` wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bench import answered
from tests.conftest import holisafe

KINDS = ("SSS", "SSU", "USU", "UUU", "SUU")
NO, YES = "I'm sorry, but I can't help with that.", "Here is how it is done, step by step."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models on the same rows by one judge and by two, and one on another dataset."""
    root = tmp_path_factory.mktemp("compare")
    for name, refuses, first in (("careful", 7, 0), ("eager", 2, 0), ("elsewhere", 5, 1000)):
        rows = [
            answered(
                first + n, KINDS[n % 5], NO if n // 5 % 10 < refuses else YES, image=f"{first + n // 3}.jpg"
            )
            for n in range(150)
        ]
        (root / f"{name}.json").write_text(json.dumps(rows))
        judges = "refusal" if name == "eager" else "refusal,official-string"
        holisafe(root, "bench", "score", f"{name}.json", "--judge", judges, "--out", name)
    return root


def test_two_models_are_compared(folder: Path) -> None:
    done = holisafe(folder, "bench", "compare", "careful", "Eager=eager", "--out", "both", "--seed", "3")
    found = json.loads((folder / "both" / "comparison.json").read_text())
    assert (found["seed"], found["rounds"], found["level"]) == (3, 1000, 0.95)
    assert [one["model"] for one in found["leaderboards"]["refusal"]] == ["careful", "Eager"]
    (pair,) = found["differences"]["refusal"]["pairs"]
    assert (pair["a"], pair["b"], pair["n"]) == ("careful", "Eager", 150)
    assert pair["figures"]["avg_ASR"]["value"] == pytest.approx(-0.5)
    assert pair["figures"]["RR"]["value"] == pytest.approx(0.5)
    assert pair["figures"]["avg_ASR"]["excludes_0_of_all"] is True
    assert found["notes"] == ["official-string has not judged Eager"]
    assert "not one scale" in (folder / "both" / "leaderboard.md").read_text()
    page = (folder / "both" / "index.html").read_text()
    assert page.count("<svg") == 2
    assert "official-string has not judged Eager" in done.stdout
    again = holisafe(folder, "bench", "compare", "careful", "Eager=eager", "--out", "again", "--seed", "3")
    assert again.returncode == 0
    for name in ("comparison.json", "leaderboard.md", "index.html"):
        assert (folder / "again" / name).read_bytes() == (folder / "both" / name).read_bytes()


def test_one_judge_alone(folder: Path) -> None:
    holisafe(folder, "bench", "compare", "careful", "eager", "--judge", "refusal", "--out", "one")
    found = json.loads((folder / "one" / "comparison.json").read_text())
    assert list(found["leaderboards"]) == ["refusal"]
    assert (found["judges"], found["notes"]) == ([], [])


def test_another_dataset_is_told_and_the_rest_compared(folder: Path) -> None:
    done = holisafe(folder, "bench", "compare", "careful", "eager", "elsewhere", "--out", "three")
    assert "careful and elsewhere have no row in common" in done.stdout
    found = json.loads((folder / "three" / "comparison.json").read_text())
    assert [pair["n"] for pair in found["differences"]["refusal"]["pairs"]] == [150, 0, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eager", "elsewhere", "--judge", "refusal"], "nothing can be compared"),
        (["eager", "nowhere"], "nowhere: no such folder"),
        (["eager", "careful", "--judge", "nobody"], "no model has it; there are refusal, official-string"),
        (["eager", "eager"], "two models are called eager"),
        (["eager", "careful", "--out", "eager.json"], "is a file"),
    ],
)
def test_where_nothing_can_be_compared_the_exit_code_is_two(
    folder: Path, arguments: list[str], message: str
) -> None:
    out = [] if "--out" in arguments else ["--out", "none"]
    done = holisafe(folder, "bench", "compare", *arguments, *out, check=False, COLUMNS="200")
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "none").exists()
