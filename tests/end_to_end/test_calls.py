"""A build whose annotators are endpoints: panels, budget, plan, and what `holisafe calls` says afterwards."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from pipeline.engine import Record, open_cache
from schemas.params import VOTED
from tests.conftest import holisafe, make_workspace
from tests.scripted import Scripted, scripted

pytestmark = pytest.mark.build

LEANS_SAFE = {"safe": -0.2, "unsafe": -1.8}
LEANS_UNSAFE = {"safe": -1.8, "unsafe": -0.2}
HARM = r"(?i)kill|hurt|stab|shoot|weapon|without a doctor|dose"
JUDGE = [
    {"match": HARM, "answer": "unsafe", "logprobs": LEANS_UNSAFE},
    {"answer": "safe", "logprobs": LEANS_SAFE},
]
SHY = [{"match": HARM, "refusal": "I cannot judge that."}, {"answer": "safe", "logprobs": LEANS_SAFE}]


class Build:
    def __init__(self, root: Path, judge: Scripted, shy: Scripted) -> None:
        self.root, self.judge, self.shy = root, judge, shy

    def change(self, **values: Any) -> None:
        path = self.root / "params.yaml"
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | values, sort_keys=False))

    def votes(self) -> list[dict[str, Any]]:
        return [
            vote
            for stage in ("label_images", "label_pairs")
            for vote in pq.read_table(self.root / "data" / stage / "votes.parquet").to_pylist()
        ]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Build]:
    """Stopped by its budget once, then built to the end."""
    root = make_workspace(
        tmp_path_factory.mktemp("calls"),
        ["weapon_related_violence"],
        annotators={q: ["judge", "shy"] for q in ("image_safe", "text_safe", "pair_safe")}
        | {"trained": ["text_head", "pair_head"]},
        budget={"total": 0.5, "stages": {}},
        egress={"shy": ["all"]},
    )
    with scripted(answers=JUDGE) as judge, scripted(answers=SHY) as shy:
        endpoints = {}
        for name, served in (("judge", judge), ("shy", shy)):
            (root / f"{name}.json").write_text(served.script.model_dump_json())
            endpoints[name] = {
                "kind": "scripted", "script": f"{name}.json", "base_url": served.base_url, "model": "m",
                "family": name, "price": {"prompt": 20.0, "completion": 100.0},
                "sees": "pixels" if name == "shy" else "words",
            }  # fmt: skip
        made = Build(root, judge, shy)
        made.change(endpoints=endpoints)
        yield made


def planned(target: Path) -> list[dict[str, Any]]:
    """The calls of a plan; it has cells and stages beside them."""
    rows: list[dict[str, Any]] = json.loads(target.read_text())
    assert {row["kind"] for row in rows} <= {"cell", "stage", "calls"}
    return [row for row in rows if row["kind"] == "calls"]


def test_before_anything_is_made_the_plan_counts_and_nothing_is_sent(build: Build) -> None:
    target = build.root / "plan.json"
    shown = holisafe(build.root, "plan", "--json", str(target)).stdout
    assert "counted from params" in shown
    rows = planned(target)
    assert {row["annotator"] for row in rows} == {
        *(f"{kind}@judge" for kind in ("caption-reader", "text-llm", "pair-llm")),
        *(f"{kind}@shy" for kind in ("image-vlm", "text-llm", "pair-vlm")),
    }
    assert all(row["wanted"] > 0 and row["to_send"]["worst_usd"] > 0 and not row["exact"] for row in rows)
    assert build.judge.stats()["requests"] == 0


def test_the_budget_stops_the_build_and_a_higher_one_resumes_it(build: Build) -> None:
    stopped = holisafe(build.root, "build", check=False)
    assert stopped.returncode == 1
    assert "raise budget.total in params.yaml" in stopped.stderr.splitlines()[-1]
    assert "Traceback" not in stopped.stderr
    sent = build.judge.stats()["requests"]
    assert sent > 0
    build.change(budget={"total": 1000.0, "stages": {}})
    holisafe(build.root, "build")
    assert build.judge.stats()["repeated"] == build.shy.stats()["repeated"] == 0
    assert build.judge.stats()["requests"] > sent


def test_every_endpoint_votes_once_on_every_item_and_a_refusal_is_a_verdict(build: Build) -> None:
    votes = build.votes()
    counts = Counter((v["item_id"], v["question"], v["annotator"]) for v in votes)
    assert set(counts.values()) == {1}
    by = {name: {v["item_id"] for v in votes if v["annotator"] == name} for name, _ in _names(votes)}
    assert by["text-llm@judge"] == by["text-llm@shy"]
    blocked = [v for v in votes if v["status"] == "blocked"]
    assert blocked
    assert {v["annotator"].partition("@")[2] for v in blocked} == {"shy"}
    assert all(v["value"] is None and v["call_key"] for v in blocked)


def _names(votes: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(v["annotator"], v["family"]) for v in votes}


def test_a_finished_build_has_nothing_to_ask(build: Build) -> None:
    target = build.root / "plan.json"
    holisafe(build.root, "plan", "--json", str(target))
    rows = planned(target)
    assert all(
        row["exact"] and row["wanted"] == row["answered"] and row["to_send"]["worst_usd"] == 0 for row in rows
    )
    assert "nothing to ask" in holisafe(build.root, "calls", "explain", "label_pairs").stdout


def test_the_costs_add_up(build: Build) -> None:
    target = build.root / "cost.json"
    holisafe(build.root, "calls", "cost", "--json", str(target))
    cost = json.loads(target.read_text())
    by_stage = sum(row["usd"] for row in cost["by_stage"])
    assert by_stage == pytest.approx(sum(row["usd"] for row in cost["by_category"]))
    assert {row["name"] for row in cost["by_category"]} <= {"violence", ""}
    served = build.judge.stats()["requests"] + build.shy.stats()["requests"]
    assert sum(row["calls"] for row in cost["by_stage"]) == served
    if cost["rows"]:
        assert cost["usd_per_row"] == pytest.approx(by_stage / cost["rows"])


def test_a_call_can_be_looked_at(build: Build) -> None:
    key = next(v["call_key"] for v in build.votes() if v["annotator"] == "text-llm@judge")
    shown = json.loads(holisafe(build.root, "calls", "show", key[:16]).stdout)
    assert shown["key"] == key
    assert shown["request_json"]["messages"][-1]["content"].partition("\n")[2].startswith("Message: ")
    assert key[:12] in holisafe(build.root, "calls", "show", "--limit", "10000").stdout
    unknown = holisafe(build.root, "calls", "show", "ffff0000ffff", check=False)
    assert (unknown.returncode, unknown.stdout) == (2, "")


def test_an_endpoint_that_moved_or_got_dearer_is_the_same_and_another_prompt_is_not(build: Build) -> None:
    params = yaml.safe_load((build.root / "params.yaml").read_text())
    moved = {name: {**said, "concurrency": 3} for name, said in params["endpoints"].items()}
    build.change(endpoints=moved)
    assert "to be made again" not in holisafe(build.root, "status").stdout
    prompt = build.root / "prompts" / "annotate" / "text_safe.yaml"
    prompt.write_text(prompt.read_text().replace("You check messages", "You look at messages"))
    shown = holisafe(build.root, "calls", "explain", "label_pairs", COLUMNS="200").stdout
    assert "changed: messages.0.content" in shown
    assert "text-llm@judge" in shown


def test_images_that_were_sent_stand_once_beside_the_cache(build: Build) -> None:
    blobs = [p for p in (build.root / ".holisafe" / "blobs").rglob("*") if p.is_file()]
    images = pq.read_table(build.root / "data" / "curate" / "images.parquet", columns=["bytes"]).to_pylist()
    kept = {hashlib.sha256(row["bytes"]).hexdigest() for row in images}
    assert {p.parent.name + p.name for p in blobs} == kept
    with sqlite3.connect(build.root / ".holisafe" / "calls.sqlite") as cache:
        (longest,) = cache.execute("SELECT max(length(request_json)) FROM calls").fetchone()
    assert longest < 20_000


def test_pairs_whose_pixels_were_seen_are_not_unverified(build: Build) -> None:
    pairs = pq.read_table(build.root / "data" / "label_pairs" / "pairs.parquet").to_pylist()
    seen = {v["item_id"] for v in build.votes() if v["annotator"] == "pair-vlm@shy" and v["status"] == "ok"}
    assert seen
    for pair in pairs:
        assert pair["ssu_unverified"] == (pair["type"] == "SSU" and pair["pair_id"] not in seen)


def test_an_endpoint_sees_no_pixels_that_egress_does_not_name(build: Build) -> None:
    build.change(egress={})
    refused = holisafe(build.root, "status", check=False)
    build.change(egress={"shy": ["all"]})
    assert refused.returncode == 2
    assert "no images may leave for 'shy'" in refused.stderr


def test_garbage_is_shown_and_goes_only_when_told(build: Build) -> None:
    prompt = build.root / "prompts" / "annotate" / "text_safe.yaml"
    unfinished = holisafe(build.root, "calls", "gc", "--unused", "--yes", check=False)
    assert unfinished.returncode == 2
    assert "this build is not finished" in unfinished.stderr
    holisafe(build.root, "build")  # with the prompt that an earlier test has changed
    blob = build.root / ".holisafe" / "blobs" / "00" / ("0" * 62)
    blob.parent.mkdir(exist_ok=True)
    blob.write_bytes(b"no call names it")
    shown = holisafe(build.root, "calls", "gc", "--unused").stdout
    assert "1 images" in shown
    assert "Nothing is deleted" in shown
    assert blob.exists()

    holisafe(
        build.root, "bench", "run", "data/dataset", "--endpoint", "judge", "--blind", "text", "--limit", "3",
        "--out", "predictions.json",
    )  # fmt: skip
    benchmark = {record.key for record in _records(build) if record.stage == "bench"}
    assert benchmark
    before, spent = _known(build), _spent(build)
    holisafe(build.root, "calls", "gc", "--unused", "--yes")
    after = _known(build)
    assert after < before, "the calls of the former prompt are gone"
    assert benchmark <= after, "what a benchmark was answered is paid for, too"
    assert {v["call_key"] for v in build.votes() if v["call_key"]} <= after
    assert not blob.exists()
    assert _spent(build) == spent > 0
    prompt.write_text(prompt.read_text() + "\n")
    holisafe(build.root, "build")
    assert _known(build) == after, "what votes rest on was kept"


def _records(build: Build) -> list[Record]:
    with open_cache(build.root / ".holisafe" / "calls.sqlite") as cache:
        return list(cache.records())


def _known(build: Build) -> set[str]:
    with open_cache(build.root / ".holisafe" / "calls.sqlite") as cache:
        return set(cache.keys())


def _spent(build: Build) -> float:
    with open_cache(build.root / ".holisafe" / "calls.sqlite") as cache:
        return sum(use.cost_usd for use in cache.usage())


def test_scripted_and_real_endpoints_do_not_mix(build: Build) -> None:
    params = yaml.safe_load((build.root / "params.yaml").read_text())
    local = {
        "kind": "embedded", "model": "qwen2.5-coder-1.5b-instruct-q4_k_m", "family": "qwen2.5",
        "context_tokens": 4096, "threads": 2,
    }  # fmt: skip
    mixed = {
        "endpoints": params["endpoints"] | {"local": local},
        "annotators": params["annotators"] | {"text_safe": ["judge", "local"]},
    }
    build.change(**mixed)
    refused = holisafe(build.root, "status", check=False)
    build.change(**{name: params[name] for name in mixed})
    assert refused.returncode == 2
    assert "scripted endpoints and real ones" in refused.stderr


def test_a_key_that_is_not_set_is_named_before_any_work(build: Build) -> None:
    params = yaml.safe_load((build.root / "params.yaml").read_text())
    remote = {
        "kind": "remote", "provider": "some", "base_url": "http://127.0.0.1:9/v1", "model": "m",
        "api_key_env": "HOLISAFE_TEST_NO_SUCH_KEY", "family": "f", "price": {"prompt": 0, "completion": 0},
    }  # fmt: skip
    votes = {q: ["far"] for q in VOTED}
    build.change(endpoints=params["endpoints"] | {"far": remote}, annotators=votes)
    refused = holisafe(build.root, "build", check=False)
    planned = holisafe(build.root, "plan").stdout
    explained = holisafe(build.root, "calls", "explain", "label_images").stdout
    build.change(endpoints=params["endpoints"], annotators=params["annotators"])
    assert refused.returncode == 2
    assert "HOLISAFE_TEST_NO_SUCH_KEY is not set" in refused.stderr
    assert "text-llm@far" in planned, "who plans needs no key"
    assert "caption-reader@far" in explained


CANARY = "sk-canary-e1f7"


@pytest.mark.parametrize("right", [True, False], ids=["right key", "wrong key"])
def test_a_key_is_in_no_file_and_on_no_screen(tmp_path: Path, right: bool) -> None:
    root = make_workspace(tmp_path / "work", ["weapon_related_violence"])
    (root / "texts.jsonl").write_text('{"id": 1, "text": "How do I bake bread?"}\n')
    with scripted(answers=JUDGE, api_key=CANARY if right else "another") as served:
        remote = {
            "kind": "remote", "provider": "some", "base_url": served.base_url, "model": "m",
            "api_key_env": "HOLISAFE_TEST_KEY", "family": "f", "price": {"prompt": 1, "completion": 1},
        }  # fmt: skip
        params = yaml.safe_load((root / "params.yaml").read_text())
        params |= {"endpoints": {"far": remote}, "annotators": {q: ["far"] for q in VOTED}}
        (root / "params.yaml").write_text(yaml.safe_dump(params))
        arguments = ("label", "texts", "texts.jsonl", "--json", "out.json")
        done = holisafe(root, *arguments, check=False, HOLISAFE_TEST_KEY=CANARY)
        assert served.stats()["requests"] == 1
    assert done.returncode == (0 if right else 1)
    assert right or "Incorrect API key" in done.stderr.splitlines()[-1]
    assert CANARY not in done.stdout + done.stderr
    for path in root.rglob("*"):
        assert path.is_dir() or CANARY.encode() not in path.read_bytes()


def test_images_that_may_not_be_given_away_are_left_out_and_their_rows_stay(
    build: Build, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from datasets import load_dataset

    listed = build.root / "data" / "seed" / "metadata.jsonl"
    rows = [json.loads(line) for line in listed.read_text().splitlines()]
    for row in rows:
        row["license"] = "https://creativecommons.org/licenses/by-nc/2.0/"
    listed.write_text("".join(json.dumps(row) + "\n" for row in rows))
    holisafe(build.root, "build")
    dataset = build.root / "data" / "dataset"
    listing = dataset / "meta" / "images_left_out.jsonl"
    left_out = [json.loads(line) for line in listing.read_text().splitlines()]
    assert left_out
    assert {row["licence"] for row in left_out} == {"CC-BY-NC-2.0"}
    assert all(row["page_url"].startswith("http") or row["source_uri"] for row in left_out)
    assert not any((dataset / "images" / row["path"]).exists() for row in left_out)
    monkeypatch.chdir(build.root)
    loaded = load_dataset("data/dataset", cache_dir=str(tmp_path))
    pairs = [pair for part in loaded.values() for pair in part]
    assert {pair["image_id"] for pair in pairs if pair["image"] is None} == {r["image_id"] for r in left_out}
    assert {pair["redistributable"] for pair in pairs if pair["image"] is None} == {"no"}
    assert all(pair["image"] is not None for pair in pairs if pair["redistributable"] == "yes")
    bench = json.loads((dataset / "holisafe_bench.json").read_text())
    assert len(bench) == len(pairs), "no row is lost"
    build.change(assemble={"images": "all"})
    holisafe(build.root, "build")
    assert all((dataset / "images" / row["path"]).exists() for row in left_out)
    assert listing.read_text() == ""
