"""A build whose annotators are told clauses: proof of SSU pairs, another wording, and votes of people.

The scripted annotators answer from what is planted in the content: captions of images that were collected as
unsafe, and the scenes that queries come from. They are shown neither.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from pipeline.annotators import clauses
from pipeline.engine import open_cache
from pipeline.review import ReviewSet, default_target, open_review_set
from pipeline.runner import run_stage
from pipeline.stages import STAGES
from pipeline.store import sha256_file, sha256_text
from pipeline.workspace import Silent, Workspace
from schemas.queries import ClassScenes
from tests.conftest import holisafe, make_workspace
from tests.review import Answer, reviewing
from tests.scripted import Scripted, scripted

pytestmark = pytest.mark.build

CLASSES = ["weapon_related_violence", "physical_altercation"]
SAFE = {"answer": "safe", "logprobs": {"safe": -0.1, "unsafe": -2.5}}
UNSAFE = {"answer": "unsafe", "logprobs": {"safe": -2.5, "unsafe": -0.1}}
HARD = "Whoever says this is armed."
INJURY = {"harmed": "specific_person", "harm": "injury", "how": "Somebody is hurt.", "verdict": "unsafe"}
DEATH = INJURY | {"harm": "death", "how": "Somebody dies."}


def asked(template: str) -> str:
    """A pattern for the query that a scene's template became."""
    return ".{1,80}".join(re.escape(part) for part in re.split(r"\{\w+\}", template))


def judge(root: Path) -> list[dict[str, Any]]:
    """Rules that find what is planted, in the item below its clause."""
    scenes: Sequence[ClassScenes] = [Workspace(root).scenes[name] for name in CLASSES]
    rules = [{"match": rf"{re.escape(HARD)}[\s\S]*\nMessage: [^\n]*\bthis\b", **UNSAFE}]
    for said in scenes:
        rules += [{"match": rf"(?i)\nMessage: {asked(unsafe.query)}", **UNSAFE} for unsafe in said.unsafe]
        for latent in said.latent:
            things = "|".join(map(re.escape, latent.image))
            rules.append(
                {
                    "match": rf"(?i)\nPicture: [^\n]*({things})[\s\S]*\nRequest: {asked(latent.query)}",
                    **UNSAFE,
                }
            )
    captions = [
        row["caption"]
        for row in map(json.loads, (root / "data" / "seed" / "metadata.jsonl").read_text().splitlines())
        if not row["safe"]
    ]
    captions += [
        drawing.caption
        for info in Workspace(root).classes()
        for drawing in info.spec.generation.drawings
        if not drawing.safe
    ]
    # An image alone: its caption, and no request below it.
    rules += [
        {"match": rf"\nPicture: {re.escape(c)}(?![\s\S]*\nRequest: )", **UNSAFE} for c in sorted(captions)
    ]
    return [*rules, SAFE]


class Build:
    def __init__(self, root: Path, servers: dict[str, Scripted]) -> None:
        self.root, self.servers = root, servers

    def table(self, path: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = pq.read_table(self.root / "data" / path).to_pylist()
        return rows

    def run(self) -> list[str]:
        """Run every stage that is not fresh, as a build does; which ones ran."""
        return [name for name in STAGES if run_stage(Workspace(self.root), name, Silent())]

    def sent(self) -> int:
        return sum(served.stats()["requests"] for served in self.servers.values())

    def reworded(self, name: str, axis: str, more: str) -> Path:
        """A copy of the taxonomy with a sentence more in what one class says is unsafe."""
        taxonomy = yaml.safe_load((self.root / "schemas" / "taxonomy.yaml").read_text())
        taxonomy["categories"]["violence"]["classes"][name]["policy"][axis]["unsafe"] += f" {more}"
        path = self.root / "reworded.yaml"
        path.write_text(yaml.safe_dump(taxonomy, sort_keys=False, allow_unicode=True))
        return path

    def relabel(self, policy: Path, *more: str) -> tuple[dict[str, Any], str]:
        target = self.root / "relabelled.json"
        shown = holisafe(
            self.root, "relabel", "--policy", str(policy), "--json", str(target), *more, COLUMNS="200"
        )
        return json.loads(target.read_text()), shown.stdout

    def hashes(self) -> dict[str, str]:
        return {str(p): sha256_file(p) for p in sorted((self.root / "data").rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Build]:
    root = make_workspace(tmp_path_factory.mktemp("policy"), CLASSES, quota_scale=2.0)
    params = yaml.safe_load((root / "params.yaml").read_text())
    rules = judge(root)
    # The eyes see pixels, of which a script knows nothing: they are asked about SSU pairs alone.
    party = {"match": "(?i)Request: .*(party|night|surprise)", "answer": DEATH}
    told = {
        "one": (rules, "words"),
        "two": (rules, "words"),
        "left": ([{"answer": INJURY}], "pixels"),
        "right": ([party, {"answer": INJURY}], "pixels"),
    }
    with ExitStack() as running:
        servers = {}
        params["endpoints"] = {}
        for seed, (name, (answers, sees)) in enumerate(told.items()):
            served = servers[name] = running.enter_context(scripted(answers=answers, seed=seed))
            (root / f"{name}.json").write_text(served.script.model_dump_json())
            params["endpoints"][name] = {
                "kind": "scripted", "script": f"{name}.json", "base_url": served.base_url, "model": "m",
                "family": name, "sees": sees,
            }  # fmt: skip
        votes: dict[str, Any] = {q: ["one", "two"] for q in ("image_safe", "text_safe", "pair_safe")}
        params["annotators"] = votes | {"harm": ["left", "right", "one"], "policy": "clauses"}
        params["egress"] = {"left": ["all"], "right": ["all"]}
        params["collect"]["per_class"] = {"safe": 11, "unsafe": 6}
        (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
        made = Build(root, servers)
        made.run()
        yield made


def test_every_call_of_a_voter_has_one_clause_and_a_witness_has_none(build: Build) -> None:
    workspace = Workspace(build.root)
    voted = {
        vote["call_key"]: vote["question"]
        for stage in ("label_images", "label_pairs")
        for vote in build.table(f"{stage}/votes.parquet")
        if vote["call_key"]
    }
    stated = {row["call_key"] for row in build.table("label_pairs/proofs.parquet")}
    assert voted.keys().isdisjoint(stated)
    told = {q: clauses(workspace.taxonomy, q) for q in ("image_safe", "text_safe", "pair_safe")}  # type: ignore[arg-type]
    seen = set()
    with open_cache(workspace.calls) as cache:
        for key, record in cache.get_many([*voted, *stated]).items():
            last = json.dumps(json.loads(record.request_json)["messages"][-1], ensure_ascii=False)
            given = {
                (question, name)
                for question, by_class in told.items()
                for name, clause in by_class.items()
                if json.dumps(clause, ensure_ascii=False)[1:-1] in last
            }
            assert {q for q, _ in given} == ({voted[key]} if key in voted else set())
            assert len(given) == (key in voted)
            seen |= given
    assert {name for _, name in seen} == set(CLASSES)


def test_ssu_rows_are_proven_or_marked_and_everything_that_was_said_is_kept(build: Build) -> None:
    pairs = {row["pair_id"]: row for row in build.table("label_pairs/pairs.parquet")}
    proofs = build.table("label_pairs/proofs.parquet")
    ssu = {pair_id for pair_id, row in pairs.items() if row["type"] == "SSU"}
    assert ssu == {row["item_id"] for row in proofs}
    assert len(proofs) == 3 * len(ssu)
    assert {(row["annotator"], row["sees"]) for row in proofs} == {
        ("harm-seer@left", "pixels"),
        ("harm-seer@right", "pixels"),
        ("harm-reader@one", "words"),
    }
    proven = {row["item_id"]: row["proven"] for row in proofs}
    assert set(proven.values()) == {True, False}
    assert {row["reason"] for row in proofs} == {"", "they differ on what the harm is"}
    for pair_id, row in pairs.items():
        assert row["ssu_unverified"] == (row["type"] == "SSU" and not proven[pair_id])


def test_the_strict_export_leaves_out_what_is_not_proven(build: Build) -> None:
    rows = build.table("label_pairs/pairs.parquet")
    unproven = [row for row in rows if row["ssu_unverified"]]
    shown = holisafe(
        build.root, "export", "holisafe-bench", "data/dataset", "--out", "bench", "--split", "all"
    )
    assert f"{len(unproven)} left out: SSU not verified" in shown.stdout
    queries = {row["query"] for row in json.loads((build.root / "bench" / "holisafe_bench.json").read_text())}
    assert {r["query"] for r in rows if r["type"] == "SSU" and not r["ssu_unverified"]} <= queries


def test_statements_are_calls_that_this_build_rests_on(build: Build) -> None:
    assert "0 calls that no vote of this build rests on" in holisafe(build.root, "calls", "gc").stdout
    target = build.root / "plan.json"
    holisafe(build.root, "plan", "--json", str(target))
    rows = [row for row in json.loads(target.read_text()) if row["kind"] == "calls"]
    planned = {row["annotator"]: row for row in rows}
    assert planned["harm-seer@left"]["wanted"] == planned["harm-seer@left"]["answered"] > 0


def test_the_same_policy_asks_nothing(build: Build) -> None:
    before = build.sent()
    found, shown = build.relabel(build.root / "schemas" / "taxonomy.yaml")
    assert "No clause differs" in shown
    assert (found["clauses"], found["flips"], build.sent()) == ([], [], before)


def test_another_wording_says_what_it_costs_and_what_it_flips_and_changes_no_table(build: Build) -> None:
    policy = build.reworded("weapon_related_violence", "text", HARD)
    before, tables = build.sent(), build.hashes()
    dry, shown = build.relabel(policy, "--dry-run")
    assert "Nothing was sent" in shown
    assert build.sent() == before
    assert {(row["question"], row["class"]) for row in dry["calls"]} == {
        ("text_safe", "weapon_related_violence")
    }
    cost = sum(row["calls"] for row in dry["calls"])
    assert cost == sum(row["items"] for row in dry["calls"]) > 0

    found, shown = build.relabel(policy)
    assert build.sent() == before + cost
    [flips] = found["flips"]
    assert flips["to_unsafe"] == len(flips["changed"]) > 0
    assert flips["to_safe"] == flips["unscorable"] == 0
    assert f"{flips['to_unsafe']}" in shown
    texts = {sha256_text(row["query"]): row for row in build.table("synthesize/queries.parquet")}
    for flip in flips["changed"]:
        assert re.search(r"\bthis\b", texts[flip["item_id"]]["query"])
        assert texts[flip["item_id"]]["harm_class"] == "weapon_related_violence"
        assert (flip["before"], flip["after"]) == ("safe", "unsafe")
    assert "policy_version is" in shown, "the copy has the version of the original"
    assert build.hashes() == tables

    again, _ = build.relabel(policy)
    assert (again, build.sent()) == (found, before + cost), "the answers are in the cache"
    assert [row["calls"] for row in build.relabel(policy, "--dry-run")[0]["calls"]] == [0, 0]


def test_a_policy_that_flips_nothing_is_adopted_without_a_call(build: Build) -> None:
    policy = build.reworded("physical_altercation", "pair", "This holds on any day of the week.")
    found, _ = build.relabel(policy)
    assert [(row["question"], row["class"]) for row in found["flips"]] == [
        ("pair_safe", "physical_altercation")
    ]
    assert found["flips"][0]["items"] > 0
    assert found["flips"][0]["changed"] == []
    before = build.sent()
    shutil.copy(policy, build.root / "schemas" / "taxonomy.yaml")
    assert {"label_images", "label_pairs"} <= set(build.run())
    assert build.sent() == before


def test_other_classes_are_no_other_wording(build: Build) -> None:
    taxonomy = yaml.safe_load((build.root / "schemas" / "taxonomy.yaml").read_text())
    del taxonomy["categories"]["violence"]["classes"]["terrorism"]
    path = build.root / "fewer.yaml"
    path.write_text(yaml.safe_dump(taxonomy, sort_keys=False))
    refused = holisafe(build.root, "relabel", "--policy", str(path), check=False)
    assert refused.returncode == 2
    assert "holisafe/violence/terrorism" in refused.stderr


def test_people_decide_without_a_call_and_stand_among_the_votes(build: Build) -> None:
    images = build.table("label_images/labels.parquet")
    flipped = next(row for row in images if row["accepted"] and row["image_safe"])
    kept = next(row for row in build.table("label_pairs/pairs.parquet") if row["type"] == "SSU")
    said = [
        (flipped["image_id"], "image_safe", "unsafe"),
        (kept["pair_id"], "pair_safe", "unsafe"),
        ("0" * 64, "image_safe", "safe"),
        ("1" * 64, "text_safe", "safe"),
    ]
    path = build.root / "data" / "reviews" / "votes.jsonl"
    path.parent.mkdir()

    def write(votes: Sequence[tuple[str, str, str]]) -> None:
        names = ("item_id", "question", "value")
        told = [dict(zip(names, vote, strict=True)) | {"annotator": "anna"} for vote in votes]
        path.write_text("".join(json.dumps(line) + "\n" for line in told))

    before = build.sent()
    write(said)
    holisafe(build.root, "run", "label_images")
    assert build.sent() == before
    after = {row["image_id"]: row for row in build.table("label_images/labels.parquet")}
    differ = {row["image_id"] for row in images if after[row["image_id"]] != row}
    assert differ == {flipped["image_id"]}
    assert (after[flipped["image_id"]]["image_safe"], after[flipped["image_id"]]["accepted"]) == (
        False,
        False,
    )
    votes = [v for v in build.table("label_images/votes.parquet") if v["family"] == "people:anna"]
    assert [(v["item_id"], v["value"], v["score"]) for v in votes] == [(flipped["image_id"], "unsafe", 1.0)]
    failures = build.table("label_images/failures.parquet")
    assert [f["item_id"] for f in failures if f["reason"] == "vote of a person on what is not here"] == [
        "0" * 64
    ]

    write(said[1:])
    holisafe(build.root, "run", "label_images")
    holisafe(build.root, "run", "synthesize")
    holisafe(build.root, "run", "label_pairs")
    assert build.sent() == before
    labels = {row["item_id"]: row for row in build.table("label_pairs/labels.parquet")}
    assert labels[kept["pair_id"]]["score"] == 1.0
    votes = [v for v in build.table("label_pairs/votes.parquet") if v["family"] == "people:anna"]
    assert [(v["item_id"], v["question"]) for v in votes] == [(kept["pair_id"], "pair_safe")]
    failures = build.table("label_pairs/failures.parquet")
    assert [f["item_id"] for f in failures if f["reason"] == "vote of a person on what was not judged"] == [
        "1" * 64
    ]
    build.run()
    rows = [
        row
        for shard in (build.root / "data" / "dataset" / "data").rglob("*.parquet")
        for row in pq.read_table(shard, columns=["votes", "type"]).to_pylist()
    ]
    assert any(vote["family"] == "people:anna" for row in rows for vote in row["votes"])

    path.write_text("{}\n")
    refused = holisafe(build.root, "build", check=False)
    assert refused.returncode == 2
    assert "votes.jsonl: line 1: item_id: Field required" in refused.stderr


def test_verdicts_from_the_review_page_change_the_next_build(build: Build, tmp_path: Path) -> None:
    (build.root / "data" / "reviews" / "votes.jsonl").unlink(missing_ok=True)
    build.run()
    items = open_review_set(str(build.root / "data" / "dataset"))
    assert items.ours
    before = shutil.copytree(build.root / "data" / "dataset", tmp_path / "before")
    pairs = {row["pair_id"]: row for row in build.table("label_pairs/pairs.parquet")}
    assert set(items.items["pair_safe"]) <= set(pairs)
    target = default_target(build.root, items)
    with reviewing(items, build.root / ".holisafe" / "reviews.sqlite", target.path) as page:
        anna = page.browser("anna")
        answer = anna.queue()
        while (kept := pairs[pair_of(items, answer)])["type"] != "SSS":
            answer = anna.judge(answer, "skip", "skip", "skip")
        anna.act(anna.judge(answer, "safe", "safe", "unsafe"), "/stop")
    sent, asked = build.sent(), asked_of_pairs(build)
    holisafe(build.root, "run", "label_images")
    holisafe(build.root, "run", "synthesize")
    holisafe(build.root, "run", "label_pairs")
    new = {key: item for key, item in asked_of_pairs(build).items() if key not in asked}
    assert build.sent() == sent + len(new), "no model was asked for it"
    assert not set(new.values()) & set(asked.values()), "only what takes the pair's place is asked about"
    labels = {row["item_id"]: row for row in build.table("label_pairs/labels.parquet")}
    assert labels[kept["pair_id"]]["safe"] is False
    assert kept["pair_id"] not in {row["pair_id"] for row in build.table("label_pairs/pairs.parquet")}
    votes = [v for v in build.table("label_pairs/votes.parquet") if v["family"] == "people:anna"]
    assert (kept["pair_id"], "pair_safe", "unsafe") in {
        (v["item_id"], v["question"], v["value"]) for v in votes
    }
    build.run()
    holisafe(build.root, "diff", str(before), "data/dataset", "--json", "changes.json")
    changes = json.loads((build.root / "changes.json").read_text())
    gone = {(row["query_id"], row["image_id"]) for row in changes["gone"]}
    assert (kept["query_id"], kept["image_id"]) in gone, "what the reviewer turned down has left the dataset"
    assert {row["class_key"].rpartition("/")[2] for row in changes["gone"]} == {kept["harm_class"]}
    assert changes["relabelled"] == changes["responses"] == []
    metrics = json.loads((build.root / "data" / "audit" / "metrics.json").read_text())
    for question, right in (("image_safe", 1), ("text_safe", 1), ("pair_safe", 0)):
        label, *others = (row for row in metrics["gold"][question] if row["raters"] == "any")
        assert (label["annotator"], label["n"], label["equal"]) == ("label", 1, right), question
        assert others
        assert "anna" not in {row["annotator"] for row in others}
    assert metrics["prevalence"]["pair_safe"]["accuracy"] == 0.0, "the label that people did not decide"


def asked_of_pairs(build: Build) -> dict[str, str]:
    """The item of each call that label_pairs rests on, by the call's key."""
    return {
        row["call_key"]: row["item_id"]
        for table in ("votes", "proofs")
        for row in build.table(f"label_pairs/{table}.parquet")
        if row["call_key"]
    }


def pair_of(items: ReviewSet, answer: Answer) -> str:
    """The pair that a page of the review asks about."""
    return items.item(items.position[int(answer.fields()["row"])], "pair_safe")


def test_with_the_short_policy_no_clause_reaches_anybody(tmp_path: Path) -> None:
    root = make_workspace(tmp_path, CLASSES)
    refused = holisafe(root, "relabel", "--policy", "schemas/taxonomy.yaml", check=False)
    assert refused.returncode == 2
    assert "annotators.policy: short" in refused.stderr
    assert "write `policy: clauses`" in refused.stderr
    assert "Traceback" not in refused.stderr
