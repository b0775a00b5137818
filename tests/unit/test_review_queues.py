"""What a dataset's rows are called by votes, and in which order they come up."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline.anyset import AnySet, Problems
from pipeline.anyset.table import FilePictures
from pipeline.review import RANDOM, ReviewSet, build_queues, open_review_set, read_suspects
from pipeline.review.items import ReviewSet as Items
from pipeline.store import sha256_text
from pipeline.synthesize.squares import Candidate, row_id_of
from schemas.errors import InputError
from schemas.taxonomy import PAIR_TYPES
from tests.built import built, row
from tests.review import own_row, own_set, vote


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> ReviewSet:
    rows = [own_row(n) for n in range(30)]
    rows[3]["votes"] = [vote("text_safe", "a", "safe"), vote("text_safe", "b", "unsafe")]
    rows[4]["votes"] = [
        vote("pair_safe", n, v) for n, v in zip("abc", ("safe", "safe", "unsafe"), strict=True)
    ]
    rows[5]["votes"] = [vote("image_safe", "a", "safe"), vote("image_safe", "b", None, status="error")]
    rows[6]["votes"] = [vote("image_class", "a", "race"), vote("image_class", "b", "safe")]
    return open_review_set(str(own_set(tmp_path_factory.mktemp("own"), rows)))


def test_a_builds_rows_are_named_as_its_stages_name_them(own: ReviewSet) -> None:
    assert own.ours
    assert own.scope == ""
    at = own.position[own_row(7)["id"]]
    told = own.row(at)
    candidate = Candidate(told["image_id"], told["query"], "", "", 0, "", "", "", "SSS", "")
    assert dict(own.keys(at)) == {
        "text_safe": sha256_text(told["query"]),
        "image_safe": told["image_id"],
        "pair_safe": candidate.pair_id,
    }
    assert (
        own.public_item("pair_safe", candidate.pair_id)
        == str(row_id_of(candidate.pair_id))
        == str(own.ids[at])
    )


@pytest.mark.parametrize("change", [{"query": "Another question?"}, {"lang": "de"}, {"query_id": "0" * 64}])
def test_a_dataset_whose_ids_are_not_those_of_a_build_is_kept_apart(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    rows = [own_row(n) for n in range(3)]
    rows[1] |= change
    found = open_review_set(str(own_set(tmp_path, rows)))
    assert not found.ours
    assert found.scope == found.fingerprint
    assert dict(found.keys(0))["pair_safe"] == str(found.ids[0])


def test_a_translation_has_the_pair_id_of_its_language(tmp_path: Path) -> None:
    told = own_row(1, "Was steht da?", lang="de")
    told["query_id"] = sha256_text(f"{told['image_id']}\n{told['query']}\nde")
    assert open_review_set(str(own_set(tmp_path, [told]))).ours


def test_the_fingerprint_is_of_rows_and_not_of_labels(tmp_path: Path) -> None:
    one = open_review_set(str(own_set(tmp_path / "a", [own_row(1), own_row(2)])))
    relabelled = own_set(tmp_path / "b", [own_row(1, kind="UUU", name="race"), own_row(2, name="race")])
    fewer = open_review_set(str(own_set(tmp_path / "c", [own_row(1)])))
    other = open_review_set(str(relabelled))
    assert sorted(other.ids) == sorted(one.ids)
    assert fewer.fingerprint != one.fingerprint


def test_classes_of_a_row_are_its_subcategory_and_its_harm(tmp_path: Path) -> None:
    told = own_row(1, name="race", class_key="holisafe/violence/terrorism")
    found = open_review_set(str(own_set(tmp_path, [told, own_row(2, name="race")])))
    assert sorted(found.classes) == [("race",), ("race", "terrorism")]
    queues = build_queues(found, None, 0, 10)
    assert len(queues["class:terrorism"].order) == 1
    assert len(queues["class:race"].order) == 2


def test_the_random_queue_is_even_stable_and_the_same_for_everybody(own: ReviewSet) -> None:
    order = build_queues(own, None, 5, 300)[RANDOM].order
    assert sorted(order) == list(range(30))
    assert order == build_queues(own, None, 5, 300)[RANDOM].order
    assert order != build_queues(own, None, 6, 300)[RANDOM].order
    cells = [(own.row(at)["subcategory"], own.row(at)["type"]) for at in order]
    assert Counter(cells[:10]) == dict.fromkeys(cells, 1), "one of every cell before a second of any"
    assert build_queues(own, None, 5, 12)[RANDOM].order == order[:12]


def test_the_order_does_not_depend_on_where_rows_stand(own: ReviewSet) -> None:
    turned = own.data.rows.iloc[::-1].reset_index(drop=True)
    data = AnySet("x", "parquet", turned, own.data.votes, own.data.pictures, own.data.problems)
    items = {q: list(reversed(ids)) for q, ids in own.items.items()}
    other = Items(data, own.fingerprint, own.ours, list(reversed(own.ids)), items)
    for queue, again in zip(
        build_queues(own, None, 1, 30).values(), build_queues(other, None, 1, 30).values(), strict=True
    ):
        assert [own.ids[at] for at in queue.order] == [other.ids[at] for at in again.order], queue.name


def test_disagreements_are_rows_whose_votes_differ_most_divided_first(own: ReviewSet) -> None:
    queue = build_queues(own, None, 0, 30)["disagreements"]
    assert [own.ids[at] for at in queue.order] == [own_row(3)["id"], own_row(4)["id"]]


def test_an_image_that_votes_differ_on_comes_up_once(tmp_path: Path) -> None:
    rows = [own_row(n, image=1) for n in (1, 2, 3)]
    for one in rows:
        one["votes"] = [vote("image_safe", "a", "safe"), vote("image_safe", "b", "unsafe")]
    found = open_review_set(str(own_set(tmp_path, rows)))
    assert len(build_queues(found, None, 0, 30)["disagreements"].order) == 1


def test_without_votes_the_queue_says_so(tmp_path: Path) -> None:
    found = open_review_set(str(own_set(tmp_path, [own_row(1)])))
    queue = build_queues(found, None, 0, 30)["disagreements"]
    assert (queue.order, queue.about) == ((), "This dataset came without votes.")


def write_audit(folder: Path, told: Any) -> Path:
    (folder / "metrics.json").write_text(told if isinstance(told, str) else json.dumps(told))
    return folder


def test_suspects_come_as_the_audit_ranks_them(own: ReviewSet, tmp_path: Path) -> None:
    first, second = own_row(9), own_row(2)
    told = [
        {"item_id": str(first["id"]), "question": "pair_safe", "score": 0.9},
        {"item_id": sha256_text(second["query"]), "question": "text_safe"},
        {"item_id": first["image_id"], "question": "image_safe"},
        {"item_id": "99", "question": "pair_safe"},
    ]
    queue = build_queues(own, read_suspects(write_audit(tmp_path, {"suspects": told})), 0, 30)["suspects"]
    assert [own.ids[at] for at in queue.order] == [first["id"], second["id"]]
    assert "1 that it names are not in this dataset" in queue.about


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (None, "names no suspects, or none was given"),
        ([], "found no suspects"),
        ([("7", "x")], "found no suspects"),
    ],
)
def test_a_queue_without_suspects_says_why(own: ReviewSet, told: Any, said: str) -> None:
    queue = build_queues(own, told, 0, 30)["suspects"]
    assert queue.order == ()
    assert said in queue.about


def test_an_audit_without_suspects_names_none(tmp_path: Path) -> None:
    assert read_suspects(write_audit(tmp_path, {"rows": 3})) is None


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("{", "not JSON"),
        ({"suspects": 3}, "suspects: int, not a list"),
        (
            {"suspects": [{"item_id": "a", "question": "text_safe"}, {"item_id": 3}]},
            "number 2 has no item_id",
        ),
    ],
)
def test_a_damaged_audit_is_refused_by_its_file(tmp_path: Path, told: Any, said: str) -> None:
    with pytest.raises(InputError, match=said) as refused:
        read_suspects(write_audit(tmp_path, told))
    assert "metrics.json" in str(refused.value)


def test_no_audit_where_one_is_named_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--audit names the folder"):
        read_suspects(tmp_path)


def test_a_hundred_thousand_rows_are_queued_in_seconds() -> None:
    size = 100_000
    table = pd.DataFrame(
        {
            "id": range(size),
            "image": [f"{n % 40_000}.png" for n in range(size)],
            "query": [f"What is number {n}?" for n in range(size)],
            "type": [PAIR_TYPES[n % 5] for n in range(size)],
            "subcategory": [f"class {n % 19}" for n in range(size)],
        }
    )
    votes = pd.DataFrame(
        {
            "item_id": [str(n // 3) for n in range(3 * size)],
            "question": "pair_safe",
            "annotator": [f"m{n % 3}" for n in range(3 * size)],
            "family": "m",
            "status": "ok",
            "value": ["unsafe" if n % 7 == 0 else "safe" for n in range(3 * size)],
            "score": 0.5,
        }
    )
    data = AnySet("x", "bench", table, votes, FilePictures({}), Problems())
    began = time.process_time()
    items = Items(
        data, "f", False, list(range(size)),
        {
            "text_safe": [sha256_text(q) for q in table["query"]],
            "image_safe": table["image"].tolist(),
            "pair_safe": [str(n) for n in range(size)],
        },
    )  # fmt: skip
    queues = build_queues(items, [("5", "pair_safe")], 0, 300)
    assert len(queues["disagreements"].order) > 40_000
    assert time.process_time() - began < 6


def test_foreign_rows_are_named_by_image_text_and_row(tmp_path: Path) -> None:
    found = open_review_set(str(built(tmp_path / "d", [row(5), row(6, "SSU")])))
    assert not found.ours
    at = found.position[5]
    assert dict(found.keys(at))["pair_safe"] == found.public_item("pair_safe", "5") == "5"
