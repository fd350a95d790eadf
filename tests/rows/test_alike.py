from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kt_cli.rows import parts, store
from kt_cli.rows.alike import alike
from kt_cli.rows.scan import is_one_number, scan

COUNT = 2000
ALIKE = {"n": 7, "data": "imagenet", "limit": None, "attempt": 1, "status": store.OK}


def columns(**more: Any) -> dict[str, Any]:
    ids = [f"{i:08d}" for i in range(COUNT)]
    values = np.where(np.arange(COUNT) % 2, np.nan, 0.5)  # of which statistics say 0.5 alone
    return {"run_id": ids, "model": ids, "accuracy": 0.5, "top5": values, **ALIKE, **more}


@pytest.mark.parametrize("second", [{}, {"n": 8, "data": None}, {"limit": [None, 3] * 1000}])
def test_what_is_not_read_is_as_if_it_were(tmp_path: Path, second: dict[str, Any]) -> None:
    for one in ({}, second):
        store.write_columns(tmp_path, "models", columns(**one))
    paths, schema = parts.list_parts(tmp_path / "models"), parts.schema("models")
    found = alike(map(pq.read_metadata, paths), schema.names, schema)
    assert {name: found[name] for name in ALIKE if name in found} == {
        name: value for name, value in ALIKE.items() if name not in second
    }
    assert not {"run_id", "model", "accuracy", "top5"} & found.keys()
    reader = parts.Parts([tmp_path], "models", texts=("data", "model", "status"))
    names = ["limit", "model", "top5", "n", "data", "attempt", "accuracy", "status", "run_id"]
    read = reader.rows(paths, names)
    for name in names:
        plain = pa.concat_tables(pq.read_table(path, columns=[name]) for path in paths)[name]
        assert read[name].cast(plain.type).to_pandas().equals(plain.to_pandas()), name
    assert reader.rows(paths, ["n"]).num_rows == 2 * COUNT


def test_parts_of_few_rows_say_nothing(tmp_path: Path) -> None:
    store.write(tmp_path, "models", [{"run_id": "r", "status": store.OK, "n": 7}])
    schema = parts.schema("models")
    about = map(pq.read_metadata, parts.list_parts(tmp_path / "models"))
    assert alike(about, schema.names, schema) == {}


def test_parts_of_other_tools_may_have_columns_of_several(tmp_path: Path) -> None:
    about = pa.table({"more": [{"n": 1, "m": 2}] * COUNT, "n": [7] * COUNT, "limit": [3] * COUNT})
    pq.write_table(about, tmp_path / "part.parquet")
    known = [pq.read_metadata(tmp_path / "part.parquet")]
    assert alike(known, ["n", "limit"], parts.schema("models")) == {"n": 7, "limit": 3}


def test_a_number_that_is_the_same_in_all_rows_is_in_memory_once(tmp_path: Path) -> None:
    store.write_columns(tmp_path, "models", columns(n=np.arange(COUNT)))
    rows = scan([tmp_path], "models", ["n", "attempt", "accuracy", "top5", "limit", "data"]).rows
    assert [name for name in rows if is_one_number(rows[name])] == ["attempt", "accuracy", "limit"]
    assert rows["attempt"].tolist() == [1] * COUNT and rows["limit"].isna().all()
    assert rows.assign(other=0)["accuracy"].groupby(rows["n"] % 2).sum().tolist() == [500, 500]
