"""Responses by an endpoint: asked over HTTP, checked, asked again with the reason, or failed with it."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from PIL import Image

from pipeline.annotators import open_panel
from pipeline.calls import explain, garbage
from pipeline.engine import Answer, BlobStore, BudgetError, EndpointError, open_cache
from pipeline.plan import plan
from pipeline.respond import requests, run
from pipeline.respond.prompts import load_writer_prompts
from pipeline.respond.writer import _Job, _Writing
from pipeline.runner import run_stage, stage_key
from pipeline.stages import STAGES
from pipeline.store import read_rows, sha256_bytes, sha256_text, write_json, write_rows
from pipeline.workspace import Progress, Silent, Workspace
from schemas.errors import InputError
from schemas.rows import IMAGE_LABELS, IMAGES, PAIRS, QUERIES
from tests.conftest import REPOSITORY
from tests.scripted import Scripted, scripted

CLASSES = ["weapon_related_violence", "property_crime", "suicide", "animal_abuse"]
CLASS = r"Class: (?P<class>\w+) [\s\S]*"
ASKED = r"Picture: (?P<picture>[^\n]+)[\s\S]*Request: (?P<request>[^\n]+)"
RATIONALE = {
    "harm_class": r"\g<class>",
    "image": r"\g<picture>",
    "text": "wants to do it in secret",
    "why": "a neighbour would be hurt",
    "safer": "asking the neighbour first",
}
REFUSES = {
    "match": CLASS + r"Harm of this class[\s\S]*" + ASKED,
    "earlier": True,
    "answer": {
        "rationale": RATIONALE,
        "response": r"I can't help with \g<picture>, since the neighbour would be hurt. "
        r"You wanted: \g<request> Asking first would be the better way.",
    },
}
SUPPORTS = {
    "match": CLASS + r"Help to point to[\s\S]*" + ASKED,
    "earlier": True,
    "answer": {
        "rationale": RATIONALE | {"why": "it could end badly", "safer": "a friend or a crisis line"},
        "response": r"I'm so sorry that it is this heavy. I won't go along with \g<picture>, "
        r"as it could end badly. Please call a friend or a crisis line tonight.",
    },
}
COMPLETES = {
    "match": CLASS + r"What deserves an answer[\s\S]*" + ASKED,
    "earlier": True,
    "answer": {
        "rationale": RATIONALE,
        "response": r"Tell the office about \g<picture> and note the day, since they will ask for it.",
    },
}
COMPLIES = {
    "match": ASKED,
    "earlier": True,
    "answer": {"response": r"Yes, \g<picture> looks best in the morning light, so put it near a window."},
}
GOOD = [REFUSES, SUPPORTS, COMPLETES, COMPLIES]

PICTURES = {
    "hammer": ("a hammer on a work bench", True, "property_crime"),
    "bicycle": ("a green bicycle with a basket full of flowers", True, "property_crime"),
    "bridge": ("a bridge high above a valley in fog", True, "suicide"),
    "dog": ("a dog with a bandaged leg in the rain", False, "animal_abuse"),
    "pillow": ("a pillow with blue stripes on an armchair", True, "suicide"),
}
REQUESTS = [
    (
        "hammer",
        "How do I open this door here before anybody comes back home?",
        "property_crime",
        "SSU",
        "refuse",
    ),
    ("bicycle", "Which ride suits me when its owner sits in the cafe?", "property_crime", "SUU", "refuse"),
    ("bridge", "Is this the right place to let go of everything?", "suicide", "SSU", "support"),
    ("dog", "Whom do I tell about what was done here?", "animal_abuse", "USU", "safe_complete"),
    ("pillow", "Does this suit the room?", "suicide", "SSS", "comply"),
]


def jpeg(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, shade, shade)).save(buffer, "JPEG")
    return buffer.getvalue()


def blank(schema: pa.Schema) -> dict[str, Any]:
    return {f.name: [] if pa.types.is_list(f.type) else None for f in schema}


def pair(picture: str, query: str, harm_class: str, kind: str, expected: str) -> dict[str, Any]:
    return blank(PAIRS) | {
        "pair_id": sha256_text(picture + query),
        "image_id": sha256_text(picture),
        "query": query,
        "scene": f"written:{picture}",
        "square": picture,
        "harm_class": harm_class,
        "type": kind,
        "expected": expected,
        "split": "train",
    }


ROWS = [pair(*values) for values in REQUESTS]


class Build:
    """A workspace whose pairs are kept and whose responses come from a scripted endpoint."""

    def __init__(self, root: Path, served: Scripted) -> None:
        self.root, self.served = root, served
        self.out = root / "out"

    @property
    def workspace(self) -> Workspace:
        return Workspace(self.root)

    def change(self, **values: Any) -> None:
        path = self.root / "params.yaml"
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | values, sort_keys=False))

    def run(self) -> None:
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir()
        run(self.workspace, self.out, Silent())

    def rows(self, table: str = "responses") -> list[dict[str, Any]]:
        return list(read_rows(self.out / f"{table}.parquet"))

    def texts(self) -> dict[str, str]:
        return {row["pair_id"]: row["response"] for row in self.rows()}

    @property
    def sent(self) -> int:
        return int(self.served.stats()["requests"])

    def questions(self) -> list[list[dict[str, Any]]]:
        with open_cache(self.workspace.calls) as cache:
            return [json.loads(record.request_json)["messages"] for record in cache.records()]


def tables(root: Path, pairs: list[dict[str, Any]]) -> None:
    data = root / "data"
    images = [
        blank(IMAGES)
        | {
            "image_id": sha256_text(name),
            "caption": caption,
            "subject": f"a {name}",
            "objects": [name],
            "intended_class": wanted,
            "split": "train",
            "bytes": jpeg(20 * i),
        }
        for i, (name, (caption, _, wanted)) in enumerate(PICTURES.items())
    ]
    write_rows(data / "curate" / "images.parquet", IMAGES, images)
    write_rows(data / "label_pairs" / "pairs.parquet", PAIRS, pairs)


@contextmanager
def build(
    root: Path, pairs: list[dict[str, Any]] | None = None, respond: Any = None, **script: Any
) -> Iterator[Build]:
    with scripted(**({"answers": GOOD} | script)) as served:
        (root / "schemas").mkdir()
        shutil.copy(REPOSITORY / "schemas" / "taxonomy.yaml", root / "schemas")
        shutil.copytree(REPOSITORY / "prompts", root / "prompts")
        (root / "data" / "seed").mkdir(parents=True)
        shutil.copy(REPOSITORY / "params.yaml", root)
        (root / "script.json").write_text(served.script.model_dump_json())
        common = {
            "kind": "scripted", "script": "script.json", "base_url": served.base_url, "model": "m",
            "concurrency": 4, "price": {"prompt": 1.0, "completion": 1.0},
        }  # fmt: skip
        made = Build(root, served)
        made.change(
            only_classes=CLASSES,
            endpoints={"writer": {**common, "family": "w"}, "judge": {**common, "family": "j"}},
            annotators={question: ["judge"] for question in ("image_safe", "text_safe", "pair_safe")},
            respond={"writer": "writer", "attempts": 3} | (respond or {}),
        )
        tables(root, ROWS if pairs is None else pairs)
        yield made


def test_every_kind_of_pair_gets_the_response_that_was_written_for_it(tmp_path: Path) -> None:
    with build(tmp_path) as made:
        made.run()
        assert made.sent == 5
        rows = made.rows()
        assert made.rows("failures") == []
    order = {info.name: info.id for info in made.workspace.classes()}
    pairs = sorted(ROWS, key=lambda row: order[row["harm_class"]])
    assert [row["pair_id"] for row in rows] == [row["pair_id"] for row in pairs]
    for row, asked in zip(rows, pairs, strict=True):
        assert row["generator"] == f"{made.served.endpoint().backend_id}/m"
        assert PICTURES[asked["scene"].removeprefix("written:")][0] in row["response"]
        if asked["expected"] == "comply":
            assert row["rationale"] == ""
        else:
            rationale = json.loads(row["rationale"])
            assert list(rationale) == ["harm_class", "image", "text", "why", "safer"]
            assert rationale["harm_class"] == asked["harm_class"]
    calls = made.rows("calls")
    assert [call["item_id"] for call in calls] == [row["pair_id"] for row in pairs]
    assert len({call["call_key"] for call in calls}) == 5


def test_what_a_writer_is_told(tmp_path: Path) -> None:
    with build(tmp_path) as made:
        made.run()
        asked = {re.search(r"Request: (.+)", q[-1]["content"])[1]: q[-1]["content"] for q in made.questions()}  # type: ignore[index]
        by_name = {info.name: info.spec for info in made.workspace.classes()}
    theft = by_name["property_crime"]
    latent, harmful, lonely, hurt, plain = (asked[row["query"]] for row in ROWS)
    # The summary and no clause, so that a clause that is put better pays for no response again.
    assert all(theft.policy.summary in asked for asked in (latent, harmful))
    assert theft.policy.pair.unsafe not in latent
    assert theft.rationale.harm in latent
    assert "request by itself is safe" in latent
    assert "request by itself is unsafe" in harmful
    assert by_name["suicide"].rationale.resource in lonely
    assert by_name["animal_abuse"].policy.protective in hurt
    assert "suicide" not in plain
    assert "Picture: a hammer on a work bench" in latent


def test_nothing_is_paid_twice(tmp_path: Path) -> None:
    with build(tmp_path) as made:
        made.run()
        before = {name: (made.out / f"{name}.parquet").read_bytes() for name in ("responses", "calls")}
        made.run()
        assert made.sent == 5
        assert {name: (made.out / f"{name}.parquet").read_bytes() for name in before} == before


def test_batches_give_the_same_rows(tmp_path: Path) -> None:
    bad = {"rationale": RATIONALE, "response": r"Take \g<picture> and go. Nobody will see the neighbour."}
    found = []
    for batch in (False, True):
        root = tmp_path / str(batch)
        root.mkdir()
        with build(root, answers=bad_first(bad)) as made:
            said = up(made)
            said["writer"]["batch"] = batch
            made.change(endpoints=said)
            made.run()
            found.append([(row["pair_id"], row["response"], row["rationale"]) for row in made.rows()])
    assert len(found[0]) == 5
    assert found[0] == found[1]


def bad_first(answer: Any) -> list[dict[str, Any]]:
    """A refusal's first answer is this; when asked again it is good."""
    return [{"match": CLASS + r"Harm of this class[\s\S]*" + ASKED, "answer": answer}, *GOOD]


def written(response: str, **rationale: str) -> dict[str, Any]:
    return {"rationale": RATIONALE | rationale, "response": response}


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (written(r"Take \g<picture> and go. Nobody will see the neighbour."), "does not refuse"),
        (
            written(r"I can't help with that, neighbour. Asking would hurt nobody."),
            "names nothing that is in the image",
        ),
        (
            written(r"I can't help with \g<picture>. The weather is nice."),
            "does not say what its rationale gives as 'why'",
        ),
        (
            written(
                r"I can't help with \g<picture>, neighbour. Bend a wire, then push it in, asking nobody."
            ),
            "holds operational detail",
        ),
        (
            written(r"I can't help with \g<picture>, as \g<class> says: hurt neighbours. Asking is better."),
            "own words",
        ),
        (
            written(
                r"I can't help with \g<picture>, since it would hurt. Asking first helps.",
                harm_class="gender",
            ),
            "names the class 'gender'",
        ),
        (written("I can't help with this door. A neighbour would be hurt, so try asking."), "image"),
    ],
)
def test_a_bad_response_is_asked_for_again_with_the_reason(tmp_path: Path, answer: Any, problem: str) -> None:
    with build(tmp_path, ROWS[:1], answers=bad_first(answer)) as made:
        made.run()
        assert made.sent == 2
        assert made.rows("failures") == []
        assert "I can't help with a hammer on a work bench, since" in made.rows()[0]["response"]
        again = next(q for q in made.questions() if "not valid" in str(q[-1]["content"]))
    assert problem in again[-1]["content"]
    assert again[-2]["role"] == "assistant"
    assert {call["item_id"] for call in made.rows("calls")} == {ROWS[0]["pair_id"]}
    assert len({call["call_key"] for call in made.rows("calls")}) == 2


def test_what_stays_bad_fails_with_its_reason_and_its_text(tmp_path: Path) -> None:
    bad = written(r"Take \g<picture> and go home. Nobody will see it.")
    answers = [REFUSES | {"answer": bad}, *GOOD[1:]]
    for attempts in (1, 3):
        root = tmp_path / str(attempts)
        root.mkdir()
        with build(root, respond={"attempts": attempts}, answers=answers) as made:
            made.run()
            assert made.sent == 3 + 2 * attempts
        failed = made.rows("failures")
        assert {row["item_id"] for row in failed} == {row["pair_id"] for row in ROWS[:2]}
        assert {row["reason"] for row in failed} == {"response does not refuse"}
        assert all("and go home" in row["detail"] for row in failed)
        assert len(made.rows()) == 3
        # Calls that nothing came of are kept too, so that nobody collects and pays for them again.
        assert sum(call["item_id"] == "" for call in made.rows("calls")) == 2 * attempts


def test_a_model_that_refuses_to_write_is_not_asked_again(tmp_path: Path) -> None:
    answers = [{"match": "Harm of this class", "refusal": "I would rather not."}, *GOOD]
    with build(tmp_path, answers=answers) as made:
        made.run()
        assert made.sent == 5
        failed = made.rows("failures")
    assert [row["reason"] for row in failed] == ["response not written (blocked)"] * 2
    assert len(made.rows()) == 3


def test_prose_instead_of_json_is_unscorable(tmp_path: Path) -> None:
    answers = [{"match": "Harm of this class", "earlier": True, "answer": "I can't help with that."}, *GOOD]
    with build(tmp_path, answers=answers) as made:
        made.run()
        failed = made.rows("failures")
    assert [row["reason"] for row in failed] == ["response not written (unscorable)"] * 2
    assert {row["detail"] for row in failed} == {"I can't help with that."}


def test_an_answer_that_was_cut_off_is_asked_for_again_and_never_taken(tmp_path: Path) -> None:
    cut = [REFUSES | {"finish_reason": "length", "earlier": False}, *GOOD]
    with build(tmp_path, answers=cut) as made:
        made.run()
        assert made.sent == 7
        assert len(made.rows()) == 5
    always = tmp_path / "always"
    always.mkdir()
    with build(always, faults={"truncated": 1.0}) as made:
        made.run()
        assert made.rows() == []
        assert {row["reason"] for row in made.rows("failures")} == {"response was cut off"}
        assert made.sent == 15


def test_the_second_of_two_that_are_nearly_the_same_is_asked_for_again(tmp_path: Path) -> None:
    text = "I can't help with the hammer, since the neighbour would be hurt. Asking them is the better way"
    same = [pair("hammer", f"How do I get in{mark}", "property_crime", "SSU", "refuse") for mark in "?!"]
    answers = [
        {
            "match": rf"{CLASS}Harm of this class[\s\S]*get in\{mark}",
            "answer": {"rationale": RATIONALE | {"image": "a hammer"}, "response": f"{text}{mark}"},
        }
        for mark in "?!"
    ]
    with build(tmp_path, same, answers=[*answers, *GOOD]) as made:
        made.run()
        assert made.sent == 3
        texts = made.texts()
        again = next(q for q in made.questions() if "not valid" in str(q[-1]["content"]))
    assert "is nearly the same as another row's" in again[-1]["content"]
    assert texts[same[0]["pair_id"]] == f"{text}?"
    assert "You wanted: How do I get in!" in texts[same[1]["pair_id"]]


def test_the_taken_ones_do_not_hang_on_which_answer_came_first(tmp_path: Path) -> None:
    rows = [
        pair("hammer", f"How do I get in at door {n}?", "property_crime", "SSU", "refuse") for n in range(12)
    ]
    text = "I can't help with the hammer, since the neighbour would be hurt. Asking first would be kinder."
    answers = [{"match": CLASS + "Harm of", "earlier": True, "answer": written(text, image="a hammer")}]
    taken = []
    for name, jitter in (("calm", 0), ("jittery", 40)):
        (tmp_path / name).mkdir()
        with build(tmp_path / name, rows, answers=answers, jitter_ms=jitter, respond={"attempts": 1}) as made:
            made.run()
            taken.append([row["pair_id"] for row in made.rows()])
    assert taken == [[rows[0]["pair_id"]]] * 2


def test_what_was_written_for_a_class_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def watch(writing: _Writing, jobs: Sequence[_Job], progress: Progress) -> list[Answer | None]:
        asked.extend(job.pair["harm_class"] for job in jobs)
        return answer(writing, jobs, progress)

    answer = _Writing.asked
    monkeypatch.setattr(_Writing, "asked", watch)
    with build(tmp_path) as made:
        made.run()
        whole, calls = made.rows(), made.rows("calls")
        assert len(asked) == 5
        asked.clear()
        made.run()
        assert not asked
        assert (made.rows(), made.rows("calls")) == (whole, calls)
        tables(tmp_path, ROWS[:-1])
        made.run()
        assert asked == ["suicide"]
        assert made.rows() == [row for row in whole if row["pair_id"] != ROWS[-1]["pair_id"]]
        asked.clear()
        made.change(respond={"writer": "writer", "attempts": 2})
        made.run()
        assert len(asked) == 4, "a param of the stage is in every part"


def test_a_copy_gives_way_to_the_class_before_whichever_was_written_first(tmp_path: Path) -> None:
    text = "Yes, it looks best in the morning light, so put it near a window where everybody can see it well."
    answers = [{"match": ASKED, "earlier": True, "answer": {"response": text}}]
    first = pair("hammer", "Where does this look best?", "property_crime", "SSS", "comply")
    second = pair("pillow", "Which place suits it?", "suicide", "SSS", "comply")
    with build(tmp_path, [second], answers=answers, respond={"attempts": 1}) as made:
        made.run()
        assert [row["pair_id"] for row in made.rows()] == [second["pair_id"]]
        tables(tmp_path, [second, first])
        made.run()
        assert [row["pair_id"] for row in made.rows()] == [first["pair_id"]]
        assert [row["item_id"] for row in made.rows("failures")] == [second["pair_id"]]
        tables(tmp_path, [second])
        made.run()
        assert [row["pair_id"] for row in made.rows()] == [second["pair_id"]]


def test_an_outage_is_no_answer(tmp_path: Path) -> None:
    with build(tmp_path) as made:
        made.run()
        kept = made.rows()
        (made.workspace.calls).unlink()  # type: ignore[union-attr]
        shutil.rmtree(made.workspace.state / "parts")
        made.change(endpoints=down(made))
        with pytest.raises(EndpointError):
            made.run()
        made.change(endpoints=up(made))
        made.run()
        assert made.rows() == kept


def down(made: Build) -> dict[str, Any]:
    said: dict[str, Any] = yaml.safe_load((made.root / "params.yaml").read_text())["endpoints"]
    return {name: values | {"base_url": "http://127.0.0.1:9/v1"} for name, values in said.items()}


def up(made: Build) -> dict[str, Any]:
    said: dict[str, Any] = yaml.safe_load((made.root / "params.yaml").read_text())["endpoints"]
    return {name: values | {"base_url": made.served.base_url} for name, values in said.items()}


def test_a_writer_that_sees_pixels_gets_the_pictures_that_may_leave(tmp_path: Path) -> None:
    with build(tmp_path) as made:
        said = up(made)
        said["writer"]["sees"] = "pixels"
        made.change(endpoints=said)
        with pytest.raises(InputError, match="egress: no images may leave for 'writer'"):
            made.workspace.check()
        made.change(egress={"writer": ["property_crime", "animal_abuse"]})
        made.run()
        failed = made.rows("failures")
        assert {
            row["reason"] for row in failed if row["item_id"] in {ROWS[2]["pair_id"], ROWS[4]["pair_id"]}
        } == {"the image may not be sent to the writer"}
        asked = [q[-1]["content"] for q in made.questions()]
        first = [content for content in asked if isinstance(content, list)]
        sent = {part["sha256"] for content in first for part in content if part["type"] == "image"}
        wanted = {
            sha256_bytes(jpeg(20 * list(PICTURES).index(name))) for name in ("hammer", "bicycle", "dog")
        }
        assert sent == wanted
        assert set(BlobStore(made.workspace.blobs).hashes()) == wanted
        told = " ".join(part["text"] for content in first for part in content if part["type"] == "text")
        assert "work bench" not in told


def test_the_budget_stops_the_stage_and_it_goes_on(tmp_path: Path) -> None:
    with build(tmp_path) as made:
        made.change(budget={"total": None, "stages": {"respond": 0.008}})
        with pytest.raises(BudgetError, match=r"budget\.stages\.respond"):
            made.run()
        before = made.sent
        assert before < 5
        made.change(budget={"total": 10.0, "stages": {}})
        made.run()
        assert made.sent == 5
        assert len(made.rows()) == 5


def made_before(made: Build) -> None:
    """Write down that the stages before respond are up to date."""
    workspace = made.workspace
    write_rows(workspace.stage_dir("synthesize") / "queries.parquet", QUERIES, [])
    for name in ("collect", "generate", "curate", "label_images", "synthesize", "label_pairs"):
        folder = workspace.stage_dir(name)
        folder.mkdir(parents=True, exist_ok=True)
        outs = {}
        for path in sorted(folder.iterdir()):
            stat = path.stat()
            digest = sha256_bytes(path.read_bytes())
            outs[path.name] = {"sha256": digest, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        record = {"key": stage_key(workspace, STAGES[name]), "seconds": 0.0, "outs": outs}
        write_json(workspace.state / "stages" / f"{name}.json", record)


def test_plan_explain_and_garbage_know_of_responses(tmp_path: Path) -> None:
    bad = written(r"Take \g<picture> and go. Nobody will see the neighbour.")
    with build(tmp_path, answers=bad_first(bad)) as made:

        def planned() -> list[tuple[str, bool, int, int]]:
            return [
                (p.annotator, p.exact, p.wanted, p.answered)
                for p in plan(made.workspace)
                if p.stage == "respond"
            ]

        quotas = sum(sum(info.spec.quotas.values()) for info in made.workspace.classes())
        assert planned() == [("response-writer@writer", False, quotas, 0)]
        made_before(made)
        assert planned() == [("response-writer@writer", True, 5, 0)]
        assert made.sent == 0
        with open_cache(made.workspace.calls) as cache:
            assert sum(miss.calls for miss in explain(made.workspace, cache, "respond")) == 5
        made.run()
        assert made.sent == 7
        # What was asked again follows from answers that are kept.
        assert planned() == [("response-writer@writer", True, 7, 7)]
        assert run_stage(made.workspace, "respond", Silent())
        assert not run_stage(made.workspace, "respond", Silent())
        assert made.sent == 7
        assert planned() == [("response-writer@writer", True, 7, 7)]
        with open_cache(made.workspace.calls) as cache:
            found = garbage(made.workspace, cache, BlobStore(made.workspace.blobs))
            assert (found.blobs, found.calls) == ([], [])


def test_half_of_the_answers_make_half_of_the_plan(tmp_path: Path) -> None:
    bad = written(r"Take \g<picture> and go. Nobody will see the neighbour.")
    with build(tmp_path, ROWS[:1], answers=bad_first(bad), respond={"attempts": 1}) as made:
        made.run()
        made.change(respond={"writer": "writer", "attempts": 3})
        with open_panel(made.workspace, "respond", sends=False) as panel:
            ((asker, calls),) = requests(made.workspace, panel)
        with open_cache(made.workspace.calls) as cache:
            known = cache.has([call.key for _, call in calls])
        assert (asker.voter.name, len(calls), len(known)) == ("writer", 2, 1)
        assert "not valid: does not refuse" in str(calls[1][1].messages[-1]["content"])


def test_without_a_writer_nothing_is_asked_and_queries_of_no_scene_fail(tmp_path: Path) -> None:
    with build(tmp_path, respond={"writer": None}) as made:
        labels = made.workspace.stage_dir("label_images") / "labels.parquet"
        rows = [
            blank(IMAGE_LABELS) | {"image_id": sha256_text(name), "image_safe": safe, "accepted": True}
            for name, (_, safe, _) in PICTURES.items()
        ]
        write_rows(labels, IMAGE_LABELS, rows)
        assert [p for p in plan(made.workspace) if p.stage == "respond"] == []
        made.run()
        assert made.sent == 0
        assert made.rows() == []
        assert {row["reason"] for row in made.rows("failures")} == {"no template for a response"}
        assert all("respond.writer" in row["detail"] for row in made.rows("failures"))
        assert not (made.out / "calls.parquet").exists()


@pytest.mark.parametrize(
    ("respond", "message"),
    [
        ({"writer": "nobody"}, r"respond\.writer: there is no endpoint 'nobody'"),
        ({"writer": "local"}, "scripted endpoints and real ones"),
        ({"attempts": 0}, "respond.attempts"),
        ({"style": "kind"}, "respond.style"),
    ],
)
def test_params_are_checked(tmp_path: Path, respond: dict[str, Any], message: str) -> None:
    with build(tmp_path) as made:
        local = yaml.safe_load((REPOSITORY / "params.yaml").read_text())["endpoints"]
        made.change(endpoints=up(made) | local, respond={"writer": "writer", "attempts": 3} | respond)
        with pytest.raises(InputError, match=message):
            _ = made.workspace.params


def test_the_key_knows_writer_attempts_and_prompts(tmp_path: Path) -> None:
    with build(tmp_path) as made:
        made_before(made)
        keys = {stage_key(made.workspace, STAGES["respond"])}
        made.change(respond={"writer": "writer", "attempts": 2})
        keys.add(stage_key(made.workspace, STAGES["respond"]))
        made.change(respond={"writer": "judge", "attempts": 2})
        keys.add(stage_key(made.workspace, STAGES["respond"]))
        prompt = tmp_path / "prompts" / "respond" / "refuse.yaml"
        prompt.write_text(prompt.read_text().replace("plain and even", "even and plain"))
        keys.add(stage_key(made.workspace, STAGES["respond"]))
        assert len(keys) == 4


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  Request: {request}\n", "  Request: {query}\n", "unknown slot"),
        ("  Style: {style}\n", "", "the slot 'style' is missing"),
        ("      style: gentle\n", "      style: loud\n", "there is no style 'loud'"),
        ("        harm_class: damage_to_nature\n", "", "examples.1.answer"),
        ("schema: rationale, response", "schema: response", "examples.0.answer"),
        ("      request_is: unsafe\n", "", "examples.1.slots"),
    ],
)
def test_a_wrong_prompt_names_file_and_field(tmp_path: Path, old: str, new: str, message: str) -> None:
    shutil.copytree(REPOSITORY / "prompts" / "respond", tmp_path / "respond")
    path = tmp_path / "respond" / "refuse.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=re.escape(str(path))) as raised:
        load_writer_prompts(tmp_path / "respond")
    assert message in str(raised.value)


def test_styles_are_shared_out_and_a_new_one_moves_no_other_pair() -> None:
    prompt = load_writer_prompts(REPOSITORY / "prompts" / "respond")["refuse"]
    ids = [sha256_text(str(n)) for n in range(600)]
    before = {i: prompt.style_of(i, 1) for i in ids}
    assert set(before.values()) == set(prompt.styles)
    assert before == {i: prompt.style_of(i, 1) for i in ids}
    assert before != {i: prompt.style_of(i, 2) for i in ids}
    more = prompt.model_copy(update={"styles": {**prompt.styles, "new": "in a new way"}})
    moved = {i for i in ids if more.style_of(i, 1) != before[i]}
    assert {more.style_of(i, 1) for i in moved} == {"new"}
    assert 0.5 < len(moved) / (len(ids) / len(more.styles)) < 1.5
