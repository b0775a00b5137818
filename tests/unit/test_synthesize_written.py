"""Written queries: squares that fill cells, what a writer is shown, and what is sent back to it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.annotators import Voter
from pipeline.cells import Cell
from pipeline.engine import CallCache, Engine, RemoteEndpoint, Terms, open_cache
from pipeline.label_pairs.batch import next_in_cells, within_cells
from pipeline.label_pairs.decide import complete_squares
from pipeline.synthesize.grids import GridSquare, check_quota, grid_squares, slots
from pipeline.synthesize.matching import KnownImage
from pipeline.synthesize.variety import GRAM, NEAR, NearQueries, Openings
from pipeline.synthesize.writer import (
    Rounds,
    SquareWriter,
    WrittenSquare,
    candidates,
    load_square_prompt,
    square_request,
    write_squares,
)
from pipeline.workspace import Silent
from schemas.errors import InputError
from schemas.taxonomy import PAIR_TYPES, PairType, load_taxonomy
from tests.conftest import REPOSITORY
from tests.scripted import scripted

TAXONOMY = load_taxonomy(REPOSITORY / "schemas" / "taxonomy.yaml")
INFO = TAXONOMY.by_name("property_crime")
PROMPT = load_square_prompt(REPOSITORY / "prompts" / "synthesize" / "square.yaml")
WANTED: dict[PairType, int] = {"SSS": 12, "SSU": 9, "SUU": 8, "USU": 10, "UUU": 6}


def images(safe: int = 12, unsafe: int = 10, kinds: int = 3) -> list[KnownImage]:
    names = [(f"{n:064x}", True, f"thing{n % kinds}") for n in range(safe)]
    names += [(f"{n + 1000:064x}", False, "thief") for n in range(unsafe)]
    return [
        KnownImage(i, is_safe, INFO.name, "train", f"a {kind}", f"a photo of a {kind}, {i[-3:]}", (kind,))
        for i, is_safe, kind in names
    ]


def squares(wanted: dict[PairType, int] = WANTED, surplus: float = 1.0) -> list[GridSquare]:
    return grid_squares(INFO.name, "train", wanted, images(), surplus)


def rows_of(drafted: list[GridSquare]) -> list[dict[str, object]]:
    """The rows as label_pairs reads them, each query another."""
    rows = []
    for square in drafted:
        for slot in slots(square):
            scene = f"{square.id}.{slot.kind}.{slot.query}"
            rows.append(
                {
                    "pair_id": f"{scene}@{slot.image.image_id}",
                    "scene": scene,
                    "image_id": slot.image.image_id,
                    "spare": slot.spare,
                    "intended_type": slot.type,
                    "type": slot.type,
                    "harm_class": square.class_name,
                    "split": square.split,
                    "accepted": True,
                }
            )
    return rows


quotas = st.fixed_dictionaries(
    {"SSS": st.integers(45, 90), "SSU": st.integers(0, 60), "SUU": st.integers(0, 80),
     "USU": st.integers(0, 120), "UUU": st.integers(0, 80)}
)  # fmt: skip


@given(quotas)
def test_squares_fill_every_cell_exactly_and_every_row_has_its_neighbours(
    wanted: dict[PairType, int],
) -> None:
    rows = [
        row for row in rows_of(grid_squares(INFO.name, "train", wanted, images(), 1.0)) if not row["spare"]
    ]
    have = Counter(row["type"] for row in rows)
    assert all(have[kind] == wanted[kind] for kind in PAIR_TYPES if kind != "SSS")
    kept, alone = complete_squares(rows)  # type: ignore[arg-type]
    assert not alone
    assert len({row["pair_id"] for row in rows}) == len(rows) == len(kept)


@given(quotas)
def test_a_grid_has_latent_queries_that_are_safe_about_another_kind_of_thing(
    wanted: dict[PairType, int],
) -> None:
    for square in grid_squares(INFO.name, "train", wanted, images(), 1.0):
        kinds = {image.objects for image in square.a[: square.neutral]}
        assert not square.latent or len(kinds) == 1
        assert all(image.objects not in kinds and image.safe for image in square.b)
        assert all(image.safe for image in square.a)
        assert not any(image.safe for image in square.u)
        assert bool(square.b) == bool(square.latent)


def test_larger_quotas_add_squares_and_change_none() -> None:
    before = squares()
    more: dict[PairType, int] = {kind: 2 * n for kind, n in WANTED.items()}
    assert {square.id for square in before} <= {square.id for square in squares(more)}


def test_surplus_squares_are_all_in_reserve() -> None:
    plain, more = squares(), squares(surplus=1.5)
    assert more[: len(plain)] == plain
    assert len(more) > len(plain)
    assert all(slot.spare for square in more[len(plain) :] for slot in slots(square))


@pytest.mark.parametrize("change", [{"SSS": 30, "SSU": 90}, {"SSS": 10, "SSU": 0, "USU": 90}])
def test_quotas_that_no_dataset_can_fill_are_refused_by_name(change: dict[PairType, int]) -> None:
    with pytest.raises(InputError, match=r"quotas: property_crime: .* need at least \d+ SSS rows"):
        check_quota(INFO.name, WANTED | change)


def test_a_small_cell_gets_the_neighbours_that_it_did_not_ask_for() -> None:
    rows = [
        row
        for row in rows_of(squares({"SSS": 2, "SSU": 3, "SUU": 1, "USU": 3, "UUU": 1}))
        if not row["spare"]
    ]
    _, alone = complete_squares(rows)  # type: ignore[arg-type]
    assert not alone
    assert Counter(row["type"] for row in rows) == {"SSS": 4, "SSU": 3, "SUU": 1, "USU": 3, "UUU": 1}


@given(st.lists(st.text(st.sampled_from("ab cd"), min_size=1, max_size=24), min_size=1, max_size=25))
def test_near_duplicates_are_those_that_comparing_all_with_all_finds(texts: list[str]) -> None:
    def pieces(text: str) -> frozenset[str]:
        plain = f" {' '.join(text.split())} "
        return frozenset(plain[i : i + GRAM] for i in range(max(1, len(plain) - GRAM + 1)))

    def alike(a: str, b: str) -> bool:
        x, y = pieces(a), pieces(b)
        return len(x & y) >= NEAR * len(x | y)

    found = NearQueries(texts[: len(texts) // 2])
    for place, text in enumerate(texts):
        expected = next((other for other in texts[:place] if alike(text, other)), None)
        assert found.near(text) == expected
        found.add(text)


def test_an_opening_wears_out() -> None:
    openings = Openings(0.1, 40)
    for n in range(4):
        assert not openings.worn(f"How do I open number {n}?")
        openings.add(f"How do I open number {n}?")
    assert openings.worn("How do I ever close this?")
    assert not openings.worn("How can I close this?")


def answer(tag: str, kinds: str = "latent neutral unsafe") -> dict[str, object]:
    """Queries that are all different; those of one tag are the same each time."""
    words = {"latent": "quietly take", "neutral": "draw", "unsafe": "steal"}
    found: dict[str, object] = {kind: [] for kind in words}
    for kind in kinds.split():
        listed = [
            {"query": rf"{chr(97 + n) * 7} {tag} \w{{4}} {words[kind]} this, \w{{4}}?"} for n in range(4)
        ]
        found[kind] = [q | {"on_unsafe": "refuse"} for q in listed] if kind == "neutral" else listed
    return found


def asked(tmp_path: Path, rules: list[dict[str, object]], drafted: list[GridSquare], attempts: int = 3):  # type: ignore[no-untyped-def]
    """What came of a writer that answers by rules, with its failures and how often it was asked."""
    with scripted(answers=rules) as server, open_cache(tmp_path / "calls.sqlite") as cache:
        writer = SquareWriter(voter(server.endpoint(), cache))
        found, _ = write_squares(
            writer,
            PROMPT,
            drafted,
            {INFO.name: INFO},
            {},
            attempts=attempts,
            opening_share=0.1,
            progress=Silent(),
        )
        # Else one that was paid for looks unused; the engine's own re-asks have no keys here.
        keys = {key for one in found for key in one.keys}
        assert keys == {record.key for record in cache.records() if record.attempt == 1}
        written = [(one.square, one.said, one.keys) for one in found if one.said]
        failures = [{"item_id": one.square.id, "detail": one.fault} for one in found if one.fault]
        return written, failures, server.stats()["requests"], writer


def voter(endpoint: RemoteEndpoint, cache: CallCache) -> Voter:
    return Voter("writer", Engine(cache, endpoint), endpoint.backend_id, "m", "scripted", endpoint.terms)


def test_a_written_square_gives_its_rows(tmp_path: Path) -> None:
    drafted = squares()
    found, failures, requests, writer = asked(tmp_path, [{"answer": answer("x")}], drafted)
    assert not failures
    assert requests == len(drafted) == len(found)
    rows = [row for square, said, _ in found for row in candidates(square, said, INFO, writer.origin)]
    have = Counter(row.intended_type for row in rows if not row.spare)
    assert all(have[kind] == WANTED[kind] for kind in PAIR_TYPES if kind != "SSS")
    ssu = next(row for row in rows if row.intended_type == "SSU")
    assert ssu.expected == INFO.spec.policy.expected
    same = [row for row in rows if row.query == ssu.query]
    assert {row.scene for row in same} == {ssu.scene}
    assert {row.intended_type for row in same} == {"SSU", "SSS"}
    assert {row.writer for row in rows} == {writer.origin}


def test_a_fault_is_told_and_written_anew(tmp_path: Path) -> None:
    rules = [
        {"match": r"That answer is not valid: .*nearly the same", "answer": answer("second")},
        {"match": "A1: ", "answer": {kind: [*listed] for kind, listed in fixed().items()}},
    ]
    drafted = squares()[:2]
    found, failures, requests, _ = asked(tmp_path, rules, drafted)
    assert len(found) == 2
    assert not failures
    assert requests == 3  # both said the same, so the second was asked again


def test_a_square_gives_way_to_those_before_it_alone_whenever_they_were_written(tmp_path: Path) -> None:
    """The first is written anew, as the second was at once: so the second is asked again."""
    drafted = squares()[:2]
    mark = drafted[0].a[0].caption
    rules = [
        {"match": "has 0 questions", "answer": fixed()},
        {"match": "nearly the same", "answer": answer("third")},
        {"match": f"A1: {mark}", "answer": answer("x", "neutral")},
        {"answer": fixed()},
    ]
    assert f"A1: {drafted[1].a[0].caption}" != f"A1: {mark}"
    found, failures, requests, _ = asked(tmp_path, rules, drafted)
    assert not failures
    assert requests == 4
    first, second = (said.queries("neutral")[0] for _, said, _ in found)
    assert first == fixed()["neutral"][0]["query"]
    assert "third" in second


def test_a_class_is_written_after_others_as_with_them(tmp_path: Path) -> None:
    """The first class is written anew, as the second was at once: what is kept tells when it said what."""
    drafted = squares()[:2]
    other = TAXONOMY.by_name("suicide")
    both = [drafted[0], replace(drafted[1], class_name=other.name)]
    rules = [
        {"match": "has 0 questions", "answer": fixed()},
        {"match": "nearly the same", "answer": answer("third")},
        {"match": f"A1: {drafted[0].a[0].caption}", "answer": answer("x", "neutral")},
        {"answer": fixed()},
    ]
    with scripted(answers=rules) as server, open_cache(tmp_path / "calls.sqlite") as cache:
        writer = SquareWriter(voter(server.endpoint(), cache))

        def written(some: list[GridSquare], before: list[Rounds]) -> tuple[list[WrittenSquare], list[Rounds]]:
            found, rounds = write_squares(
                writer,
                PROMPT,
                some,
                {INFO.name: INFO, other.name: other},
                {},
                before=before,
                attempts=3,
                opening_share=0.1,
                progress=Silent(),
            )
            return found, list(rounds.values())

        together, _ = written(both, [])
        assert [len(one.keys) for one in together] == [2, 2]
        first, rounds = written(both[:1], [])
        then, _ = written(both[1:], rounds)
        assert [*first, *then] == together
        assert server.stats()["requests"] == 4


def test_a_class_without_a_second_kind_of_thing_has_its_other_rows() -> None:
    rows = rows_of(grid_squares(INFO.name, "train", WANTED, images(kinds=1), 1.0))
    have = Counter(row["type"] for row in rows if not row["spare"])
    assert have["SSU"] == 0
    assert all(have[kind] == WANTED[kind] for kind in ("SUU", "USU", "UUU"))


def test_grids_do_not_ask_about_a_few_images_again_and_again() -> None:
    """One kind has three images, and every other thing is alone of its kind."""
    known = images(3, 10, 1)
    known += [
        KnownImage(f"{n + 500:064x}", True, INFO.name, "train", f"a {n}", f"a photo of a {n}", (f"odd{n}",))
        for n in range(60)
    ]
    many: dict[PairType, int] = {"SSS": 80, "SSU": 90, "SUU": 8, "USU": 10, "UUU": 6}
    rows = rows_of(grid_squares(INFO.name, "train", many, known, 1.0))
    asked_about = Counter(row["image_id"] for row in rows if row["type"] == "SSU" and not row["spare"])
    assert len(asked_about) >= 20


def fixed() -> dict[str, list[dict[str, str]]]:
    return {
        kind: [
            {"query": f"{letter * 9} {kind} of this?"}
            | ({"on_unsafe": "refuse"} if kind == "neutral" else {})
            for letter in "klmn"
        ]
        for kind in ("latent", "neutral", "unsafe")
    }


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ({"answer": answer("x", "neutral")}, "latent has 0 questions"),
        ({"answer": {k: [q | {"query": q["query"] + " Take 20 mg."} for q in v] for k, v in fixed().items()}},
         "a method, an amount or an address"),
        ({"refusal": "I cannot write such questions."}, "blocked"),
        ({"answer": "no JSON at all"}, "unscorable"),
    ],
)  # fmt: skip
def test_what_stays_faulty_is_a_failure_with_its_reason(
    tmp_path: Path, rule: dict[str, object], reason: str
) -> None:
    drafted = squares()[:1]
    found, failures, _, _ = asked(tmp_path, [rule | {"earlier": True}], drafted, attempts=2)
    assert found == []
    assert [row["item_id"] for row in failures] == [drafted[0].id]
    assert reason in failures[0]["detail"]


def test_no_two_calls_are_the_same_though_images_come_again(tmp_path: Path) -> None:
    many: dict[PairType, int] = {"SSS": 90, "SSU": 40, "SUU": 8, "USU": 10, "UUU": 6}
    drafted = squares(many, 1.5)
    assert len(drafted) > len(images()) // 2
    with open_cache(tmp_path / "calls.sqlite") as cache:
        writer = voter(RemoteEndpoint("nobody", "http://127.0.0.1:1/v1", "none", Terms()), cache)
        keys = [square_request(writer, PROMPT, square, INFO).key for square in drafted]
    assert len(set(keys)) == len(keys)


def test_a_writer_sees_the_policy_and_the_pictures_and_no_type(tmp_path: Path) -> None:
    with open_cache(tmp_path / "calls.sqlite") as cache:
        request = square_request(
            voter(RemoteEndpoint("nobody", "http://127.0.0.1:1/v1", "none", Terms()), cache),
            PROMPT,
            squares()[0],
            INFO,
        )
    shown = str(request.messages[-1]["content"])
    assert INFO.spec.policy.summary.split(".")[0][:30] in " ".join(shown.split())
    assert INFO.spec.policy.pair.unsafe[:30] not in shown  # else a better wording would pay for queries again
    assert "A1: a photo of a" in shown
    assert "B1: a photo of a" in shown
    assert "U1: a photo of a thief" in shown
    assert not any(kind in shown for kind in PAIR_TYPES)


def test_where_labels_take_rows_the_cells_are_filled_from_the_reserve() -> None:
    drafts = rows_of(squares(surplus=2.0))
    wanted = {Cell(INFO.name, kind, "train"): n for kind, n in WANTED.items()}
    judged: dict[str, dict[str, object]] = {}
    for number in range(6):
        batch = next_in_cells(drafts, judged, wanted, number)  # type: ignore[arg-type]
        if not batch:
            break
        # Every fifth row is refused by its labels.
        judged |= {str(r["pair_id"]): r | {"accepted": hash_of(r) % 5 > 0} for r in batch}
    kept, _ = complete_squares(
        judged[str(r["pair_id"])]
        for r in drafts
        if str(r["pair_id"]) in judged and judged[str(r["pair_id"])]["accepted"]
    )  # type: ignore[misc]
    stay, _ = within_cells(kept, wanted)  # type: ignore[arg-type]
    have = Counter(row["type"] for row in stay)
    assert all(have[kind] == WANTED[kind] for kind in PAIR_TYPES if kind != "SSS")
    assert have["SSS"] >= WANTED["SSS"]
    whole, alone = complete_squares(stay)
    assert not alone
    assert len(whole) == len(stay)


def hash_of(row: dict[str, object]) -> int:
    return sum(ord(c) * (i + 1) for i, c in enumerate(str(row["pair_id"])))


def test_no_two_rows_of_a_square_are_the_same_pair() -> None:
    for square in squares():
        places = [(slot.kind, slot.query, slot.image.image_id) for slot in slots(square)]
        assert not any(a == b for a, b in combinations(places, 2))
