"""Counts in percent: rounded once, the same for numbers and for arrays."""

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kt_cli.knowledge.percent import percent


@given(st.integers(1, 1_281_167).flatmap(lambda n: st.tuples(st.integers(-n, n), st.just(n))))
def test_a_percentage_is_the_nearest_float(counts: tuple[int, int]) -> None:
    count, n = counts
    nearest = float(Fraction(100 * count, n))
    assert percent(count, n) == nearest
    assert percent(np.array([count]), n).tolist() == [nearest]
    assert float(percent(np.int64(count), n)) == nearest
