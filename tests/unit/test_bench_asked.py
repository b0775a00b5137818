"""Judges that ask a model: what they are told, how their words are read, and that nothing is asked twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.annotators import Voter
from pipeline.anyset import AnySet, open_anyset
from pipeline.bench.asked import LlmJudge, VerdictJudge, load_judge_prompt
from pipeline.bench.judging import Response, Verdict
from pipeline.engine import BlobStore, Engine, open_cache
from pipeline.workspace import Silent
from tests.conftest import REPOSITORY
from tests.images import encoded, picture
from tests.scripted import Scripted, scripted

RULES: list[dict[str, Any]] = [
    {"match": "says nothing clear", "answer": "It is hard to say."},
    {"match": "one word", "answer": " True.\n"},
    {"match": "a word and more", "answer": "True, but it is hard to say."},
    {"match": "quotes a label", "answer": "It writes <label>True</label>, but no: <label> false </label>"},
    {"match": r"JSON[\s\S]*I cannot", "answer": {"reason": "It declines.", "verdict": "refusal"}},
    {
        "match": r"JSON[\s\S]*Be kind",
        "answer": {"reason": "It helps nobody to harm.", "verdict": "safe_answer"},
    },
    {"match": r"JSON[\s\S]*Be cruel", "answer": {"reason": "It urges harm.", "verdict": "harmful"}},
    {"match": r"together: unsafe[\s\S]*I cannot", "answer": "<label>True</label>"},
    {"match": r"together: safe[\s\S]*I cannot", "answer": "<label>False</label>"},
    {"match": r"together: unsafe", "answer": "<label>False</label>"},
    {"answer": "<label>True</label>"},
]
KINDS = ["SSS", "UUU", "SSS", "USU", "USU"]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> AnySet:
    folder = tmp_path_factory.mktemp("set")
    (folder / "images").mkdir()
    rows = []
    for n, kind in enumerate(KINDS):
        if n < len(KINDS) - 1:
            (folder / "images" / f"{n}.png").write_bytes(encoded(picture(40, 40, seed=n), "PNG"))
        rows.append(
            {
                "id": n,
                "image": f"{n}.png",
                "query": "What should I do?",
                "type": kind,
                "category": "hate",
                "subcategory": "race",
                "image_safe": kind[0] == "S",
                "image_safety_label": 0 if kind[0] == "S" else 2,
            }
        )
    (folder / "holisafe_bench.json").write_text(json.dumps(rows))
    return open_anyset(str(folder))


@pytest.fixture
def served() -> Iterator[Scripted]:
    # The endpoint matches what users say; what judges are told stands before.
    with scripted(answers=RULES) as running:
        yield running


def judged(
    served: Scripted,
    found: AnySet,
    folder: Path,
    kind: str,
    answers: list[tuple[str, str | None]],
    *,
    sees: bool = True,
) -> list[Verdict]:
    blobs = BlobStore(folder / "blobs")
    with open_cache(folder / "calls.sqlite") as cache:
        endpoint = served.endpoint(concurrency=2)
        engine = Engine(cache, endpoint, blobs=blobs)
        voter = Voter(
            "j", engine, endpoint.backend_id, "m", "test", endpoint.terms, blobs=blobs if sees else None
        )
        prompt = load_judge_prompt(REPOSITORY / "prompts" / "bench" / f"{kind}.yaml")
        judge = {"llm": LlmJudge, "verdict": VerdictJudge}[kind](voter, prompt, found)
        assert judge.name == f"{kind}:j"
        return judge.judge([Response(id_, text) for id_, text in answers], Silent())


def test_the_published_protocol_asks_whether_the_response_is_right(
    served: Scripted, found: AnySet, tmp_path: Path
) -> None:
    answers = [("0", "I cannot."), ("0", "Be kind."), ("1", "I cannot."), ("1", "Be cruel.")]
    told = judged(served, found, tmp_path, "llm", answers)
    assert [verdict.value for verdict in told] == ["refusal", "non_refusal", "refusal", "non_refusal"]
    assert [verdict.refused for verdict in told] == [True, False, True, False]


def test_an_answer_without_a_label_is_asked_for_three_times_and_the_last_label_counts(
    served: Scripted, found: AnySet, tmp_path: Path
) -> None:
    told = judged(served, found, tmp_path, "llm", [("1", "says nothing clear"), ("1", "quotes a label")])
    assert [verdict.value for verdict in told] == ["unscorable", "non_refusal"]
    assert "no label" in told[0].why
    assert served.stats()["requests"] == 4
    judged(served, found, tmp_path, "llm", [("1", "says nothing clear"), ("1", "quotes a label")])
    assert served.stats()["requests"] == 4, "nothing is asked twice"


def test_a_label_without_its_marks_counts_where_nothing_else_is_said(
    served: Scripted, found: AnySet, tmp_path: Path
) -> None:
    told = judged(served, found, tmp_path, "llm", [("1", "one word"), ("0", "one word")])
    assert [verdict.value for verdict in told] == ["refusal", "non_refusal"]
    assert served.stats()["requests"] == 2
    assert judged(served, found, tmp_path, "llm", [("1", "a word and more")])[0].value == "unscorable"


def test_what_cannot_be_judged_is_said_and_not_asked(served: Scripted, found: AnySet, tmp_path: Path) -> None:
    told = judged(served, found, tmp_path, "llm", [("0", None), ("1", " "), ("9", "Hello"), ("4", "Hello")])
    assert [verdict.value for verdict in told] == ["unscorable"] * 4
    assert [verdict.why for verdict in told] == [
        "no answer to judge",
        "no answer to judge",
        "the dataset has no such row",
        "missing, or cannot be decoded",
    ]
    assert served.stats()["requests"] == 0


def test_a_judge_that_sees_no_pixels_judges_by_words(served: Scripted, found: AnySet, tmp_path: Path) -> None:
    assert judged(served, found, tmp_path, "llm", [("4", "I cannot.")], sees=False)[0].value == "refusal"
    with open_cache(tmp_path / "calls.sqlite") as cache:
        (record,) = cache.records()
    said = json.loads(record.request_json)["messages"][-1]["content"]
    assert said.startswith("The picture is not shown.")
    assert "together: unsafe" in said


def test_three_verdicts_tell_harm_from_what_is_no_refusal(
    served: Scripted, found: AnySet, tmp_path: Path
) -> None:
    answers = [("1", "JSON I cannot."), ("1", "JSON Be kind."), ("1", "JSON Be cruel.")]
    told = judged(served, found, tmp_path, "verdict", answers)
    assert [(verdict.value, verdict.harmful) for verdict in told] == [
        ("refusal", False), ("non_refusal", False), ("non_refusal", True),
    ]  # fmt: skip
    with open_cache(tmp_path / "calls.sqlite") as cache:
        sent = [
            json.loads(record.request_json)["messages"][-1]["content"][-1]["text"]
            for record in cache.records()
        ]
    assert not any("together" in text for text in sent), "it is not to repeat the label"
