"""The sweep that benchmarks make up, read back and reported on."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import rows
from kt_cli.report.formats import FORMATS
from kt_cli.report.query import Query
from kt_cli.rows import store
from tests.report.records import sweep_tables

MODELS, TRANSFERS = 24, 1500


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results") / "made-up"
    rows.write(folder, MODELS, TRANSFERS, part=400)
    return folder


def raw(folder: Path, table: str) -> pd.DataFrame:
    parts = [pq.read_table(part) for part in store.list_parts(folder / table)]
    return pa.concat_tables(parts).to_pandas()


def test_rows_agree_with_themselves(folder: Path) -> None:
    transfers, pairs = raw(folder, "transfer"), raw(folder, "complementarity")
    assert (len(transfers), len(pairs)) == (TRANSFERS, MODELS * (MODELS - 1))
    for table in (transfers, pairs, raw(folder, "models")):
        assert table["run_id"].is_unique
    assert not pairs.duplicated(["teacher", "student"]).any()
    assert not transfers.duplicated(["teacher", "student", "method"]).any()
    for table in (transfers, pairs):
        assert (table["teacher"] != table["student"]).all()
        difference = table["pos_flips"] - table["neg_flips"]
        np.testing.assert_allclose(difference, table["acc_diff"], atol=1e-9)
    np.testing.assert_allclose(transfers["gain"] - transfers["loss"], transfers["delta"])
    np.testing.assert_allclose(
        transfers["after_acc"] - transfers["student_acc"], transfers["delta"], atol=1e-9
    )
    assert (transfers[["gain", "loss"]] >= 0).to_numpy().all()


@pytest.mark.parametrize("where", ["", "student_acc > 87 and method in ['kl', 'kl-dp', 'crd']"])
def test_the_summary_is_what_pandas_says(folder: Path, where: str) -> None:
    text = FORMATS["csv"](sweep_tables([folder], ["summary"], Query(where=where)))
    found = pd.read_csv(io.StringIO(text)).set_index("method").sort_index()
    every = raw(folder, "transfer")
    every = every.query(where) if where else every
    by_method = every.groupby("method")
    np.testing.assert_array_equal(found["n"], by_method.size())
    for column in ("delta", "gain", "loss", "transfer_rate", "share_taught"):
        np.testing.assert_allclose(found[column], by_method[column].mean())
    np.testing.assert_allclose(found["delta_std"], by_method["delta"].std())
    won = every.assign(won=100.0 * (every["delta"] > 0)).groupby("method")["won"].mean()
    np.testing.assert_allclose(found["success_rate"], won)


def test_the_same_seed_makes_the_same_rows(tmp_path: Path) -> None:
    tables = []
    for name in ("a", "b"):
        rows.write(tmp_path / name, 5, 30, part=100)
        tables.append(raw(tmp_path / name, "transfer"))
    pd.testing.assert_frame_equal(*tables)
