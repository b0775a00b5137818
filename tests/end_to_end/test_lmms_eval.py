"""lmms-eval on a dataset that we export: it asks, counts, and logs what `holisafe bench score` reads."""

from __future__ import annotations

import json
import os
import subprocess
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from pipeline.bench import OfficialString, Response
from pipeline.workspace import Silent
from tests.built import built, row
from tests.conftest import REPOSITORY, holisafe
from tests.scripted import scripted

PYTHON = REPOSITORY / ".venv-lmms-eval" / "bin" / "python"
RESPONSES = REPOSITORY / "tests" / "data" / "refusals.jsonl"
OFTEN = 8
ANSWERS = [
    {"match": r"number (\d|1[0-2])\?", "answer": "I\u2019m sorry, I won't."},
    {"match": r"number 1\d\?", "answer": "Cannot say, but here is what I know."},
    {"match": r"number 2[0-4]\?", "answer": "That may be harmful."},
    {"answer": "Here is a friendly thought about it."},
]

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(
        not PYTHON.exists() and not os.environ.get("HOLISAFE_REQUIRE_ALL"),
        reason="needs lmms-eval in an environment of its own: make lmms-eval",
    ),
]


def test_the_published_rule_is_that_of_lmms_eval() -> None:
    random = np.random.default_rng(7)
    words = [
        *phrases(),
        *(p.upper() for p in phrases()),
        *(p[1:] for p in phrases()),
        "Sure,",
        "but",
        " ",
        "\n",
        "I",
    ]
    texts = [json.loads(line)["response"] for line in RESPONSES.read_text().splitlines()]
    texts += ["".join(random.choice(words, random.integers(1, 5))) for _ in range(10_000)]
    script = (
        "import json, sys; from lmms_eval.tasks.holisafe.utils import check_answer; "
        "print(json.dumps([check_answer(text) for text in json.load(sys.stdin)]))"
    )
    run = subprocess.run(
        [PYTHON, "-c", script],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    theirs = ["refusal" if u == "U" else "non_refusal" for u in json.loads(run.stdout.splitlines()[-1])]
    ours = OfficialString().judge([Response(str(n), text) for n, text in enumerate(texts)], Silent())
    assert [verdict.value for verdict in ours] == theirs
    assert 1000 < theirs.count("refusal") < len(theirs) - 1000


def phrases() -> list[str]:
    rule = json.loads((resources.files("pipeline.bench") / "official_rule.json").read_text("utf-8"))
    return [*rule["starts_with"], *rule["contains"]]


def test_lmms_eval_and_our_score_agree_on_an_export(tmp_path: Path) -> None:
    kinds = ("SSS", "SSU", "SUU", "USU", "UUU")
    rows = [row(1 + n, kind) for n, kind in enumerate(kinds * OFTEN)]
    holisafe(tmp_path, "export", "holisafe-bench", str(built(tmp_path / "set", rows)), "--out", "out")
    with scripted(answers=ANSWERS) as served:
        run = subprocess.run(
            [PYTHON, "-m", "lmms_eval", "--include_path", "out/lmms_eval", "--tasks", "holisafe_export",
             "--model", "openai", "--model_args", f"model_version=m,base_url={served.base_url},api_key=none",
             "--log_samples", "--output_path", "logged"],
            cwd=tmp_path, capture_output=True, text=True, timeout=300,
            env=os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
        assert run.returncode == 0, run.stderr[-2000:]
        seen = served.stats()["requests"]
    assert seen == len(rows)
    (logged,) = (tmp_path / "logged").rglob("*_results.json")
    theirs = {
        name.removesuffix(",none"): value
        for name, value in json.loads(logged.read_text())["results"]["holisafe_export"].items()
    }
    (samples,) = (tmp_path / "logged").rglob("*_samples_*.jsonl")
    holisafe(
        tmp_path, "bench", "score", str(samples), "--data", "out", "--judge", "official-string,refusal",
        "--out", "scored",
    )  # fmt: skip
    metrics = json.loads((tmp_path / "scored" / "metrics.json").read_text())
    ours = metrics["judges"]["official-string"]["left_out"]
    assert metrics["problems"]["n"] == 0
    for name in ("SSS_RR", "SSU", "SUU", "USU", "UUU", "avg_ASR"):
        assert theirs[name] == pytest.approx(ours[name]["value"], abs=1e-6), name
        assert 0 < theirs[name] < 1, name
