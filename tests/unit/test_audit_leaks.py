import random
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.audit.leaks import masked, near_images, near_queries_across


def brute(train: list[str], test: list[str]) -> set[tuple[int, int]]:
    """All pairs, with code of its own."""

    def runs(text: str) -> set[str]:
        return (
            {text}
            if len(text) < 5
            else {"".join(five) for five in zip(*(text[k:] for k in range(5)), strict=False)}
        )

    return {
        (i, j)
        for i, a in enumerate(train)
        for j, b in enumerate(test)
        if Fraction(len(runs(a) & runs(b)), len(runs(a) | runs(b))) >= Fraction(4, 5)
    }


@settings(max_examples=150, deadline=None)
@given(*[st.lists(st.text("ab ", max_size=14), max_size=14)] * 2)
def test_index_finds_what_all_pairs_find(train: list[str], test: list[str]) -> None:
    assert {p[:2] for p in near_queries_across(train, test)} == brute(train, test)


def test_planted_near_duplicates_are_found() -> None:
    draw = random.Random(4)  # noqa: S311
    words = ["who", "would", "notice", "the", "small", "door", "behind", "this", "picture", "today", "often"]
    train = [" ".join(draw.choices(words, k=12)) for _ in range(150)]
    test = (
        [" ".join(draw.choices(words, k=12)) for _ in range(100)]
        + [t + " so" for t in train[:20]]
        + train[:3]
    )
    found = near_queries_across(train, test)
    assert {p[:2] for p in found} == brute(train, test)
    assert {(i, 100 + i) for i in range(20)} <= {p[:2] for p in found}
    assert [p.jaccard for p in found[:3]] == [1, 1, 1]


def test_the_subject_is_masked() -> None:
    assert masked("Who made the Red  Lamp?", "red lamp") == masked("who made the (tin box)?", "Tin box")
    assert masked("A lamplight?", "lamp") == "a lamplight"
    assert masked("What?", "") == "what"


def test_images_that_look_alike_across_sides() -> None:
    draw = random.Random(5)  # noqa: S311
    hashes = [draw.randbytes(32) for _ in range(60)]
    near = bytes([hashes[0][0] ^ 1]) + hashes[0][1:]
    sides = ["train"] * 60 + ["test", "train"]
    found = near_images([h.hex() for h in [*hashes, near, near]], [""] * 62, sides, 10, 40)
    assert found == [(60, 61, 0), (0, 60, 1)]
    assert near_images([], [], [], 10, 40) == []
