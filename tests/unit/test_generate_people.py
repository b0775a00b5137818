from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.generate.canvas import rng_of
from pipeline.generate.people import card_number, person


def luhn(number: str) -> bool:
    digits = [int(c) for c in reversed(number.replace(" ", ""))]
    return (sum(digits[::2]) + sum(sum(divmod(2 * d, 10)) for d in digits[1::2])) % 10 == 0


def test_the_check_knows_a_documented_test_number() -> None:
    assert luhn("4242 4242 4242 4242")


@given(st.integers(0, 2**48))
def test_card_numbers_are_nobodys(seed: int) -> None:
    number = card_number(rng_of(seed))
    assert len(number.replace(" ", "")) == 16
    assert not luhn(number)


def test_people_are_adults_and_reproducible() -> None:
    people = [person(rng_of(seed)) for seed in range(40)]
    assert people == [person(rng_of(seed)) for seed in range(40)]
    assert all(p.born.year <= 1998 for p in people)
    assert all("-555-01" in p.phone for p in people)
    assert len({p.name for p in people}) > 35
    assert {p.woman for p in people} == {True, False}
    assert person(rng_of(1), woman=True).woman
