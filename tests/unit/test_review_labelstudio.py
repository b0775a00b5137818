"""Label Studio: tasks out, annotations back as votes, and what is wrong with a task told by its number."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.review import ReviewSet, ReviewStore, build_queues, open_review_set
from pipeline.review.labelstudio import export_tasks, import_tasks, reviewer_of
from schemas.errors import InputError
from schemas.taxonomy import PAIR_TYPES
from tests.review import QUESTIONS, own_row, own_set, vote


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> ReviewSet:
    rows = [own_row(n) for n in range(6)] + [own_row(9, "What else is there?", image=3)]
    for one in rows:
        one["votes"] = [vote("image_safe", "model-a", "unsafe"), vote("image_class", "model-a", "race")]
    return open_review_set(str(own_set(tmp_path_factory.mktemp("ls"), rows)))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ReviewStore]:
    with ReviewStore(tmp_path / "r.sqlite") as opened:
        yield opened


def exported(items: ReviewSet, out: Path, **options: Any) -> list[dict[str, Any]]:
    export_tasks(items, build_queues(items, None, 0, 300)["random"], out, **options)
    told: list[dict[str, Any]] = json.loads((out / "tasks.json").read_text())
    return told


def annotation(*values: str, who: Any = 7, id_: int = 1, note: str = "") -> dict[str, Any]:
    result: list[dict[str, Any]] = [
        {"id": "x", "from_name": q, "to_name": "query", "type": "choices", "value": {"choices": [v]}}
        for q, v in zip(QUESTIONS, values, strict=True)
    ]
    if note:
        result.append(
            {"from_name": "note", "to_name": "query", "type": "textarea", "value": {"text": [note]}}
        )
    return {"id": id_, "completed_by": who, "created_at": "2026-03-01T10:00:00.5Z", "result": result}


def write(folder: Path, tasks: Any) -> Path:
    path = folder / "done.json"
    path.write_text(tasks if isinstance(tasks, str) else json.dumps(tasks))
    return path


def test_tasks_hold_what_is_judged_and_nothing_that_was_said_of_it(items: ReviewSet, tmp_path: Path) -> None:
    tasks = exported(items, tmp_path / "out")
    order = build_queues(items, None, 0, 300)["random"].order
    assert [task["data"]["row_id"] for task in tasks] == [str(items.ids[at]) for at in order]
    for task in tasks:
        assert task["predictions"] == []
        prefix, name = task["data"]["image"].split("?d=")
        assert prefix == "/data/local-files/"
        with Image.open(tmp_path / "out" / name) as picture:
            assert picture.format == "JPEG"
    assert len(list((tmp_path / "out" / "images").iterdir())) == 6
    text = (tmp_path / "out" / "tasks.json").read_text()
    for hidden in (*PAIR_TYPES, "model-a", "race", "weapon_related_violence"):
        assert f'"{hidden}"' not in text


def test_the_config_asks_what_the_tasks_can_answer(items: ReviewSet, tmp_path: Path) -> None:
    [task, *_] = exported(items, tmp_path / "out", prefix="https://files.test/")
    view = ET.parse(tmp_path / "out" / "config.xml").getroot()  # noqa: S314 - our own
    values = {
        tag.attrib["value"].removeprefix("$") for tag in view if tag.attrib.get("value", "").startswith("$")
    }
    assert values <= set(task["data"])
    choices = {tag.attrib["name"]: [c.attrib["value"] for c in tag] for tag in view if tag.tag == "Choices"}
    assert choices == {q: ["safe", "unsafe", "skip"] for q in QUESTIONS}
    assert {tag.attrib["toName"] for tag in view if "toName" in tag.attrib} <= {
        t.attrib.get("name") for t in view
    }
    assert task["data"]["image"].startswith("https://files.test/images/")


def test_votes_go_out_as_predictions_only_where_they_are_asked_for(items: ReviewSet, tmp_path: Path) -> None:
    for task in exported(items, tmp_path / "out", with_votes=True):
        [told] = task["predictions"]
        assert told["model_version"] == "model-a"
        assert [(r["from_name"], r["value"]["choices"]) for r in told["result"]] == [
            ("image_safe", ["unsafe"])
        ]


def test_what_went_out_and_was_answered_comes_back(
    items: ReviewSet, store: ReviewStore, tmp_path: Path
) -> None:
    tasks = exported(items, tmp_path / "out")
    who = {"id": 3, "email": "anna.k@example.org"}
    for number, task in enumerate(tasks):
        task["annotations"] = [annotation("safe", ("safe", "unsafe")[number % 2], "skip", who=who, note="so")]
    tasks[0]["annotations"].append(annotation("unsafe", "unsafe", "unsafe", who=12, id_=2))
    path = write(tmp_path, tasks)
    done = import_tasks(store, items, path)
    assert (done.annotations, done.there, done.problems) == (8, 0, [])
    anna = reviewer_of("anna.k@example.org")
    assert done.reviewers == {"anna.k@example.org": anna, "12": "ls-12"}
    own = store.own(anna, "")
    for number, task in enumerate(tasks):
        at = items.position[int(task["data"]["row_id"])]
        assert own["text_safe", items.item(at, "text_safe")] == "safe"
        assert own["pair_safe", items.item(at, "pair_safe")] == "skip"
        if items.item(at, "image_safe") != items.item(items.position[own_row(3)["id"]], "image_safe"):
            assert own["image_safe", items.item(at, "image_safe")] == ("safe", "unsafe")[number % 2]
    given = store.votes("")
    assert {(v.time, v.queue, v.gold, v.blind) for v in given} == {
        ("2026-03-01T10:00:00.500000Z", "label-studio", False, True)
    }
    assert {v.note for v in given if v.reviewer == anna} == {"so"}
    again = import_tasks(store, items, path)
    assert (again.annotations, again.there) == (0, 8)
    assert len(store.votes("")) == len(given)


def test_gold_is_what_was_said_to_be_and_was_blind(
    items: ReviewSet, store: ReviewStore, tmp_path: Path
) -> None:
    tasks = exported(items, tmp_path / "out")[:2]
    for task in tasks:
        task["annotations"] = [annotation("safe", "safe", "safe")]
    tasks[1]["predictions"] = [{"result": []}]
    import_tasks(store, items, write(tmp_path, tasks), gold=True)
    assert [v.gold for v in store.votes("")] == [True] * 3 + [False] * 3


def test_somebody_may_be_named_and_a_cancelled_annotation_is_none(
    items: ReviewSet, store: ReviewStore, tmp_path: Path
) -> None:
    [task, *_] = exported(items, tmp_path / "out")
    task["annotations"] = [annotation("safe", "safe", "safe"), annotation("unsafe", "safe", "safe", id_=2)]
    task["annotations"][1]["was_cancelled"] = True
    done = import_tasks(store, items, write(tmp_path, [task]), names={"7": "anna"})
    assert done.reviewers == {"7": "anna"}
    assert {v.value for v in store.votes("")} == {"safe"}
    with pytest.raises(InputError, match="--name 7=a b"):
        import_tasks(store, items, write(tmp_path, [task]), names={"7": "a b"})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: 3, "task 2: is int, not an object"),
        (lambda t: t | {"data": None}, "task 2: data: missing"),
        (lambda t: t | {"data": t["data"] | {"row_id": "99"}}, "data.row_id: no row '99'"),
        (lambda t: t | {"data": t["data"] | {"row_id": 5}}, "data.row_id: no row 5"),
        (
            lambda t: t | {"data": t["data"] | {"image_safe_item": "x"}},
            "data.image_safe_item: is not that of row",
        ),
        (lambda t: t | {"annotations": {}}, "annotations: not a list"),
        (lambda t: t | {"annotations": [3]}, "annotation 1: is int"),
        (
            lambda t: t | {"annotations": [annotation("safe", "safe", "maybe")]},
            "pair_safe: ['maybe'] is not one of",
        ),
        (
            lambda t: t | {"annotations": [annotation("safe", "safe", "safe", who=None)]},
            "completed_by: neither",
        ),
        (lambda t: t | {"annotations": [annotation("safe", "safe", "safe", note="x" * 201)]}, "note: 201"),
        (
            lambda t: t | {"annotations": [annotation("safe", "safe", "safe") | {"created_at": "soon"}]},
            "is no time",
        ),
        (
            lambda t: t | {"annotations": [annotation("safe", "safe", "safe") | {"result": []}]},
            "answers none of",
        ),
        (
            lambda t: t | {"annotations": [annotation("safe", "safe", "safe") | {"result": [3]}]},
            "is no answer",
        ),
        (
            lambda t: t | {"annotations": [annotation("safe", "safe", "safe") | {"result": None}]},
            "not a list",
        ),
    ],
)
def test_a_task_that_cannot_be_used_is_told_and_the_others_are(
    items: ReviewSet, store: ReviewStore, tmp_path: Path, change: Any, said: str
) -> None:
    tasks = exported(items, tmp_path / "out")[:3]
    for task in tasks:
        task["annotations"] = [annotation("safe", "safe", "safe")]
    tasks[1] = change(tasks[1])
    done = import_tasks(store, items, write(tmp_path, tasks))
    [problem] = done.problems
    assert said in problem
    assert problem.startswith("task 2: ")
    assert done.annotations == 2


@pytest.mark.parametrize(
    ("told", "said"), [("{", "not JSON"), ("{}", "holds dict"), ("[" * 99_999, "not JSON")]
)
def test_a_file_that_is_no_export_is_refused(
    items: ReviewSet, store: ReviewStore, tmp_path: Path, told: str, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        import_tasks(store, items, write(tmp_path, told))
    with pytest.raises(InputError, match="cannot be read"):
        import_tasks(store, items, tmp_path / "nowhere.json")


@pytest.mark.parametrize(
    "who", ["anna@example.org", "änna@example.org", "@", "-", "x" * 200, "../../etc", "a b", "7", "٣"]
)
def test_a_name_made_of_what_label_studio_says_may_go_out(who: str) -> None:
    from pipeline.review.desk import NAME

    assert NAME.fullmatch(reviewer_of(who))
    assert "example" not in reviewer_of(who)
    assert reviewer_of("anna@a.org") != reviewer_of("anna@b.org")


def test_a_folder_that_is_there_is_not_written_over(items: ReviewSet, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--out"):
        export_tasks(items, build_queues(items, None, 0, 3)["random"], tmp_path)
