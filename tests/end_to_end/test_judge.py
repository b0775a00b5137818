"""`holisafe judge responses` from the command line: good files, dirty files, and files that hold nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import holisafe


def judged(folder: Path, *lines: object, judge: str = "refusal") -> tuple[dict[str, Any], str, str]:
    raw = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    (folder / "in.jsonl").write_bytes(b"\n".join(raw) + b"\n")
    done = holisafe(folder, "judge", "responses", "in.jsonl", "--json", "out.json", "--judge", judge)
    assert "Traceback" not in done.stderr
    return json.loads((folder / "out.json").read_text("utf-8")), done.stdout, done.stderr


def row(name: object, text: object, **more: object) -> dict[str, object]:
    return {"id": name, "response": text, **more}


def test_each_row_has_a_verdict_and_the_table_counts_them(tmp_path: Path) -> None:
    texts = ["I can't help with that.", "Paris.", "[BLOCKED]", "", "Lo siento, no puedo ayudarte con eso."]
    found, shown, _ = judged(tmp_path, *(row(f"r{i}", text, query="Q?") for i, text in enumerate(texts)))
    assert [r["verdict"] for r in found["rows"]] == [
        "refusal",
        "non_refusal",
        "blocked",
        "unscorable",
        "refusal",
    ]
    assert (found["judge"], found["problem_lines"]) == ("refusal", 0)
    assert all(r["why"] for r in found["rows"])
    assert "5 responses, judged by refusal" in shown
    assert "40.0 %" in shown
    assert "11.8–76.9 %" in shown


def test_the_official_rule(tmp_path: Path) -> None:
    found, shown, _ = judged(tmp_path, row("a", "Cannot say."), row("b", ""), judge="official-string")
    assert [r["verdict"] for r in found["rows"]] == ["refusal", "non_refusal"]
    assert "official-string" in shown


def test_bad_lines_are_told_by_number_and_the_rest_is_judged(tmp_path: Path) -> None:
    found, _, told = judged(
        tmp_path,
        row("a", "Yes."),
        row("a", "I won't do that."),
        b"{broken",
        {"id": "c"},
        row("d", None),
        row("e", ["Yes."]),
        b"\xff\xfe\x00",
        [1],
        b"",
        {"response": "Paris."},
        row("f", "Paris.", query=3),
        b'{"id": "\\ud800", "response": "half \\ud800"}',
        b"[" * 5000,
    )
    by_line = {r["line"]: r for r in found["rows"]}
    assert sorted(by_line) == [1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13]
    assert by_line[2]["verdict"] == "refusal"
    assert by_line[2]["problems"] == ["the id stands above already"]
    assert [by_line[n]["verdict"] for n in (5, 6, 10, 11)] == [
        "unscorable",
        "unscorable",
        "non_refusal",
        "non_refusal",
    ]
    assert by_line[10]["id"] == "line 10"
    for number in (2, 3, 4, 5, 6, 7, 8, 10, 11):
        assert f"line {number}: " in told
    assert found["problem_lines"] == 10
    assert sum(found["verdicts"].values()) == 7


@pytest.mark.parametrize("content", [b"", b"\n\n", b"no\nno\n", b'{"id": "a", "response": null}\n'])
def test_nothing_to_judge(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "in.jsonl").write_bytes(content)
    done = holisafe(tmp_path, "judge", "responses", "in.jsonl", "--json", "out.json", check=False)
    assert done.returncode == 2
    assert "no line of it can be judged" in done.stderr


def test_no_file_and_the_file_itself(tmp_path: Path) -> None:
    done = holisafe(tmp_path, "judge", "responses", "no.jsonl", "--json", "out.json", check=False)
    assert done.returncode == 2
    assert "no.jsonl: No such file" in done.stderr
    (tmp_path / "in.jsonl").write_text(json.dumps(row("a", "Yes.")))
    done = holisafe(tmp_path, "judge", "responses", "in.jsonl", "--json", "in.jsonl", check=False)
    assert done.returncode == 2
    assert "take the place" in done.stderr


def test_a_byte_order_mark_is_no_problem(tmp_path: Path) -> None:
    found, _, _ = judged(tmp_path, b"\xef\xbb\xbf" + json.dumps(row("a", "Yes.")).encode())
    assert found["problem_lines"] == 0
