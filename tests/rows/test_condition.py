from __future__ import annotations

import math
import operator
import random
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kt_cli.errors import UnknownName, UsageError
from kt_cli.rows import store
from kt_cli.rows.condition import Kind, parse
from kt_cli.rows.scan import meets, scan

KINDS: dict[str, Kind] = {
    "delta": "number", "n": "number", "seed": "number", "method": "text", "student": "text",
    "reference_compat": "truth", "curve_loss": "list",
}  # fmt: skip
ROWS = [
    {"delta": d, "n": n, "seed": seed, "method": method, "student": student,
     "reference_compat": compat}
    for d, n, seed, method, student, compat in [
        (-1.5, 7, 0, "kl", "vit_small", True), (0.0, 3, 1, "kl-dp", "resnet50", False),
        (2.25, 2**53, 2, "kl-dp", "it's", None), (None, 0, 3, None, "vit_base", True),
        (math.inf, -4, 4, "KL", "ünïcode", False),
    ]
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [
        {**row, "run_id": str(i), "status": "ok", "created": "2025"} for i, row in enumerate(ROWS)
    ]
    store.write(tmp_path, "transfer", rows)
    return tmp_path


def seeds(folder: Path, text: str) -> list[int]:
    """Seeds, which number the rows, of those that are found where they are stored."""
    found = scan([folder], "transfer", ["seed"], parse(text, KINDS))
    assert found.left_out == len(ROWS) - len(found.rows)
    return sorted(found.rows["seed"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("delta > 0", [2, 4]),
        ("0 <= delta < 2.5", [1, 2]),
        ("not delta > 0", [0, 1]),
        ("delta is None", [3]),
        ("delta is not None and delta == None or seed == 1", [1]),
        ("method == 'kl'", [0]),
        ("method != 'kl'", [1, 2, 4]),
        ("method is not None", [0, 1, 2, 4]),
        ("method in ['kl', \"KL\"]", [0, 4]),
        ("seed not in (0, 2.0)", [1, 3, 4]),
        ("'vit' in student", [0, 3]),
        ("'vit' not in student", [1, 2, 4]),
        ('student == "it\'s"', [2]),
        ("student == 'ünïcode'", [4]),
        ("student > 'resnet50'", [0, 3, 4]),
        ("reference_compat", [0, 3]),
        ("reference_compat == False", [1, 4]),
        ("not reference_compat", [1, 4]),
        ("n / 2 == 3.5", [0]),
        ("n / 0 > 0", []),
        ("n / (seed - 1) > 0", [2]),
        ("delta * 2 - seed + 1 < -n / 7", [0]),
        ("-delta >= 1.5", [0]),
        ("(delta > 0 or delta < 0) and seed > 0", [2, 4]),
        ("method ==\n   'kl'", [0]),
        ("n > 1e30", []),
    ],
)
def test_conditions_against_rows_picked_by_hand(
    folder: Path, text: str, expected: list[int]
) -> None:
    assert seeds(folder, text) == expected
    frame = pd.DataFrame(ROWS).assign(status="ok")
    frame["method"] = frame["method"].astype(
        pd.CategoricalDtype(["KL", "kl", "kl-dp"], ordered=True)
    )
    assert sorted(frame["seed"][meets(frame, parse(text, KINDS))]) == expected


def test_lists_are_there_or_not(tmp_path: Path) -> None:
    rows = [{**row, "run_id": str(i), "status": "ok", "created": "2025",
             "curve_loss": [1.0] if i % 2 else None} for i, row in enumerate(ROWS)]  # fmt: skip
    store.write(tmp_path, "transfer", rows)
    assert seeds(tmp_path, "curve_loss is None") == [0, 2, 4]
    assert seeds(tmp_path, "curve_loss != None and seed > 1") == [3]


OPERATORS = {"<": operator.lt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne}


@settings(deadline=None)
@given(st.integers(0, 2**32))
def test_random_conditions_against_python(seed: int) -> None:
    """Conditions of comparisons, `and`, `or`, `not` say of numbers what Python says."""
    pick = random.Random(seed)

    def made(depth: int) -> str:
        if depth == 0:
            sides = [pick.choice(["seed", "n", f"{pick.randint(-4, 4)}"]) for _ in range(2)]
            return f"{sides[0]} {pick.choice(list(OPERATORS))} {sides[1]}"
        parts = [made(depth - 1) for _ in range(2)]
        return (
            f"not ({parts[0]})"
            if pick.random() < 0.3
            else f"({parts[0]} {pick.choice(['and', 'or'])} {parts[1]})"
        )

    text = f"seed >= 0 and {made(pick.randint(0, 3))}"
    frame = pd.DataFrame({"seed": [0, 1, 2, 3], "n": [3, 1, -4, 0], "status": "ok"})
    names: list[dict[str, Any]] = frame[["seed", "n"]].to_dict("records")  # type: ignore[assignment]
    wanted = [bool(eval(text, {}, row)) for row in names]
    assert meets(frame, parse(text, KINDS)).tolist() == wanted


@pytest.mark.parametrize(
    ("text", "message", "at"),
    [
        ("delta > > 3", "not understood", "> 3"),
        ("delta = 3", "not understood", "= 3"),
        ("delta >", "not understood", ""),
        ("delta > 'x'", "a number is compared with a text", "'x'"),
        ("delta", "a number, not a condition", "delta"),
        ("delta and n > 1", "a number where a condition is needed", "delta"),
        ("method + 'x' == 'y'", "a text where a number is needed", "method"),
        ("curve_loss == 3", "only be compared with None", "curve_loss"),
        ("curve_loss in [3]", "only be compared with None", "curve_loss"),
        ("seed in []", "the list is empty", "[]"),
        (f"seed < {'9' * 400}", "no number in rows is as large", "9" * 400),
        ("__import__('os').system('true')", "only columns, values", "__import__"),
        ("delta.real > 1", "only columns, values", "delta.real"),
        ("[n for n in 'x'] == 1", "only columns, values", "["),
        ("delta ** 2 > 1", "only columns, values", "delta **"),
        ("(lambda: delta)() > 1", "only columns, values", "(lambda"),
        ("delta > 1 and n & 3 > 1", "not understood", "n & 3"),
        ("reference_compat < True", "conditions have no order", "True"),
        ("delta is 3", "only None can follow is", "3"),
        ("delta < None", "nothing is more or less than None", "None"),
        ("method in 3", "a number where a text is needed", "3"),
        ("method in student", "in needs a list of values", "student"),
        ("method in [student]", "a list of values is needed", "[student]"),
        ("1 == 1", "it names no column", "1 == 1"),
        ("3j == delta", "only numbers and texts", "3j"),
        ("student == 'ü' and delta > method", "a number is compared with a text", "method"),
    ],
)
def test_what_is_no_condition_is_refused_at_its_place(text: str, message: str, at: str) -> None:
    with pytest.raises(UsageError, match=r"--where") as caught:
        parse(text, KINDS)
    first, shown, caret = caught.value.message.splitlines()
    assert message in first
    assert shown.strip() == text
    assert shown[caret.index("^") :].startswith(at)


def test_spaces_in_texts_stay() -> None:
    (found,) = parse(" student ==\n 'a  b\t' ", KINDS)
    assert found.texts == ("a  b\t",)


def test_texts_and_numbers_that_no_row_can_have(folder: Path) -> None:
    with pytest.raises(UsageError, match="half a sign"):
        parse(r"method == '\ud800'", KINDS)
    assert seeds(folder, f"seed > {2**53 + 1}") == [] and seeds(folder, f"seed > -{2**60}")


def test_unknown_columns_are_named_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="unknown column 'metod'") as caught:
        parse("metod == 'kl'", KINDS)
    assert "method" in caught.value.tip


@pytest.mark.parametrize("text", ["(" * 500 + "delta" + ")" * 500, "not " * 50_000 + "delta > 1"])
def test_nesting_without_end_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse(text, KINDS)


def test_parts_that_hold_together(folder: Path) -> None:
    parts = parse("delta > 0 and (n > 1 and 2 * seed >= -n) and (n < 1 or seed > 0)", KINDS)
    assert [part.columns for part in parts] == [("delta",), ("n",), ("seed", "n"), ("n", "seed")]
    for chosen, wanted in (
        (parts, [2]),
        (parts[:1], [2, 4]),
        (parts[1:2], [0, 1, 2]),
        ([], range(5)),
    ):
        assert sorted(scan([folder], "transfer", ["seed"], chosen).rows["seed"]) == list(wanted)
