"""`kt_cli.results`: rows and tables as data frames, with the options of `kt report`."""

from __future__ import annotations

from typing import Any

import pytest

import kt_cli
from kt_cli.api.results import results
from kt_cli.errors import KtError

Sweep = Any  # of the conftest beside this file


def test_a_table_s_condition_holds_beside_that_of_the_results(filled: Sweep) -> None:
    some = results(filled.folder, where="method == 'kl' or method == 'kl-dp'")
    found = some.summary(where="seed == 1 or seed == 5")
    assert found["method"].tolist() == ["kl", "kl-dp"] and found["n"].tolist() == [12, 12]
    assert some.summary()["n"].tolist() == [24, 24]
    # Pairs have no methods, which leaves the other condition.
    weaker = some.complementarity(where="acc_diff < 0").set_index("quantity")["pairs"]
    assert weaker["pos_flips"] == 6


def test_folders_may_be_given_together(filled: Sweep) -> None:
    one, other = kt_cli.results(filled.folder), kt_cli.results([str(filled.folder)])
    assert one.folders == other.folders == kt_cli.results(iter([filled.folder])).folders


def test_where_nothing_meets_the_condition_that_is_said(filled: Sweep) -> None:
    with pytest.raises(KtError, match=r"no result meets --where 'delta > 1000': it leaves out all"):
        kt_cli.results(filled.folder).summary(where="delta > 1000")


def test_listed_options_are_taken_as_text(filled: Sweep) -> None:
    found = results(filled.folder).summary(by="student, seed,", where="method == 'kl'")
    assert {"student", "seed"} <= set(found) and len(found) == 8


def test_rows_are_the_callers_own(filled: Any) -> None:
    """Settings that all rows share, too, can be changed one by one."""
    found = results(filled.folder)
    rows = found.rows("transfer")
    rows.loc[0, ["epochs", "lr", "seed"]] = 3
    assert rows.loc[0, "epochs"] == 3 and rows.loc[1, "epochs"] != 3
    assert found.rows("transfer").loc[0, "epochs"] != 3
