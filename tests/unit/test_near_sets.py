"""The index finds what comparing all with all finds."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from pipeline.near_sets import NearSets

SETS = st.lists(st.frozensets(st.integers(0, 30) | st.just(2**64 - 1), min_size=1, max_size=25), max_size=20)


@given(SETS, st.integers(1, 20))
def test_near_is_what_brute_force_finds(sets: list[frozenset[int]], twentieths: int) -> None:
    least = Fraction(twentieths, 20)
    index = NearSets(twentieths / 20)
    for place, own in enumerate(sets):
        shares = {i: Fraction(len(own & other), len(own | other)) for i, other in enumerate(sets[:place])}
        found = dict(index.near(sorted(own)))
        assert found == {i: float(share) for i, share in shares.items() if share >= least}
        assert list(found) == sorted(found)
        assert index.add(sorted(own)) == place
