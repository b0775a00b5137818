"""The way back: what reviewers said stands where labels are made, and lines of others stay."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.review import (
    ReviewSet,
    ReviewStore,
    Screen,
    Target,
    default_target,
    flow_back,
    named_target,
    open_review_set,
)
from pipeline.review.votes import HEADER, pending
from pipeline.store import sha256_text
from schemas.errors import InputError
from schemas.reviews import REVIEWS, load_reviews
from tests.review import own_row, own_set


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> ReviewSet:
    return open_review_set(str(own_set(tmp_path_factory.mktemp("own"), [own_row(n) for n in range(4)])))


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> ReviewSet:
    rows = [own_row(n) | {"query_id": "0" * 64} for n in range(4)]
    return open_review_set(str(own_set(tmp_path_factory.mktemp("foreign"), rows)))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ReviewStore]:
    with ReviewStore(tmp_path / "r.sqlite") as opened:
        yield opened


def say(store: ReviewStore, items: ReviewSet, id_: str, *values: str, at: int = 0, **changes: Any) -> None:
    answers = {key[0]: (key[1], value) for key, value in zip(items.keys(at), values, strict=True)}
    screen = Screen(
        id_, items.fingerprint, items.scope, "anna", str(items.ids[at]), "random", answers, picture=True
    )
    store.add(replace(screen, **changes))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def test_lines_are_those_that_the_label_stages_read(
    items: ReviewSet, store: ReviewStore, tmp_path: Path
) -> None:
    say(store, items, "s1", "safe", "unsafe", "skip", note="why", time=datetime(2026, 3, 1, tzinfo=UTC))
    done = flow_back(store, items, Target(tmp_path / REVIEWS))
    assert (done.votes, done.added, done.dropped, done.skipped) == (2, 2, 0, 1)
    told = load_reviews(tmp_path, frozenset())
    assert [(v.question, v.item_id, v.value, v.annotator, v.note) for v in told] == [
        ("text_safe", items.item(0, "text_safe"), "safe", "anna", "why"),
        ("image_safe", items.item(0, "image_safe"), "unsafe", "anna", "why"),
    ]
    assert told[0].time == datetime(2026, 3, 1, tzinfo=UTC)
    assert pending(store, items, Target(tmp_path / REVIEWS)) == 0
    assert flow_back(store, items, Target(tmp_path / REVIEWS)).added == 0


HANDWRITTEN = [
    b'{"annotator": "ben",  "item_id": "' + b"b" * 64 + b'", "question": "image_safe", "value": "safe"}',
    b"",
    b"  not even JSON \xff",
]


def test_lines_of_others_stay_byte_for_byte(items: ReviewSet, store: ReviewStore, tmp_path: Path) -> None:
    path = tmp_path / "votes.jsonl"
    path.write_bytes(b"\n".join(HANDWRITTEN))  # and no end of line after the last
    say(store, items, "s1", "safe", "safe", "safe")
    flow_back(store, items, Target(path))
    assert path.read_bytes().split(b"\n")[:3] == HANDWRITTEN
    store.undo("anna", "")
    assert flow_back(store, items, Target(path)).dropped == 3
    assert path.read_bytes() == b"\n".join(HANDWRITTEN) + b"\n"


def test_a_line_that_somebody_changed_is_theirs(items: ReviewSet, store: ReviewStore, tmp_path: Path) -> None:
    path = tmp_path / "votes.jsonl"
    say(store, items, "s1", "safe", "safe", "safe")
    flow_back(store, items, Target(path))
    told = lines(path)
    changed = json.dumps(told[0] | {"note": "by hand"})
    path.write_text("\n".join([changed, *map(json.dumps, told[1:])]) + "\n")
    store.undo("anna", "")
    flow_back(store, items, Target(path))
    assert [v["note"] for v in lines(path)] == ["by hand"]


def test_a_changed_vote_takes_the_place_of_the_old(
    items: ReviewSet, store: ReviewStore, tmp_path: Path
) -> None:
    path = tmp_path / "votes.jsonl"
    say(store, items, "s1", "safe", "safe", "safe")
    flow_back(store, items, Target(path))
    say(store, items, "s2", "unsafe", "safe", "skip")
    done = flow_back(store, items, Target(path))
    assert (done.added, done.dropped, done.votes) == (2, 3, 2)
    assert [(v["question"], v["value"]) for v in lines(path)] == [
        ("text_safe", "unsafe"),
        ("image_safe", "safe"),
    ]


def test_only_lines_of_gold_have_the_mark(items: ReviewSet, store: ReviewStore, tmp_path: Path) -> None:
    say(store, items, "s1", "safe", "safe", "safe")
    say(store, items, "s2", "unsafe", "skip", "safe", at=1, queue="suspects")
    say(store, items, "s3", "safe", "safe", "safe", at=2, picture=False)
    say(store, items, "s4", "safe", "safe", "safe", at=3)
    say(store, items, "s5", "unsafe", "unsafe", "unsafe", at=3)
    flow_back(store, items, Target(tmp_path / REVIEWS))
    gold = {(0, "text_safe"), (0, "image_safe"), (0, "pair_safe"), (2, "text_safe")}
    wanted = {(question, items.item(at, question)) for at, question in gold}  # type: ignore[arg-type]
    told = load_reviews(tmp_path, frozenset())
    assert {(v.question, v.item_id) for v in told if v.gold} == wanted
    assert len(told) == 11
    assert [v.get("gold") for v in lines(tmp_path / REVIEWS)].count(None) == 7, "what is no gold says nothing"


def test_lines_from_before_there_was_a_mark_get_it_where_they_stand(
    items: ReviewSet, store: ReviewStore, tmp_path: Path
) -> None:
    path = tmp_path / "votes.jsonl"
    say(store, items, "s1", "safe", "safe", "safe")
    flow_back(store, items, Target(path))
    marked = lines(path)
    plain = [{name: value for name, value in line.items() if name != "gold"} for line in marked]
    later = plain[0] | {"value": "unsafe", "note": "by hand"}
    twice = [*plain, later, plain[1]]
    path.write_text("".join(json.dumps(line) + "\n" for line in twice))
    assert pending(store, items, Target(path)) == 3 + 4
    assert flow_back(store, items, Target(path)).added == 3
    assert lines(path) == [*marked, later], "the line by hand is the later one, as it was"
    assert pending(store, items, Target(path)) == 0
    path.write_text("".join(json.dumps(line) + "\n" for line in [*marked, plain[2]]))
    done = flow_back(store, items, Target(path))
    assert (done.added, done.dropped) == (0, 1)
    assert lines(path) == marked
    store.undo("anna", "")
    path.write_text("".join(json.dumps(line) + "\n" for line in plain))
    assert flow_back(store, items, Target(path)).dropped == 3
    assert path.read_bytes() == b""


def test_a_store_does_not_touch_what_another_has_written(
    items: ReviewSet, store: ReviewStore, tmp_path: Path
) -> None:
    path = tmp_path / "votes.jsonl"
    with ReviewStore(tmp_path / "other.sqlite") as other:
        say(other, items, "o1", "safe", "safe", "safe", reviewer="ben")
        flow_back(other, items, Target(path))
    say(store, items, "s1", "safe", "safe", "safe")
    store.undo("anna", "")
    assert pending(store, items, Target(path)) == 0
    flow_back(store, items, Target(path))
    assert [v["annotator"] for v in lines(path)] == ["ben"] * 3


@settings(max_examples=15)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.sampled_from(["safe", "unsafe"])), max_size=12)
)
def test_whatever_was_said_and_taken_back_the_file_is_what_counts(
    tmp_path_factory: pytest.TempPathFactory, items: ReviewSet, steps: list[tuple[bool, int, str]]
) -> None:
    folder = tmp_path_factory.mktemp("v")
    path = folder / "votes.jsonl"
    path.write_bytes(HANDWRITTEN[0] + b"\n")
    with ReviewStore(folder / "r.sqlite") as store:
        for number, (back, at, value) in enumerate(steps):
            if back:
                store.undo("anna", "")
            else:
                say(store, items, f"s{number}", value, value, value, at=at)
            if number % 2:
                flow_back(store, items, Target(path))
        flow_back(store, items, Target(path))
        wanted = store.own("anna", "")
    assert {(v["question"], v["item_id"]): v["value"] for v in lines(path)[1:]} == wanted
    assert len(lines(path)) == len(wanted) + 1


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_foreign_dataset_gives_a_table_with_its_own_names(
    foreign: ReviewSet, store: ReviewStore, tmp_path: Path
) -> None:
    say(store, foreign, "s1", "safe", "unsafe", "safe")
    say(store, foreign, "s2", "safe", "skip", "unsafe", at=1, queue="suspects")
    path = tmp_path / "votes.csv"
    flow_back(store, foreign, Target(path))
    told = table(path)
    assert tuple(told[0]) == HEADER
    assert {row["family"] for row in told} == {"human"}
    assert [(row["question"], row["value"], row["gold"]) for row in told] == [
        ("text_safe", "safe", "true"),
        ("image_safe", "unsafe", "true"),
        ("pair_safe", "safe", "true"),
        ("text_safe", "safe", "false"),
        ("pair_safe", "unsafe", "false"),
    ]
    assert [row["item_id"] for row in told[:3]] == [item for _, item in foreign.keys(0)]
    assert told[2]["item_id"] == str(foreign.ids[0])


def test_a_table_of_our_own_names_pairs_by_their_row(
    items: ReviewSet, store: ReviewStore, tmp_path: Path
) -> None:
    say(store, items, "s1", "safe", "safe", "safe")
    flow_back(store, items, Target(tmp_path / "v.csv"))
    assert [row["item_id"] for row in table(tmp_path / "v.csv")] == [
        sha256_text(items.row(0)["query"]),
        items.row(0)["image_id"],
        str(items.ids[0]),
    ]


def test_a_table_keeps_the_rows_of_others_and_drops_what_was_taken_back(
    foreign: ReviewSet, store: ReviewStore, tmp_path: Path
) -> None:
    path = tmp_path / "v.csv"
    theirs = ['a "quoted"\nname.png', "image_safe", "ben", "safe", "human", "false"]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([HEADER, theirs])
    say(store, foreign, "s1", "safe", "safe", "safe")
    assert pending(store, foreign, Target(path)) == 3
    flow_back(store, foreign, Target(path))
    assert len(table(path)) == 4
    store.undo("anna", foreign.scope)
    assert flow_back(store, foreign, Target(path)).dropped == 3
    assert [list(row.values()) for row in table(path)] == [theirs]


@pytest.mark.parametrize("content", [b"id,value\n1,2\n", b"\xff\xfe", b'item_id,"question\n'])
def test_another_table_is_not_written_over(
    foreign: ReviewSet, store: ReviewStore, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "v.csv"
    path.write_bytes(content)
    say(store, foreign, "s1", "safe", "safe", "safe")
    with pytest.raises(InputError, match=r"v\.csv: .*--votes-to"):
        flow_back(store, foreign, Target(path))
    assert path.read_bytes() == content


def test_only_gold_is_what_was_said_first(foreign: ReviewSet, store: ReviewStore, tmp_path: Path) -> None:
    say(store, foreign, "s1", "safe", "safe", "safe")
    say(store, foreign, "s2", "unsafe", "unsafe", "unsafe")
    say(store, foreign, "s3", "safe", "safe", "safe", at=1, queue="class:race")
    flow_back(store, foreign, Target(tmp_path / "all.csv"))
    flow_back(store, foreign, Target(tmp_path / "gold.csv", gold=True))
    assert {(row["value"], row["gold"]) for row in table(tmp_path / "gold.csv")} == {("safe", "true")}
    assert len(table(tmp_path / "gold.csv")) == 3
    assert {(row["value"], row["gold"]) for row in table(tmp_path / "all.csv")} == {
        ("unsafe", "false"),
        ("safe", "false"),
    }


def test_votes_go_to_the_build_where_there_is_one(
    items: ReviewSet, foreign: ReviewSet, tmp_path: Path
) -> None:
    name = f"review-votes-{items.fingerprint[:8]}.csv"
    assert default_target(tmp_path, items).path == tmp_path / name
    (tmp_path / "params.yaml").write_text("")
    assert default_target(tmp_path, items).path == tmp_path / REVIEWS
    assert default_target(tmp_path, foreign).path == tmp_path / f"review-votes-{foreign.fingerprint[:8]}.csv"


def test_lines_of_a_foreign_dataset_would_mean_nothing(
    items: ReviewSet, foreign: ReviewSet, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="not those of a build"):
        named_target(tmp_path / "v.jsonl", foreign)
    with pytest.raises(InputError, match=r"ends in \.jsonl or \.csv"):
        named_target(tmp_path / "v.json", items)
    assert named_target(tmp_path / "v.jsonl", items) == Target(tmp_path / "v.jsonl")
