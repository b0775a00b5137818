"""`holisafe agreement` from the command line: good files, dirty files, and files that hold nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.store import write_rows
from schemas.rows import VOTES
from tests.conftest import holisafe
from tests.ratings import FOUR_RATERS, votes_of

HEAD = "item_id,annotator,value"
GOOD = "".join(f"{item},rater{rater},{value}\n" for item, rater, value in votes_of(FOUR_RATERS))


def measured(folder: Path, file: str, *options: str) -> tuple[dict[str, Any], str]:
    done = holisafe(folder, "agreement", file, "--json", "out.json", *options, COLUMNS="120")
    assert "Traceback" not in done.stderr
    found: dict[str, Any] = json.loads(
        (folder / "out.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} in the JSON")
    )
    return found, done.stdout


def test_a_good_file(tmp_path: Path) -> None:
    (tmp_path / "votes.csv").write_text(f"{HEAD}\n{GOOD}")
    found, shown = measured(tmp_path, "votes.csv", "--seed", "3", "--rounds", "400")
    assert (found["file"], found["seed"], found["rounds"], found["problems"]) == ("votes.csv", 3, 400, [])
    part = found["overall"]["all"]
    assert round(part["alpha"]["value"], 3) == 0.743
    assert "41 votes of 4 annotators on 12 items" in shown
    assert "0.82" in shown
    assert "0.74" in shown
    assert "0.78" in shown
    assert "0.76" in shown
    assert "problem" not in shown


def test_groups_scales_and_families(tmp_path: Path) -> None:
    lines = [f"{HEAD},group,scale,family"]
    for item in range(40):
        for who, family in (
            ("q1", "qwen"),
            ("q2", "qwen"),
            ("l", "llama"),
            ("ann", "human"),
            ("bo", "human"),
        ):
            word = ("low", "middle", "high")[(item + (item % 7 == 0 and who == "l")) % 3]
            lines.append(f"a{item},{who},{word},[b]grade[/b],ordinal,{family}")
            lines.append(f"b{item},{who},{'safe' if item % 4 else 'unsafe'},verdict,nominal,{family}")
    (tmp_path / "votes.csv").write_text("\n".join(lines) + "\n")
    found, shown = measured(tmp_path, "votes.csv", "--order", "low, middle ,high")
    assert found["overall"]["scale"] is None
    grade, verdict = found["groups"]["[b]grade[/b]"], found["groups"]["verdict"]
    assert (grade["scale"], verdict["scale"]) == ("ordinal", "nominal")
    assert list(grade["all"]["prevalence"]) == ["low", "middle", "high"]
    assert grade["families"]["alpha"]["value"] < 1 == grade["people"]["alpha"]["value"]
    assert "[b]grade[/b]" in shown
    assert "(1) the groups have different scales (nominal, ordinal): see them one by one" in shown


def test_a_dirty_file_is_told_and_the_rest_is_measured(tmp_path: Path) -> None:
    dirty = (
        f"{HEAD}\n".encode("utf-8-sig")
        + b"0,rater0\n"
        + b",rater1,1\n"
        + b"0,rater0,\xff\xfe\n"
        + b'0,"rater0,1\n'
        + GOOD.encode()
        + b"0,rater0,1\n"
        + b"0,rater0,2\n"
        + b"1,rater3,\n"
        + b"2,rater0,a\0b\n"
        + b"3,x," + b"y" * 200_000 + b"\n"
    )  # fmt: skip
    (tmp_path / "votes.csv").write_bytes(dirty)
    found, shown = measured(tmp_path, "votes.csv")
    assert round(found["overall"]["all"]["alpha"]["value"], 3) == 0.743
    assert found["missing"] == 1
    assert found["problem_counts"] == {
        "empty": 1, "encoding": 1, "nul": 1, "repeated_other": 1, "repeated_same": 1, "row": 3
    }  # fmt: skip
    assert [p["line"] for p in found["problems"]] == [2, 3, 4, 5, 47, 48, 50, 51]
    assert all(set(p) == {"line", "field", "problem"} for p in found["problems"])
    assert "8 problems, told in out.json" in shown


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no column item_id, annotator, value"),
        (b"\x00\x01\x02" * 1000, "no column item_id"),
        (b"item_id,annotator\n1,a\n", "no column value"),
        (b"item_id,annotator,value\n1,a,\n2,b\n", "no vote in it can be used"),
    ],
)
def test_a_hopeless_file_is_an_error_in_one_line(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "votes.csv").write_bytes(data)
    done = holisafe(tmp_path, "agreement", "votes.csv", "--json", "out.json", check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("holisafe: votes.csv: ")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out.json").exists()


def test_bad_options(tmp_path: Path) -> None:
    (tmp_path / "votes.csv").write_text(f"{HEAD}\n{GOOD}")
    for order in ("low", "low,,high", "low,high,low"):
        done = holisafe(tmp_path, "agreement", "votes.csv", "--json", "o", "--order", order, check=False)
        assert done.returncode == 2
        assert "--order" in done.stderr
    assert holisafe(tmp_path, "agreement", "none.csv", "--json", "o", check=False).returncode == 2
    assert holisafe(tmp_path, "agreement", "votes.csv", check=False).returncode == 2


def test_our_own_table(tmp_path: Path) -> None:
    def vote(item: int, question: str, annotator: str, family: str, value: str | None) -> dict[str, Any]:
        status, score = ("ok", 0.5) if value else ("unscorable", None)
        row = {"item_id": str(item), "question": question, "annotator": annotator, "family": family}
        return row | {"status": status, "value": value, "score": score, "note": "", "call_key": ""}

    rows = []
    for item in range(20):
        word = "unsafe" if item % 3 == 0 else "safe"
        rows.append(vote(item, "image_safe", "a", "qwen", word))
        rows.append(vote(item, "image_safe", "b", "clip", "safe" if item == 0 else word))
        rows.append(vote(item, "image_class", "a", "qwen", "race" if item % 2 else "safe"))
        rows.append(vote(item, "image_class", "b", "clip", None if item < 5 else "safe"))
    write_rows(tmp_path / "votes.parquet", VOTES, rows)
    found, _ = measured(tmp_path, "votes.parquet")
    assert list(found["groups"]) == ["image_class", "image_safe"]
    assert found["missing"] == 5
    assert found["problems"] == []
    assert found["groups"]["image_safe"]["all"]["raw"]["value"] == 0.95
    assert found["groups"]["image_safe"]["families"]["raw"]["value"] == 0.95
    assert found["groups"]["image_class"]["all"]["items_with_two"] == 15
