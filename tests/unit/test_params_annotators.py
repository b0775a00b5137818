"""Who may be asked what: witnesses of harm, families kept apart, and what a plan says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from pipeline.plan import plan
from pipeline.workspace import Workspace
from schemas.errors import InputError
from schemas.params import Params
from tests.conftest import REPOSITORY, make_workspace
from tests.scripted import scripted

BASE = yaml.safe_load((REPOSITORY / "params.yaml").read_text())


def remote(family: str, sees: str = "words") -> dict[str, Any]:
    return {
        "kind": "remote", "provider": family, "base_url": "https://example.org/v1", "api_key_env": None,
        "model": "m", "family": family, "price": {"prompt": 1, "completion": 1}, "sees": sees,
    }  # fmt: skip


def params(annotators: dict[str, Any], **changes: Any) -> Params:
    endpoints = BASE["endpoints"] | {
        "words": remote("w"), "eye": remote("e", "pixels"), "cousin": remote("w"), "free": remote("f"),
    }  # fmt: skip
    told = BASE | {"endpoints": endpoints, "annotators": BASE["annotators"] | annotators}
    return Params.model_validate(told | changes)


def test_by_default_nobody_is_asked_about_harm_and_the_policy_is_short() -> None:
    said = params({})
    assert (said.annotators.harm, said.annotators.policy) == ([], "short")
    assert said.annotation_prompt("text_safe") == Path("prompts/annotate/text_safe.yaml")
    told = params({"policy": "clauses"})
    assert told.annotation_prompt("text_safe") == Path("prompts/annotate/text_safe_clauses.yaml")


@pytest.mark.parametrize(
    ("annotators", "changes", "what"),
    [
        ({"harm": ["nobody"]}, {}, r"annotators\.harm: there is no endpoint 'nobody'"),
        ({"harm": ["words", "words"]}, {}, r"annotators\.harm: an endpoint votes twice"),
        ({"harm": ["eye"]}, {}, "no images may leave for 'eye'"),
        ({"policy": "long"}, {}, "policy"),
        (
            {"harm": ["words"]},
            {"generate": BASE["generate"] | {"writer": "cousin"}},
            "of the same family, votes on harm",
        ),
    ],
)
def test_what_cannot_be_asked_is_refused(
    annotators: dict[str, Any], changes: dict[str, Any], what: str
) -> None:
    with pytest.raises(ValidationError, match=what):
        params(annotators, **changes)


@pytest.mark.parametrize("question", ["text_safe", "pair_safe", "harm"])
def test_nobody_judges_what_its_own_family_has_written(question: str) -> None:
    said = params({question: ["words"]}, egress={"eye": ["all"]})
    with pytest.raises(ValueError, match=rf"some\.writer: 'cousin' would .* \(annotators\.{question}\)"):
        said.keep_apart("cousin", "some.writer")
    said.keep_apart("free", "some.writer")


def test_who_writes_queries_may_judge_images() -> None:
    params({"image_safe": ["words"]}).keep_apart("cousin", "some.writer")


@pytest.mark.parametrize(
    ("name", "using", "without"),
    [
        ("harm", {"harm": ["local"]}, {"harm": []}),
        ("pair_safe", {"policy": "short"}, {"policy": "clauses"}),
        ("pair_safe_clauses", {"policy": "clauses"}, {"policy": "short"}),
    ],
)
def test_a_prompt_that_is_used_is_checked_before_any_work(
    workspace: Path, name: str, using: dict[str, Any], without: dict[str, Any]
) -> None:
    def check(annotators: dict[str, Any]) -> None:
        told = yaml.safe_load((workspace / "params.yaml").read_text())
        told["annotators"] |= annotators
        (workspace / "params.yaml").write_text(yaml.safe_dump(told))
        Workspace(workspace).check()

    check(using)
    prompt = workspace / "prompts" / "annotate" / f"{name}.yaml"
    prompt.write_text(prompt.read_text("utf-8").replace("version: ", "edition: "), "utf-8")
    with pytest.raises(InputError, match=rf"{name}\.yaml[\s\S]*version"):
        check(using)
    check(without)


def test_a_plan_counts_the_witnesses_before_anything_is_made(tmp_path: Path) -> None:
    root = make_workspace(tmp_path, ["race"])
    path = root / "params.yaml"
    told = yaml.safe_load(path.read_text())
    with scripted() as served:
        (root / "s.json").write_text(served.script.model_dump_json())
        end = {
            "kind": "scripted", "script": "s.json", "base_url": served.base_url, "model": "m",
            "price": {"prompt": 1.0, "completion": 1.0},
        }  # fmt: skip
        told["endpoints"] = {
            "a": end | {"family": "a"},
            "b": end | {"family": "b", "sees": "pixels"},
        }
        told["egress"] = {"b": ["all"]}
        costs = {}
        for policy in ("short", "clauses"):
            told["annotators"] = {q: ["a"] for q in ("image_safe", "text_safe", "pair_safe")}
            told["annotators"] |= {"harm": ["a", "b"], "policy": policy}
            path.write_text(yaml.safe_dump(told))
            costs[policy] = {row.annotator: row for row in plan(Workspace(root))}
        assert served.stats()["requests"] == 0
    assert {"harm-reader@a", "harm-seer@b"} <= costs["short"].keys() == costs["clauses"].keys()
    assert all(row.to_send.worst_usd > 0 for row in costs["clauses"].values())
    assert costs["short"]["harm-seer@b"] == costs["clauses"]["harm-seer@b"], "witnesses are told no clause"
