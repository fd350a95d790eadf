"""Every table once more from the Parquet rows, with plain pandas and loops."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from scipy.stats import wilcoxon as scipy_wilcoxon

from kt_cli.report.read import read_results
from kt_cli.report.table import NAMES, Interval, MeanStd, Table
from kt_cli.report.tables import build
from kt_cli.rows import store
from tests.report.by_hand import jackknife, mean_ends
from tests.report.records import records

Sweep = Any  # of the conftest beside this file
Record = dict[str, Any]


def rows_of(folder: Path, name: str) -> pd.DataFrame:
    """Finished rows with plain strings."""
    rows = store.read([folder], name)
    return rows[rows["status"] == "ok"].reset_index(drop=True)


def check_all(folder: Path) -> set[str]:
    """Compare every table of a sweep of unambiguous model names; the names of those compared."""
    transfers, tables = rows_of(folder, "transfer"), read_tables(folder)
    for table in tables:
        about = table.group
        if table.name in ("summary", "students", "matrix", "compare", "influence"):
            mine = transfers[transfers["settings"] == about["settings"]]
            CHECKS[table.name](table, mine)
        elif table.name in CHECKS:
            CHECKS[table.name](table, rows_of(folder, table.name))
    return {table.name for table in tables}


def read_tables(folder: Path) -> list[Table]:
    results = read_results([folder])
    return build(results, NAMES)


def check_summary(table: Table, rows: pd.DataFrame) -> None:
    found = {record["method"]: record for record in records(table)}
    assert set(found) == set(rows["method"])
    for method, mine in rows.groupby("method"):
        mine = mine.dropna(subset=["delta"])
        record, delta = found[method], mine["delta"]
        assert record["n"] == len(mine)
        alphas = mine["guard_alpha"].dropna()
        abstained = 100 * np.mean(alphas == 0) if len(alphas) else None
        assert record["abstained"] == pytest.approx(abstained)
        won = mine.assign(won=100.0 * (delta > 0))
        check_ends(record["success_rate"], mean_ends(won, "won", percent=True))
        check_ends(record["delta_interval"], mean_ends(mine, "delta"))
        assert record["success_rate"].value == pytest.approx(100 * np.mean(delta > 0))
        pairs = mine.groupby(["student", "teacher"])["delta"].mean().reset_index()
        by_student = [100 * np.mean(part["delta"] > 0) for _, part in pairs.groupby("student")]
        assert record["paper_success_rate"] == pytest.approx(np.median(by_student))
        assert record["delta"].mean == pytest.approx(delta.mean())
        assert same(record["delta"].std, delta.std(ddof=1))
        assert record["delta_interval"].value == record["delta"].mean
        for key in ("gain", "loss", "transfer_rate", "share_taught"):
            assert same(record[key], mine[key].mean())
        sides = {
            "stronger": mine["acc_diff"] > 0.5,
            "equal": mine["acc_diff"].abs() <= 0.5,
            "weaker": mine["acc_diff"] < -0.5,
        }
        for side, chosen in sides.items():
            assert record[f"n_{side}"] == chosen.sum()
            assert same(record[f"delta_{side}"], delta[chosen].mean())
        for key, sign in (("significant_gain", 1), ("significant_loss", -1)):
            hits = (mine["transfer_p"] < 0.05) & (sign * delta > 0)
            assert record[key] == pytest.approx(100 * hits.mean())

    for key, column in (("success_rate", "won"), ("delta", "delta")):
        runs = rows.assign(won=100.0 * (rows["delta"] > 0)).dropna(subset=["delta"])
        best = best_by_hand(runs, column)
        p, order = best_p(runs, column, best), [row[0] for row in table.rows]
        assert [i for i, k in table.bold if k == key] == [order.index(best)] * (p < 0.05)


def best_by_hand(rows: pd.DataFrame, column: str) -> str:
    return str(rows.groupby("method")[column].mean().idxmax())


def best_p(rows: pd.DataFrame, column: str, best: str) -> float:
    """The largest p of the best method against another; 1 where an interval reaches zero."""
    index = ["student", "teacher", "seed"]
    wide = rows.pivot_table(index=index, columns="method", values=column)
    p_values = [0.0]
    for other in wide.columns.drop(best):
        pairs = (wide[best] - wide[other]).dropna().groupby(["student", "teacher"]).mean()
        low, _ = mean_ends(pairs.rename("difference").reset_index(), "difference")
        p_values.append(p_by_hand(pairs.to_numpy()) if low > 0 else 1.0)
    return max(p_values) if len(p_values) > 1 else 1.0


def check_students(table: Table, rows: pd.DataFrame) -> None:
    pairs = rows.groupby(["student", "teacher", "method"])["delta"].mean().reset_index()
    accuracies = rows.groupby("student")["student_acc"].first().sort_values(ascending=False)
    assert [r["student_acc"] for r in records(table)] == accuracies.tolist()
    for record in records(table):
        mine = pairs[pairs["student"] == record["student"]]
        assert record["teachers"] == mine.dropna().groupby("method")["teacher"].nunique().max()
        for method in rows["method"].unique():
            values = mine.loc[mine["method"] == method, "delta"]
            check_mean_std(record[method], values)
    known = [(r["student"], rows[(rows["student"] == r["student"]) & rows["delta"].notna()])
             for r in records(table)]  # fmt: skip
    best = {student: best_by_hand(mine, "delta") for student, mine in known if len(mine)}
    p_values = {s: best_p(mine, "delta", best[s]) for s, mine in known if len(mine)}
    wanted = {s for s, p in zip(p_values, holm_by_hand(list(p_values.values())), strict=True)
              if p < 0.05}  # fmt: skip
    students = [r["student"] for r in records(table)]
    assert table.bold == {(students.index(s), best[s]) for s in wanted}


def holm_by_hand(p_values: list[float]) -> list[float]:
    """Of each p the largest of the smaller ones times how many are not smaller than those."""
    return [
        max(min(1.0, q * sum(other >= q for other in p_values)) for q in p_values if q <= p)
        for p in p_values
    ]


def check_matrix(table: Table, rows: pd.DataFrame) -> None:
    mine = rows[rows["method"] == table.group["method"]]
    wanted = mine.pivot_table(index="student", columns="teacher", values="delta", aggfunc="mean")
    assert {r["student"] for r in records(table)} == set(wanted.index)
    for record in records(table):
        for teacher in wanted.columns:
            value = wanted.loc[record["student"], teacher]
            assert same(record[teacher], value)
        check_mean_std(record["mean"], wanted.loc[record["student"]].dropna())
    gains = mine.assign(p=np.where(mine["delta"] > 0, mine["transfer_p"], 1.0))
    p_values = gains.groupby(["student", "teacher"])["p"].max()
    corrected = holm_by_hand(p_values.tolist())
    bold = {pair for pair, p in zip(p_values.index, corrected, strict=True) if p < 0.05}
    assert {(records(table)[i]["student"], key) for i, key in table.bold} == bold


def check_compare(table: Table, rows: pd.DataFrame) -> None:
    wide = rows.pivot_table(index=["student", "teacher", "seed"], columns="method", values="delta")
    assert len(table.rows) == math.comb(len(wide.columns), 2)
    p_values = []
    for record in records(table):
        both = (wide[record["method"]] - wide[record["against"]]).dropna()
        pairs = both.groupby(["student", "teacher"]).mean()
        assert record["pairs"] == len(pairs)
        assert record["difference"].value == pytest.approx(pairs.mean())
        both_ends = mean_ends(pairs.rename("difference").reset_index(), "difference")
        check_ends(record["difference"], both_ends)
        signs = [int((np.sign(pairs) == sign).sum()) for sign in (1, 0, -1)]
        assert [record[key] for key in ("better", "equal", "worse")] == signs
        assert record["p"] == pytest.approx(p_by_hand(pairs.to_numpy()), abs=1e-12)
        p_values.append(record["p"])
    corrected = [record["p_holm"] for record in records(table)]
    assert corrected == pytest.approx(holm_by_hand(p_values), abs=1e-9)


def p_by_hand(differences: np.ndarray) -> float:
    """Wilcoxon's p: from the sums that all signs of the ranks give, of many SciPy's."""
    known = np.round(differences[differences != 0], 12)
    if len(known) > 50:
        return float(scipy_wilcoxon(known, method="approx").pvalue)
    ranks = pd.Series(np.abs(known)).rank().tolist()
    chances = {0.0: 1.0}
    for rank in ranks:
        both = [(total + sign * rank, p / 2) for total, p in chances.items() for sign in (1, -1)]
        chances = defaultdict(float)
        for total, p in both:
            chances[total] += p
    observed = abs(np.dot(np.sign(known), ranks))
    return min(1.0, sum(p for total, p in chances.items() if abs(total) >= observed))


def check_influence(table: Table, rows: pd.DataFrame) -> None:
    plain = ("student_acc", "teacher_acc", "acc_diff", "pos_flips")
    for record in records(table):
        if record["property"] not in plain:
            continue
        for method, mine in rows.groupby("method"):
            by_pair = mine.groupby(["student", "teacher"])[["delta", record["property"]]].mean()
            by_pair = by_pair.round(9)  # values that differ in the last bit are ties
            wanted = spearmanr(by_pair["delta"], by_pair[record["property"]]).statistic
            assert same(record[method].value, wanted)
            ends = (math.nan, math.nan)
            if len(by_pair) >= 10 and abs(wanted) < 1:
                both = by_pair.reset_index().rename(columns={record["property"]: "x"})
                half = jackknife(both, fisher)
                ends = tuple(np.tanh(np.arctanh(wanted) + np.array([-half, half])))
            check_ends(record[method], ends)


def fisher(pairs: pd.DataFrame) -> float:
    return float(np.arctanh(spearmanr(pairs["delta"], pairs["x"]).statistic))


def check_complementarity(table: Table, rows: pd.DataFrame) -> None:
    random = rows["teacher_key"].str.startswith("random:")
    trained = rows[~random].sort_values(["teacher", "student"], kind="stable")
    models = pd.Series(
        list(map(frozenset, zip(trained["teacher"], trained["student"], strict=True)))
    )
    first = trained.index[~models.duplicated()]
    values = {
        **{key: trained[key] for key in ("pos_flips", "flip_entropy")},
        **{key: trained.loc[first, key] for key in ("agreement", "kappa", "oracle_acc")},
        **{f"top{p}_classes": trained[f"top{p}_classes"] for p in (2, 5, 20, 50)},
        **{
            f"top{p}_excess": trained[f"top{p}_similarity"] - trained["class_similarity"]
            for p in (2, 5, 20, 50)
        },
        "pos_flips_weaker": trained.loc[trained["acc_diff"] < 0, "pos_flips"],
        "pos_flips_random": rows.loc[random, "pos_flips"],
    }
    for record in records(table):
        known = values.get(record["quantity"])
        if known is None:
            continue
        known = known.dropna()
        assert record["pairs"] == len(known)
        if len(known):
            assert [record["min"], record["max"]] == [known.min(), known.max()]
            quantiles = [record[key] for key in ("q05", "median", "q95")]
            assert quantiles == pytest.approx(known.quantile([0.05, 0.5, 0.95]).tolist())
            assert record["mean"].value == pytest.approx(known.mean())
            pairs = rows.loc[known.index, ["student", "teacher"]].assign(value=known)
            if record["quantity"] in ("agreement", "kappa", "oracle_acc"):  # whoever teaches
                turned = pairs.rename(columns={"student": "teacher", "teacher": "student"})
                pairs = pd.concat([pairs, turned], ignore_index=True)
            percent = record["quantity"].partition("_")[0] in ("pos", "agreement", "oracle")
            check_ends(record["mean"], mean_ends(pairs, "value", percent))


def check_ends(found: Interval, wanted: tuple[float, float]) -> None:
    assert (found.low, found.high) == pytest.approx(wanted, nan_ok=True)


def check_models(table: Table, rows: pd.DataFrame) -> None:
    ranked = rows.sort_values(["accuracy", "model"], ascending=[False, True])
    for key in ("model", "accuracy", "params_m"):
        assert [record[key] for record in records(table)] == ranked[key].tolist()


CHECKS = {
    "summary": check_summary,
    "students": check_students,
    "matrix": check_matrix,
    "compare": check_compare,
    "influence": check_influence,
    "complementarity": check_complementarity,
    "models": check_models,
}


def same(found: float | None, wanted: float) -> bool:
    if found is None or math.isnan(found):
        return math.isnan(wanted)
    return found == pytest.approx(wanted)


def check_mean_std(found: MeanStd | None, values: pd.Series) -> None:
    if not len(values):
        assert found is None
        return
    assert found is not None
    assert found.mean == pytest.approx(values.mean())
    assert same(found.std, values.std(ddof=1))
    assert found.n == len(values)


def test_every_table_of_a_full_sweep(filled: Sweep) -> None:
    names = [*filled.MODELS[:2], "random:resnet50#0"]
    filled.write("complementarity", [
        filled.pair(names[2], names[0], teacher_key="random:resnet50#0"),
        filled.pair(names[2], names[1], teacher_key="random:resnet50#0"),
        filled.pair(*names[:2], eval_data="e" * 16, class_embedding="head:x", class_similarity=0.1,
                    top2_similarity=0.5, top2_similarity_pct=97.0),
    ])  # fmt: skip
    checked = check_all(filled.folder)
    assert checked == set(CHECKS)


def test_every_table_of_a_patchy_sweep(sweep: Sweep) -> None:
    """Pairs, seeds and methods that are missing here and there, nulls, ties and zeros."""
    rng = np.random.default_rng(1)
    rows = [
        sweep.transfer(t, s, method=method, seed=seed, **tied(rng))
        for t, s in itertools.permutations((*sweep.MODELS, "a", "b"), 2)
        for method in ("kl", "kl-dp", "own")
        for seed in (0, 1, 2)
        if rng.random() < 0.5
    ]
    sweep.write("transfer", rows)
    sweep.write("models", [sweep.model(name) for name in sweep.MODELS])
    checked = check_all(sweep.folder)
    assert checked == set(CHECKS) - {"complementarity"}


def tied(rng: np.random.Generator) -> Record:
    delta = float(rng.integers(-3, 4)) / 2
    return {"delta": delta, "transfer_rate": None if rng.random() < 0.2 else 10.0}
