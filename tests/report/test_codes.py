from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kt_cli.report.codes import Cells, compact
from kt_cli.rows.scan import texts_dtype

COLUMNS = ["student", "seed", "method"]


@pytest.mark.parametrize("size", [10, 10_000])
def test_codes_that_occur_as_numpy_finds_them(size: int) -> None:
    codes = np.random.default_rng(0).integers(0, size, 50)
    found, places = compact(codes, size)
    np.testing.assert_array_equal(found, np.unique(codes))
    np.testing.assert_array_equal(found[places], codes)


@pytest.mark.parametrize("count", [0, 1, 400])
def test_combinations_are_the_groups_of_pandas(count: int) -> None:
    random = np.random.default_rng(count)
    rows = pd.DataFrame({
        "student": pd.Series(random.choice(list("abcx"), count), dtype=texts_dtype("xcbazy")),
        "seed": random.choice([0.0, 1.0, np.nan], count),
        "method": random.choice(["kl", "own"], count).astype(object),
        "delta": random.normal(size=count),
    })  # fmt: skip
    rows.loc[random.random(count) < 0.2, "student"] = None
    found, groups = Cells.of(rows, COLUMNS), rows.groupby(COLUMNS, observed=True, dropna=False)
    np.testing.assert_array_equal(found.codes, groups.ngroup())
    np.testing.assert_allclose(found.means(rows["delta"].to_numpy(float)), groups["delta"].mean())
    np.testing.assert_array_equal(found.codes[found.rows], np.arange(groups.ngroups))


def test_two_columns_across_have_a_place_for_what_does_not_occur() -> None:
    rows = pd.DataFrame({"student": ["b", "a", "b"], "method": ["m", "l", "m"]})
    cells = Cells.of(rows, ["student"]).across(Cells.of(rows, ["method"]))
    assert cells.codes.tolist() == [3, 0, 3]
    assert cells.sums().tolist() == [1, 0, 0, 2]
    assert np.isnan(cells.means(np.ones(3))).tolist() == [False, True, True, False]
