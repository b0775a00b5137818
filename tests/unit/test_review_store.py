"""The store of votes: what is written stays, in order, and says how it was given."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.review import ReviewStore, Screen
from pipeline.review.store import IMPORTED, StoreError, counting
from schemas.errors import InputError
from tests.conftest import REPOSITORY

A, B = "a" * 64, "b" * 64
SCREEN = Screen("s1", "f" * 64, "", "anna", "7", "random", {"text_safe": (A, "safe")}, picture=True)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ReviewStore]:
    with ReviewStore(tmp_path / "deep" / "reviews.sqlite") as opened:
        yield opened


def said(store: ReviewStore, id_: str, value: str = "safe", **changes: Any) -> bool:
    item = changes.pop("item", A)
    question = changes.pop("question", "text_safe")
    return store.add(replace(SCREEN, id=id_, answers={question: (item, value)}, **changes))


def test_a_vote_says_how_it_was_given(store: ReviewStore) -> None:
    when = datetime(2026, 3, 1, 10, tzinfo=UTC)
    answers = {"text_safe": (A, "safe"), "image_safe": (B, "unsafe"), "pair_safe": ("7", "skip")}
    assert store.add(replace(SCREEN, answers=answers, note="why", time=when))
    votes = store.votes("")
    assert [(v.question, v.item_id, v.value) for v in votes] == [(q, *a) for q, a in answers.items()]
    one = votes[1]
    assert (one.reviewer, one.queue, one.row, one.dataset, one.note) == (
        "anna",
        "random",
        "7",
        "f" * 64,
        "why",
    )
    assert (one.blind, one.first, one.picture, one.undone) == (True, True, True, False)
    assert one.time == "2026-03-01T10:00:00.000000Z"
    with closing(sqlite3.connect(store.path)) as plain:
        assert plain.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_screen_counts_once(store: ReviewStore) -> None:
    assert said(store, "s1")
    assert not said(store, "s1", "unsafe")
    assert [v.value for v in store.votes("")] == ["safe"]


def test_votes_can_neither_be_changed_nor_deleted(store: ReviewStore) -> None:
    said(store, "s1")
    with closing(sqlite3.connect(store.path, isolation_level=None)) as plain:
        for statement in ("UPDATE votes SET value = 'unsafe'", "DELETE FROM votes"):
            with pytest.raises(sqlite3.IntegrityError, match="votes are never"):
                plain.execute(statement)


def test_undone_votes_stay_and_do_not_count(store: ReviewStore) -> None:
    said(store, "s1", "safe")
    said(store, "s2", "unsafe")
    assert [v.value for v in store.undo("anna", "")] == ["unsafe"]
    assert store.own("anna", "") == {("text_safe", A): "safe"}
    assert [(v.value, v.undone) for v in store.votes("")] == [("safe", False), ("unsafe", True)]
    store.undo("anna", "")
    assert store.own("anna", "") == {}
    assert store.undo("anna", "") == []


def test_only_ones_own_votes_are_taken_back_and_none_that_were_imported(store: ReviewStore) -> None:
    said(store, "s1")
    said(store, IMPORTED + "1", item=B)
    said(store, "s2", reviewer="ben")
    said(store, "s3", scope="another")
    assert [v.screen for v in store.undo("anna", "")] == ["s1"]
    assert store.undo("anna", "") == []
    assert len(store.own("ben", "")) == len(store.own("anna", "another")) == 1


def gold(store: ReviewStore) -> list[bool]:
    return [v.gold for v in store.votes("") if not v.undone]


def test_first_blind_votes_of_the_random_queue_are_gold_and_no_others(store: ReviewStore) -> None:
    said(store, "s1")
    said(store, "s2", item=B, queue="suspects")
    said(store, "s3", item=B)
    said(store, "s4", "skip", item="c" * 64)
    assert gold(store) == [True, False, False, False]


def test_a_vote_after_what_others_said_is_not_blind(store: ReviewStore) -> None:
    store.others_seen("anna", "", [("text_safe", A)])
    said(store, "s1")
    said(store, "s2", item=B)
    said(store, "s3", reviewer="ben")
    assert [v.blind for v in store.votes("")] == [False, True, True]
    assert gold(store) == [False, True, True]


def test_a_slip_that_was_taken_back_is_no_first_vote_unless_others_were_seen(store: ReviewStore) -> None:
    said(store, "s1")
    store.undo("anna", "")
    said(store, "s2", "unsafe")
    assert gold(store) == [True]
    store.others_seen("anna", "", [("text_safe", A)])
    store.undo("anna", "")
    said(store, "s3", "safe")
    assert gold(store) == [False]


@pytest.mark.parametrize(
    ("question", "looked", "wanted"), [("text_safe", False, True), ("image_safe", False, False)]
)
def test_a_picture_that_was_not_looked_at_gives_no_gold(
    store: ReviewStore, question: str, looked: bool, wanted: bool
) -> None:
    said(store, "s1", question=question, picture=looked)
    assert gold(store) == [wanted]


def test_of_two_votes_the_later_counts_and_gold_stays_with_the_first(store: ReviewStore) -> None:
    said(store, "s1", "safe")
    said(store, "s2", "unsafe")
    assert [v.value for v in counting(store.votes(""))] == ["unsafe"]
    assert [(v.value, v.first) for v in store.votes("")] == [("safe", True), ("unsafe", False)]


def test_screens_of_a_day_are_counted_with_those_that_were_undone(store: ReviewStore) -> None:
    now = datetime.now(UTC)
    said(store, "old", time=now - timedelta(days=2))
    said(store, "s1")
    said(store, "s2", scope="another")
    said(store, IMPORTED + "1", item=B)
    store.undo("anna", "")
    assert store.screens("anna", now - timedelta(hours=1)) == 2
    assert store.screens("ben", now - timedelta(hours=1)) == 0


@settings(max_examples=20)
@given(st.lists(st.tuples(st.sampled_from(["anna", "ben"]), st.sampled_from([A, B, None])), max_size=25))
def test_what_counts_is_the_last_that_was_not_taken_back(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str | None]]
) -> None:
    kept: dict[str, list[tuple[str, str]]] = {"anna": [], "ben": []}
    with ReviewStore(tmp_path_factory.mktemp("s") / "r.sqlite") as store:
        for number, (who, item) in enumerate(steps):
            value = ("safe", "unsafe")[number % 2]
            if item is None:
                store.undo(who, "")
                kept[who] = kept[who][:-1]
            else:
                said(store, f"s{number}", value, item=item, reviewer=who)
                kept[who].append((item, value))
        for who, votes in kept.items():
            assert store.own(who, "") == {("text_safe", item): value for item, value in votes}


def test_several_write_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    ReviewStore(path).close()

    def write(who: str) -> None:
        with ReviewStore(path) as own:
            for n in range(20):
                said(own, f"{who}{n}", reviewer=who, item=str(n))

    threads = [threading.Thread(target=write, args=(who,)) for who in ("anna", "ben", "cleo")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with ReviewStore(path) as store:
        assert len(store.votes("")) == 60


@pytest.mark.parametrize("content", [b"no database at all, but words" * 40, "other", "newer"])
def test_a_file_that_is_something_else_is_refused(tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / "r.sqlite"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "other":
        with closing(sqlite3.connect(path)) as other:
            other.execute("CREATE TABLE votes (x)")
    else:
        ReviewStore(path).close()
        with closing(sqlite3.connect(path)) as other:
            other.execute("PRAGMA user_version=9")
    with pytest.raises(InputError, match="--store") as refused:
        ReviewStore(path)
    assert str(path) in str(refused.value)


def test_a_store_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be stored here: .*--store"):
        ReviewStore(tmp_path / "file" / "r.sqlite")


def test_a_folder_that_may_only_be_read_is_told() -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o555)
        code = (
            "import os, sys\n"
            "from pathlib import Path\n"
            "from pipeline.review import ReviewStore\n"
            "from schemas.errors import InputError\n"
            "if os.getuid() == 0: os.setuid(65534)\n"
            "try: ReviewStore(Path(sys.argv[1]) / 'r.sqlite')\n"
            "except InputError as error: print(error)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(folder)],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        )
        assert f"{folder}/r.sqlite: reviews cannot be stored here" in done.stdout
        assert list(folder.iterdir()) == []
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_a_vote_that_cannot_be_written_is_an_error_and_nothing_of_its_screen_is_kept(
    store: ReviewStore,
) -> None:
    with pytest.raises(StoreError, match="nothing was written"):
        store.add(replace(SCREEN, answers={"text_safe": (A, "safe"), "image_safe": (B, "maybe")}))
    assert store.votes("") == []
    assert said(store, "s2"), "the store goes on"
