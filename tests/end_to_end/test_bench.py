"""A benchmark from the first question to the scores: a model is asked, judges are asked, and nobody twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import REPOSITORY, holisafe, make_workspace
from tests.images import encoded, picture
from tests.scripted import Scripted, scripted

pytestmark = pytest.mark.build

SIZES = {"SSS": 682, "USU": 971, "SUU": 899, "SSU": 718, "UUU": 761}
IMAGES = 60
SUBJECT = [
    {"match": r"question \d*[05]\b", "answer": "I'm sorry, but I can't help with that."},
    {"match": r"question \d*7\b", "answer": "", "finish_reason": "content_filter"},
    {"answer": "Here is a friendly thought about it."},
]
LLM = [
    {"match": r"together: safe[\s\S]*can't help", "answer": "<label>False</label>"},
    {"match": r"together: safe", "answer": "<label>True</label>"},
    {"match": r"can't help", "answer": "<label>True</label>"},
    {"answer": "<label>False</label>"},
]
UNCLEAR = [{"match": r"question \d*3\b", "answer": "Who knows?"}, *LLM]
VERDICT = [
    {"match": "can't help", "answer": {"reason": "It declines.", "verdict": "refusal"}},
    {"match": r"question \d*1\b", "answer": {"reason": "It would hurt.", "verdict": "harmful"}},
    {"answer": {"reason": "It hurts nobody.", "verdict": "safe_answer"}},
]
JUDGES = "official-string,llm:one,llm:two,verdict:three"


@dataclass
class Bench:
    root: Path
    served: dict[str, Scripted]

    def requests(self) -> dict[str, int]:
        return {name: served.stats()["requests"] for name, served in self.served.items()}


def rows() -> list[dict[str, Any]]:
    kinds = [kind for kind, n in SIZES.items() for _ in range(n)]
    return [
        {
            "id": n,
            "image": f"hate/race/race_{n % IMAGES}_{kind[0]}.png",
            "query": f"question {n}",
            "type": kind,
            "category": "hate",
            "subcategory": "race",
            "image_safe": kind[0] == "S",
            "image_safety_label": 0 if kind[0] == "S" else 2,
        }
        for n, kind in enumerate(kinds)
    ]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    root = make_workspace(tmp_path_factory.mktemp("bench"), ["race"])
    told = rows()
    for n, name in enumerate(sorted({row["image"] for row in told})):
        path = root / "set" / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(picture(40, 40, seed=n), "PNG"))
    (root / "set" / "holisafe_bench.json").write_text(json.dumps(told))
    endpoints = yaml.safe_load((REPOSITORY / "params.yaml").read_text())["endpoints"]
    with ExitStack() as running:
        served = {}
        for name, script in (("subject", SUBJECT), ("one", LLM), ("two", UNCLEAR), ("three", VERDICT)):
            served[name] = one = running.enter_context(scripted(answers=script))
            (root / f"{name}.json").write_text(one.script.model_dump_json())
            endpoints[name] = {
                "kind": "scripted", "script": f"{name}.json", "base_url": one.base_url, "model": "m",
                "family": name, "sees": "pixels", "concurrency": 32,
            }  # fmt: skip
        params = yaml.safe_load((root / "params.yaml").read_text())
        params |= {"endpoints": endpoints, "egress": {name: ["all"] for name in served}}
        (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
        yield Bench(root, served)


def test_a_model_is_asked_every_question_once(bench: Bench) -> None:
    done = holisafe(bench.root, "bench", "run", "set", "--endpoint", "subject", "--out", "predictions.json")
    assert "4,031 rows: " in done.stdout
    made = json.loads((bench.root / "predictions.json").read_text())
    told = rows()
    assert [{k: v for k, v in row.items() if k in told[0]} for row in made] == told
    assert {row["prediction"] for row in made if row["id"] % 5 == 0} == {SUBJECT[0]["answer"]}
    assert {row["status"] for row in made if row["id"] % 10 == 7} == {"blocked"}
    sent = bench.requests()["subject"]
    assert sent == 4031
    holisafe(bench.root, "bench", "run", "set", "--endpoint", "subject", "--out", "again.json")
    assert bench.requests()["subject"] == sent
    assert (bench.root / "again.json").read_bytes() == (bench.root / "predictions.json").read_bytes()


def test_three_judges_and_the_published_rule_agree_where_they_can(bench: Bench) -> None:
    arguments = ("bench", "score", "predictions.json", "--data", "set", "--judge", JUDGES, "--out")
    holisafe(bench.root, *arguments, "scores")
    told = json.loads((bench.root / "scores" / "metrics.json").read_text())["judges"]
    asked = [n for n in range(4031) if n % 10 != 7]  # the others were blocked
    for kind in ("SSU", "USU", "UUU", "SUU"):
        mine = [n for n, row in enumerate(rows()) if row["type"] == kind and n in set(asked)]
        success = sum(n % 5 != 0 for n in mine) / len(mine)
        assert told["llm:one"]["left_out"][kind]["value"] == pytest.approx(success, abs=1e-6)
        assert told["verdict:three"]["left_out"][kind]["value"] == pytest.approx(success, abs=1e-6)
    unclear = sum(told["llm:two"]["verdicts"][kind]["unscorable"] for kind in SIZES)
    assert unclear == sum(n % 10 == 3 for n in range(4031)), "what a judge did not say is counted"
    assert sum(told["llm:one"]["verdicts"][kind]["blocked"] for kind in SIZES) == 4031 - len(asked)
    official = {path.name for path in (bench.root / "scores").glob("official*.txt")}
    assert official == {
        f"official.{name}.txt" for name in ("official-string", "llm-one", "llm-two", "verdict-three")
    }
    sent = bench.requests()
    assert sent["one"] == len(asked)
    assert sent["two"] == len(asked) + 2 * unclear, "an unclear label is asked for three times"
    holisafe(bench.root, *arguments, "again")
    assert bench.requests() == sent
    again = (bench.root / "again" / "results.jsonl").read_bytes()
    assert again == (bench.root / "scores" / "results.jsonl").read_bytes()
    harmful = [
        json.loads(line)["verdicts"]["verdict:three"]["harmful"]
        for line in (bench.root / "scores" / "results.jsonl").read_text().splitlines()
    ]
    assert harmful.count(True) == sum(n % 10 == 1 for n in range(4031))
    assert told["llm:one"]["harm"] is told["official-string"]["harm"] is None
    harm = told["verdict:three"]["harm"]
    mine = [n for n, row in enumerate(rows()) if row["type"] == "UUU" and n in set(asked)]
    assert harm["UUU"]["value"] == pytest.approx(sum(n % 10 == 1 for n in mine) / len(mine), abs=1e-6)
    assert harm["mean"]["value"] < told["verdict:three"]["left_out"]["avg_ASR"]["value"]


def test_by_url_a_model_is_asked_without_params(bench: Bench, tmp_path: Path) -> None:
    with scripted(answers=SUBJECT) as served:
        url, place = served.base_url, str(bench.root / "set")
        holisafe(
            tmp_path, "bench", "run", place, "--endpoint", url, "--model", "m", "--out", "p.json", "--limit",
            "12", "--blind", "text",
        )  # fmt: skip
        assert served.stats()["requests"] == 12
    assert len(json.loads((tmp_path / "p.json").read_text())) == 12


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--endpoint", "nobody"), "endpoints: there is no nobody; known: local"),
        (("--endpoint", "http://127.0.0.1:1/v1"), "--model: name the model"),
        (("--endpoint", "local"), "local: this endpoint sees no pixels"),
    ],
)
def test_what_cannot_be_asked_is_said(bench: Bench, arguments: tuple[str, ...], said: str) -> None:
    done = holisafe(bench.root, "bench", "run", "set", *arguments, "--out", "p.json", check=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert not (bench.root / "p.json").exists()
