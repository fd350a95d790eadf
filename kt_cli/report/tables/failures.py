"""Runs without a result, by error."""

from __future__ import annotations

import pandas as pd

from kt_cli.errors import counted
from kt_cli.report.groups import native
from kt_cli.report.query import Query
from kt_cli.report.read import Results
from kt_cli.report.table import Column, Table

STAGES = {
    "pretrain": "pretrain", "models": "predict", "complementarity": "pairs", "transfer": "transfer"
}  # fmt: skip
NEEDS: dict[str, tuple[str, ...]] = dict.fromkeys(STAGES, ())
TITLE = "Failed runs"
LONGEST = 200  # letters of an error; JSON and CSV have all
COLUMNS = (
    Column("stage", "stage", "text"),
    Column("runs", "runs", "count"),
    Column("error", "error", "text", most=LONGEST),
    Column("example", "for example", "text"),
)


def none(query: Query) -> Table:
    """That no run failed, or none that the query may be about."""
    chosen = f" of which {query.where} may hold" if query.where else ""
    return Table("failures", TITLE, COLUMNS, (), notes=(f"No run failed{chosen}.",))


def tables(results: Results, query: Query) -> list[Table]:
    """One table for each sweep in which runs failed; the query chooses no failures."""
    failed = [_failed_runs(results, table) for table in STAGES]
    runs = pd.concat([frame for frame in failed if len(frame)] or failed[:1])
    return [_table(str(name), rows) for name, rows in runs.groupby("sweep", sort=True)]


def _failed_runs(results: Results, table: str) -> pd.DataFrame:
    rows = results.failed(table).astype({"sweep": object, "error": object})
    example = rows["model"] if "model" in rows else rows["teacher"] + " → " + rows["student"]
    errors = rows["error"].fillna("unknown")
    return rows[["sweep"]].assign(stage=STAGES[table], error=errors, example=example.astype(object))


def _table(sweep: str, runs: pd.DataFrame) -> Table:
    failed = [
        (str(stage), len(same), str(error), native(same["example"].dropna().min()))
        for (stage, error), same in runs.groupby(["stage", "error"])
    ]
    order = list(STAGES.values())
    rows = tuple(sorted(failed, key=lambda row: (order.index(row[0]), -row[1], row[2])))
    notes = (f"n = {counted(len(runs), 'run')} without a result; other tables leave them out.",)
    return Table("failures", TITLE, COLUMNS, rows, f"Sweep {sweep}", notes, {"sweep": sweep})
