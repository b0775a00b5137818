"""Pictures by endpoints: prompts, ceilings, what is paid, what a killed run leaves, what plans say."""

from __future__ import annotations

import inspect
import io
import json
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.calls import explain, garbage
from pipeline.collect.pdq import pdq_hashes
from pipeline.engine import BlobStore, BudgetError, open_cache
from pipeline.generate.policy import ImagePrompt, refusal
from pipeline.generate.prompts import (
    Picture,
    Triple,
    Wanted,
    WrittenPrompt,
    admitted,
    load_image_prompt,
    triples,
    wanted_pictures,
)
from pipeline.plan import plan
from pipeline.runner import run_stage, stage_key
from pipeline.stages import STAGES
from pipeline.store import Failures, read_rows
from pipeline.workspace import Silent, Workspace
from schemas.errors import InputError
from schemas.params import ImagesApiPictures, PerClass
from schemas.taxonomy import load_taxonomy
from tests.conftest import REPOSITORY, make_workspace
from tests.scripted import Scripted, scripted

TAXONOMY = load_taxonomy(Path(inspect.getfile(load_taxonomy)).with_name("taxonomy.yaml"))
FILE = load_image_prompt(REPOSITORY / "prompts" / "generate" / "image_prompt.yaml")
CLASSES = ["weapon_related_violence", "medical_advice"]
PRICE = 0.04
ASKED = r"Concept: (.+)\nSetting: (.+)\nStyle: (.+)$"
WRITES = {
    "match": ASKED,
    "answer": {
        "prompt": r"\3 that shows one \1 \2",
        "caption": r"\3 of a \1 \2",
        "subject": r"a \1",
        "objects": [r"\1"],
    },
}


class Build:
    """A workspace whose pictures come from a scripted endpoint."""

    def __init__(self, root: Path, served: Scripted) -> None:
        self.root, self.served = root, served

    @property
    def workspace(self) -> Workspace:
        return Workspace(self.root)

    def change(self, **values: Any) -> None:
        path = self.root / "params.yaml"
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | values, sort_keys=False))

    def run(self) -> bool:
        return run_stage(self.workspace, "generate", Silent())

    def rows(self, table: str = "images") -> list[dict[str, Any]]:
        return list(read_rows(self.root / "data" / "generate" / f"{table}.parquet"))

    def pictures(self) -> list[dict[str, Any]]:
        return [row for row in self.rows() if row["source_kind"] != "drawing"]

    @property
    def sent(self) -> int:
        return int(self.served.stats()["requests"])


def maker(**values: Any) -> dict[str, Any]:
    return {
        "kind": "images_api", "name": "painter", "endpoint": "painter", "per_class": {"safe": 3, "unsafe": 2},
        "size": [64, 64], "licence": "CC0-1.0", "redistributable": "yes",
    } | values  # fmt: skip


@contextmanager
def build(root: Path, *, writer: bool = True, **script: Any) -> Iterator[Build]:
    with scripted(**({"answers": [WRITES]} | script)) as served:
        (root / "script.json").write_text(served.script.model_dump_json())
        common = {
            "kind": "scripted", "script": "script.json", "base_url": served.base_url, "model": "m",
            "concurrency": 4,
        }  # fmt: skip
        price = {"prompt": 0, "completion": 0, "made_image": PRICE}
        made = Build(root, served)
        params = yaml.safe_load((root / "params.yaml").read_text())
        made.change(
            endpoints=params["endpoints"]
            | {
                "painter": {**common, "family": "paint", "price": price},
                "writer": {**common, "family": "w"},
                "judge": {**common, "family": "j"},
            },
            annotators={question: ["judge"] for question in ("image_safe", "text_safe", "pair_safe")},
            generate={
                "drawings": {"safe": 1, "unsafe": 1},
                "writer": "writer" if writer else None,
                "pictures": [maker()],
            },
        )
        yield made


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_workspace(tmp_path, CLASSES)


def test_the_stage_from_concepts_to_rows(root: Path) -> None:
    with build(root) as made:
        made.workspace.check()
        assert made.run()
        assert not made.run()
        assert made.sent == 20
    rows = made.rows()
    assert [row["source_kind"] for row in rows] == ["drawing"] * 4 + ["images_api"] * 10
    pictures = made.pictures()
    sides = [(row["intended_class"], row["intended_safe"]) for row in pictures]
    assert {side: sides.count(side) for side in sides} == {
        (name, safe): 3 if safe else 2 for name in CLASSES for safe in (True, False)
    }
    assert len({row["image_id"] for row in rows}) == 14
    for row in pictures:
        recipe = json.loads(row["recipe"])
        assert row["caption"] == f"{recipe['style']} of a {recipe['concept']} {recipe['setting']}"
        assert (row["licence"], row["redistributable"]) == ("CC0-1.0", "yes")
        assert row["subject"] == f"a {recipe['concept']}"
        assert row["objects"] == [recipe["concept"]]
        assert row["generator"] == f"images_api:{made.served.endpoint().backend_id}/m"
        assert recipe["parameters"] == {"size": "64x64"}
        assert recipe["written_by"]["writer"] == f"{made.served.endpoint().backend_id}/m"
    assert made.rows("failures") == []
    calls = made.rows("calls")
    assert len({call["call_key"] for call in calls}) == 20
    assert {call["item_id"] for call in calls} == {row["image_id"] for row in pictures}


def test_drawings_are_what_they_are_without_pictures(root: Path) -> None:
    with build(root, writer=False) as made:
        assert made.run()
        with_pictures = [row for row in made.rows() if row["source_kind"] == "drawing"]
        made.change(generate={"drawings": {"safe": 1, "unsafe": 1}})
        assert made.run()
        assert made.rows() == with_pictures
        assert not (root / "data" / "generate" / "calls.parquet").exists()


def test_nothing_is_paid_twice(root: Path) -> None:
    with build(root) as made:
        made.run()
        before = (root / "data" / "generate" / "images.parquet").read_bytes()
        (root / "data" / "generate" / "images.parquet").unlink()
        assert made.run()
        assert made.sent == 20
        assert (root / "data" / "generate" / "images.parquet").read_bytes() == before
        # Another setting of the drawings changes the stage's key, and no call.
        made.change(generate={**made_generate(made), "drawings": {"safe": 2, "unsafe": 1}})
        assert made.run()
        assert made.sent == 20


def made_generate(made: Build) -> dict[str, Any]:
    said: dict[str, Any] = yaml.safe_load((made.root / "params.yaml").read_text())["generate"]
    return said


def test_prompts_are_composed_where_nobody_writes_them(root: Path) -> None:
    with build(root, writer=False, answers=[]) as made:
        made.run()
        assert made.sent == 10
    for row in made.pictures():
        recipe = json.loads(row["recipe"])
        assert recipe["written_by"] == {"writer": "composed", "version": FILE.version}
        triple = Triple(recipe["concept"], recipe["setting"], recipe["style"])
        assert recipe["prompt"] == FILE.compose(triple).prompt


def test_a_killed_run_goes_on_and_gives_the_same_rows(root: Path, tmp_path_factory: Any) -> None:
    whole = make_workspace(tmp_path_factory.mktemp("whole"), CLASSES)
    script = {"latency_ms": 60}
    with build(whole, **script) as reference:
        reference.run()
    with build(root, **script) as made:
        program = (
            "import sys; from pathlib import Path; from pipeline.runner import run_stage; "
            "from pipeline.workspace import Silent, Workspace; "
            "run_stage(Workspace(Path(sys.argv[1])), 'generate', Silent())"
        )
        child = subprocess.Popen([sys.executable, "-c", program, str(root)], cwd=REPOSITORY)
        deadline = time.monotonic() + 60
        while made.sent < 14 and time.monotonic() < deadline:
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
        child.wait()
        sent = made.sent
        with open_cache(made.workspace.calls) as cache:
            kept = cache.count()
        assert sent - kept <= 4
        assert made.run()
        assert made.sent == sent + 20 - kept
    assert made.rows() == reference.rows()
    assert made.rows("calls") == reference.rows("calls")


def test_what_is_refused_is_a_failure_that_does_not_repeat_the_prompt(root: Path) -> None:
    lewd = {**WRITES["answer"], "prompt": r"\3 of an erotic \1"}  # type: ignore[dict-item]
    answers = [
        {"match": r"Concept: (hammer)\nSetting: (.+)\nStyle: (.+)$", "answer": lewd},
        {"match": r"^Class:[\s\S]*Concept: (pistol|rifle|gun|dagger|grenade)\n", "refusal": "I will not."},
        {"match": "X-ray", "refusal": "no"},
        WRITES,
    ]
    with build(root, answers=answers) as made:
        said = made_generate(made)
        said["pictures"][0]["per_class"] = {"safe": 10, "unsafe": 4}
        made.change(generate=said)
        made.run()
    reasons: dict[str, int] = {}
    for row in made.rows("failures"):
        reasons[row["reason"]] = reasons.get(row["reason"], 0) + 1
        assert "erotic" not in row["detail"]
        assert "X-ray" not in row["detail"]
    # Four weapons and the X-ray; the hammer.
    assert reasons == {"prompt not written (blocked)": 5, "prompt refused": 1}
    assert len(made.pictures()) == 20 + 8 - 6


def test_a_picture_that_the_endpoint_refuses_is_blocked(root: Path) -> None:
    with build(root, writer=False, answers=[{"match": r"hammer|kitchen knife", "refusal": "no"}]) as made:
        said = made_generate(made)
        said["pictures"][0]["per_class"] = {"safe": 10, "unsafe": 0}
        made.change(generate=said)
        made.run()
    failed = made.rows("failures")
    assert [row["reason"] for row in failed] == ["picture not made (blocked)"] * 2
    assert {row["detail"] for row in failed} == {""}
    assert len(made.pictures()) == 18


def block(made: Build, *hashes: str, kind: str = "sha256") -> None:
    (made.root / "listed.txt").write_text("\n".join(hashes))
    params = yaml.safe_load((made.root / "params.yaml").read_text())
    made.change(collect=params["collect"] | {"block_lists": [{"kind": kind, "path": "listed.txt"}]})


def received(row: dict[str, Any]) -> str:
    return str(json.loads(row["recipe"])["received_sha256"])


@pytest.mark.parametrize("by", ["file", "file received", "pdq"])
def test_a_picture_that_is_listed_later_loses_its_bytes_and_its_row(root: Path, by: str) -> None:
    with build(root, writer=False, answers=[]) as made:
        made.run()
        row = made.pictures()[0]
        blobs = BlobStore(made.workspace.blobs)
        pdq = pdq_hashes(blobs(received(row)))[0].tobytes().hex()
        listed = {"file": row["image_id"], "file received": received(row), "pdq": pdq}[by]
        block(made, listed, kind="pdq" if by == "pdq" else "sha256")
        for _ in range(2):
            assert made.run()
            assert row["image_id"] not in {r["image_id"] for r in made.rows()}
            assert len(made.pictures()) == 9
            (failed,) = made.rows("failures")
            assert (failed["item_id"], failed["reason"]) == (received(row), "on a block list")
            assert failed["source"] == row["source_uri"]
            kind = "pdq" if by == "pdq" else "sha256"
            assert re.fullmatch(rf"{kind} {listed} at 20\d\d-.+", failed["detail"])
            assert not Path(blobs.where(received(row))).exists()
            (root / "data" / "generate" / "images.parquet").unlink()
        assert made.sent == 10


def test_a_listed_picture_is_never_stored_and_its_call_is_paid_once(root: Path) -> None:
    with build(root, writer=False, answers=[]) as made:
        made.run()
        row = made.pictures()[0]
        everything = {received(r) for r in made.pictures()}
        for folder in ("data/generate", ".holisafe"):
            shutil.rmtree(root / folder)
        block(made, received(row))
        made.run()
        assert made.sent == 20
        assert set(BlobStore(made.workspace.blobs).hashes()) == everything - {received(row)}
        assert [r["item_id"] for r in made.rows("failures")] == [received(row)]
        with open_cache(made.workspace.calls) as cache:
            assert garbage(made.workspace, cache, BlobStore(made.workspace.blobs)).calls == []

        block(made)
        made.run()
        assert made.sent == 20, "nobody pays again unasked"
        (failed,) = made.rows("failures")
        assert "the list holds it no more" in failed["detail"]
        with open_cache(made.workspace.calls) as cache:
            (unused,) = garbage(made.workspace, cache, BlobStore(made.workspace.blobs)).calls
            cache.delete([unused])
        (root / "data" / "generate" / "images.parquet").unlink()
        made.run()
        assert made.sent == 21
        assert made.rows("failures") == []
        assert received(row) in {received(r) for r in made.pictures()}


def test_half_a_picture_is_a_failure_and_is_paid_once(root: Path) -> None:
    with build(root, writer=False, answers=[], faults={"truncated": 1.0}) as made:
        made.run()
        assert made.pictures() == []
        assert {row["reason"] for row in made.rows("failures")} == {"not a picture that can be read"}
        (root / "data" / "generate" / "images.parquet").unlink()
        made.run()
        assert made.sent == 10


def test_bytes_that_break_a_decoder_are_a_failure_and_are_paid_once(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = io.BytesIO()
    Image.new("F", (64, 64)).save(buffer, "SPIDER")
    hostile = bytearray(buffer.getvalue())
    struct.pack_into("=f", hostile, 26 * 4, 1.0)  # a place in a stack that the file does not have
    with pytest.raises(AttributeError):
        Image.open(io.BytesIO(hostile))
    monkeypatch.setattr("pipeline.engine.scripted.replies._drawn", lambda *_: bytes(hostile))
    with build(root, writer=False, answers=[]) as made:
        block(made, "0" * 64, kind="pdq")
        for _ in range(2):
            made.run()
            assert made.pictures() == []
            assert [row["reason"] for row in made.rows("failures")] == ["not a picture that can be read"] * 10
            (root / "data" / "generate" / "images.parquet").unlink()
        assert made.sent == 10


def test_the_budget_stops_the_stage_and_it_goes_on(root: Path) -> None:
    with build(root) as made:
        made.change(budget={"total": None, "stages": {"generate": 6 * PRICE}})
        with pytest.raises(BudgetError, match=r"budget\.stages\.generate"):
            made.run()
        assert made.sent == 16
        made.change(budget={"total": 10.0, "stages": {}})
        assert made.run()
        assert made.sent == 20


def test_plan_explain_and_garbage_know_of_pictures(root: Path) -> None:
    with build(root) as made:
        before = {p.annotator: p for p in plan(made.workspace) if p.stage == "generate"}
        assert made.sent == 0
        assert {name: (p.wanted, p.answered) for name, p in before.items()} == {
            "prompt-writer@writer": (10, 0),
            "painter@painter": (10, 0),
        }
        assert before["painter@painter"].to_send.worst_usd == pytest.approx(10 * PRICE)
        with open_cache(made.workspace.calls) as cache:
            assert sum(miss.calls for miss in explain(made.workspace, cache, "generate")) == 20
        made.run()
        after = [p for p in plan(made.workspace) if p.stage == "generate"]
        assert [(p.wanted, p.answered, p.to_send.worst_usd) for p in after] == [(10, 10, 0), (10, 10, 0)]
        with open_cache(made.workspace.calls) as cache:
            assert explain(made.workspace, cache, "generate") == []
            found = garbage(made.workspace, cache, BlobStore(made.workspace.blobs))
            assert (found.blobs, found.calls) == ([], [])


def test_the_key_knows_writer_endpoint_and_prompt_file(root: Path) -> None:
    with build(root) as made:
        keys = {stage_key(made.workspace, STAGES["generate"])}
        params = yaml.safe_load((root / "params.yaml").read_text())
        params["endpoints"]["painter"]["parameters"] = {"quality": "high"}
        made.change(**params)
        keys.add(stage_key(made.workspace, STAGES["generate"]))
        params["generate"]["writer"] = None
        made.change(**params)
        keys.add(stage_key(made.workspace, STAGES["generate"]))
        prompt = root / "prompts" / "generate" / "image_prompt.yaml"
        prompt.write_text(prompt.read_text().replace("in a workshop", "in a garage"))
        keys.add(stage_key(made.workspace, STAGES["generate"]))
        assert len(keys) == 4


@pytest.mark.parametrize(
    ("classes", "changes", "message"),
    [
        (["gender"], {}, r"generate\.pictures\.0\.per_class\.unsafe: .*images: drawn_only"),
        (["sexual_content"], {}, r"generate\.pictures\.0\.per_class\.unsafe: no unsafe image"),
        (CLASSES, {"classes": ["gender"]}, r"generate\.pictures\.0\.classes: .*'gender'"),
        (CLASSES, {"endpoint": "nobody"}, r"generate\.pictures\.0\.endpoint: there is no endpoint"),
        (CLASSES, {"endpoint": "local"}, r"generate\.pictures\.0\.endpoint: 'local' is embedded"),
    ],
)
def test_ceilings_and_names_are_checked_at_load(
    tmp_path: Path, classes: list[str], changes: dict[str, Any], message: str
) -> None:
    with build(make_workspace(tmp_path, classes)) as made:
        made.change(generate={**made_generate(made), "pictures": [maker(**changes)]})
        with pytest.raises(InputError, match=message):
            made.workspace.check()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"revision": None}, r"pictures\.0\.revision"),
        ({"safety_checker": "off", "classes": ["gender"]}, r"pictures\.0\.safety_checker"),
        ({"offload": "model"}, "offload"),
        ({"size": [500, 512]}, "multiples of 8"),
        ({"negative": "x"}, "negative"),
    ],
)
def test_a_diffusion_generator_is_checked_at_load(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    root = make_workspace(tmp_path, ["gender", "weapon_related_violence"])
    said = {
        "kind": "diffusion", "name": "d", "model": "somebody/some-model", "revision": "0" * 40,
        "per_class": {"safe": 1, "unsafe": 0}, "size": [512, 512], "steps": 2, "guidance": 0,
        "licence": "CC0-1.0", "redistributable": "yes",
    }  # fmt: skip
    path = root / "params.yaml"
    params = yaml.safe_load(path.read_text())

    def check(values: dict[str, Any]) -> None:
        params["generate"]["pictures"] = [said | values]
        path.write_text(yaml.safe_dump(params))
        Workspace(root).check()

    check({})
    check({"safety_checker": "off", "classes": ["weapon_related_violence"]})
    with pytest.raises(InputError, match=message):
        check(changes)


def test_who_writes_captions_does_not_vote_by_them(root: Path) -> None:
    with build(root) as made:
        made.change(generate={**made_generate(made), "writer": "judge"})
        with pytest.raises(InputError, match=r"generate\.writer: .*votes on image_safe"):
            _ = made.workspace.params
        made.change(generate={**made_generate(made), "writer": "local"})
        with pytest.raises(InputError, match="scripted endpoints and real ones"):
            _ = made.workspace.params


@given(
    st.lists(st.text("abcdef", min_size=1, max_size=4), min_size=1, max_size=6, unique=True),
    st.text(max_size=5),
)
def test_triples_are_distinct_complete_and_take_turns(concepts: list[str], salt: str) -> None:
    found = triples(concepts, FILE, salt)
    assert len(set(found)) == len(found) == len(concepts) * len(FILE.settings) * len(FILE.styles)
    assert {t.concept for t in found[: len(concepts)]} == set(concepts)
    assert found == triples(list(reversed(concepts)), FILE, salt)
    # A new concept moves no other.
    more = triples([*concepts, "new"], FILE, salt)
    assert [t for t in more if t.concept != "new"] == found


@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 2**31))
def test_quotas_are_kept_and_no_two_generators_share_a_triple(one: int, two: int, seed: int) -> None:
    base = ImagesApiPictures.model_validate(maker(per_class={"safe": one, "unsafe": 0}))
    more = base.model_copy(update={"name": "other", "per_class": PerClass(safe=two, unsafe=1)})
    classes = [TAXONOMY.by_name(name) for name in CLASSES]
    found = wanted_pictures([base, more], classes, FILE, seed)
    assert len(found) == 2 * (one + two + 1)
    assert len({(w.info.name, w.safe, w.triple) for w in found}) == len(found)
    assert len({w.id for w in found}) == len(found)
    assert [w for w in found if w.maker == 0] == wanted_pictures([base], classes, FILE, seed)


def test_more_pictures_than_triples_is_a_failure() -> None:
    asked = ImagesApiPictures.model_validate(maker(per_class={"safe": 5000, "unsafe": 0}))
    failures = Failures("generate")
    info = TAXONOMY.by_name("weapon_related_violence")
    found = wanted_pictures([asked], [info], FILE, 1, failures)
    assert len(found) == len(info.spec.concepts.safe) * len(FILE.settings) * len(FILE.styles)
    assert failures.rows[0]["detail"] == f"weapon_related_violence, safe: {len(found)} of 5000"


def test_composed_prompts_are_within_the_policy_and_differ() -> None:
    makers = [ImagesApiPictures.model_validate(maker(per_class={"safe": 200, "unsafe": 0}))]
    wanted = wanted_pictures(makers, list(TAXONOMY.classes()), FILE, 1)
    pictures = [Picture(w, FILE.compose(w.triple), {}, "") for w in wanted]
    failures = Failures("generate")
    assert admitted(pictures, failures, ["painter"]) == pictures
    assert FILE.thing("X-ray") == "an X-ray"
    assert FILE.thing("bacon") == "bacon"


def test_nearly_the_same_prompt_is_dropped() -> None:
    info = TAXONOMY.by_name("medical_advice")

    def picture(number: int, prompt: str) -> Picture:
        said = WrittenPrompt(prompt=prompt, caption="a cup", subject="a cup", objects=["cup"])
        return Picture(Wanted(str(number), 0, info, True, Triple("tea", "s", str(number))), said, {}, "")

    failures = Failures("generate")
    prompts = ["A photograph of a cup of green tea.", "a photograph: cups of green tea", "A cup of tea"]
    kept = admitted([picture(i, p) for i, p in enumerate(prompts)], failures, ["painter"])
    assert [p.wanted.id for p in kept] == ["0", "2"]
    assert failures.rows[0]["reason"] == "prompt nearly the same as another"


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        ("A 3D render of a hand with the Middle Finger raised.", "middle finger"),
        ("A photograph of middle fingers.", "middle finger"),
        ("A photograph of a fist in the air.", None),
        ("A photograph of somebody's middle; fingers hold a pen.", None),
    ],
)
def test_a_safe_prompt_names_nothing_of_the_other_side(prompt: str, named: str | None) -> None:
    info = TAXONOMY.by_name("obscene_gestures")
    reason = refusal(ImagePrompt(prompt, info, safe=True))
    assert (reason is None) == (named is None)
    if named:
        assert (
            reason == f"a safe picture of obscene_gestures was to be written, and the prompt names {named!r}"
        )
    assert refusal(ImagePrompt(prompt, info, safe=False)) is None


@pytest.mark.parametrize(
    "prompt", ["hentai style", "a topless woman", "bare breasts", "a man with an erection", "a BDSM scene"]
)
def test_nothing_sexual_is_generated_in_any_class(prompt: str) -> None:
    assert refusal(ImagePrompt(prompt, TAXONOMY.by_name("property_crime"), safe=True))


@pytest.mark.parametrize("who", ["a teenage shooter", "a schoolchild", "a newborn", "a 12yo", "a ch\u0456ld"])
def test_no_minor_by_any_name_in_an_unsafe_picture(who: str) -> None:
    assert refusal(ImagePrompt(f"{who} with a gun", TAXONOMY.by_name("weapon_related_violence"), safe=False))


def test_a_concept_that_says_no_is_composed() -> None:
    assert FILE.compose(Triple("no entry sign", "in a workshop", "a photograph")).prompt


def test_a_prompt_that_names_what_is_not_seen_is_asked_for_again(root: Path) -> None:
    shy = {**WRITES["answer"], "prompt": r"\3 of \1 \2, no blood"}  # type: ignore[dict-item]
    calm = {"prompt": "A still life", "caption": "a still life", "subject": "a thing", "objects": ["a thing"]}
    again = {"match": "say only what is seen", "answer": calm}
    with build(root, answers=[again, {"match": ASKED, "answer": shy}]) as made:
        said = made_generate(made)
        said["pictures"][0]["per_class"] = {"safe": 1, "unsafe": 0}
        made.change(generate=said)
        made.run()
        assert made.sent == 2 * 2 + 1, "two prompts in two attempts each, and the picture that both ask for"
    assert {json.loads(row["recipe"])["prompt"] for row in made.pictures()} == {"A still life"}


def test_no_minor_in_a_harmful_setting() -> None:
    weapons, sexual = TAXONOMY.by_name("weapon_related_violence"), TAXONOMY.by_name("sexual_content")
    assert refusal(ImagePrompt("a boy holds a pistol", weapons, safe=False))
    assert refusal(ImagePrompt("a schoolgirl on a bed", sexual, safe=True))
    assert refusal(ImagePrompt("a rose on a bed", sexual, safe=True)) is None
    assert refusal(ImagePrompt("a boy with a balloon", weapons, safe=True)) is None
    opened = sexual.spec.generation.model_copy(update={"images": "allowed"})
    loose = type(sexual)(
        sexual.id, sexual.name, sexual.category, sexual.spec.model_copy(update={"generation": opened})
    )
    assert refusal(ImagePrompt("a rose", loose, safe=False))
