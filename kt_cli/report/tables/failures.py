"""Runs without a result, by error."""

from __future__ import annotations

import pandas as pd

from kt_cli.report.captions import counted
from kt_cli.report.groups import native
from kt_cli.report.query import Query
from kt_cli.report.read import Results
from kt_cli.report.table import Column, Table

TITLE = "Failed runs"
NEEDS: dict[str, tuple[str, ...]] = dict.fromkeys(
    ("pretrain", "models", "complementarity", "transfer"), ()
)
COLUMNS = (
    Column("stage", "stage", "text"),
    Column("runs", "runs", "count"),
    Column("error", "error", "text"),
    Column("example", "for example", "text"),
)
STAGES = {
    "pretrain": "pretrain",
    "models": "predict",
    "complementarity": "pairs",
    "transfer": "transfer",
}


def failure_tables(results: Results, query: Query) -> list[Table]:
    """One table for each sweep in which runs failed; the query chooses no failures."""
    failed = [_failed_runs(results, table) for table in STAGES]
    runs = pd.concat([frame for frame in failed if len(frame)] or failed[:1])
    return [_failures(str(name), rows) for name, rows in runs.groupby("sweep", sort=True)]


def no_failures() -> Table:
    return Table("failures", TITLE, COLUMNS, (), notes=("No run failed.",))


def _failed_runs(results: Results, table: str) -> pd.DataFrame:
    rows = results.failed(table)
    names = ["teacher", "student"] if "teacher" in rows else ["model"]
    one, *other = (rows[name].astype(object) for name in names)
    example = one + " → " + other[0] if other else one
    columns = {
        "sweep": rows["sweep"].astype(object),
        "stage": STAGES[table],
        "error": rows["error"].astype(object).fillna("unknown"),
        "example": example,
    }
    return pd.DataFrame(columns)


def _failures(sweep: str, runs: pd.DataFrame) -> Table:
    failed = [
        (str(stage), len(same), str(error), native(same["example"].dropna().min()))
        for (stage, error), same in runs.groupby(["stage", "error"])
    ]
    order = list(STAGES.values())
    rows = tuple(sorted(failed, key=lambda row: (order.index(row[0]), -row[1], row[2])))
    notes = (f"n = {counted(len(runs), 'run')} without a result; other tables leave them out.",)
    return Table("failures", TITLE, COLUMNS, rows, f"Sweep {sweep}", notes, {"sweep": sweep})
