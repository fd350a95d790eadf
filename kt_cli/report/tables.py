"""The tables of a report, each for one group of comparable rows; nothing is averaged across.

summary: transfer by method · students: Δ by student and method · complementarity: ρ⁺ and its
kin over ordered pairs · models: their accuracy · failures: runs without a result, by error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from kt_cli import schema, store
from kt_cli.complementarity.significance import SIGNIFICANT, holm
from kt_cli.errors import DataError
from kt_cli.report import stats
from kt_cli.report.captions import counted, data_caption, left_out, limit_note
from kt_cli.report.groups import SAME_DATA, Group, Results, native, read_results, split
from kt_cli.report.table import NAMES, Column, Row, Table
from kt_cli.report.transfers import student_tables, summary_tables


def sweep_tables(
    paths: Iterable[Path],
    names: Sequence[str] = NAMES,
    on_skip: store.OnSkip | None = None,
) -> list[Table]:
    """The tables `names` of the sweeps in `paths`.

    Raises:
        DataError: a path is missing or has no readable rows, or a table that was asked for has
            no rows (failures may be empty).
    """
    return build(read_results(paths, on_skip), names)


def build(results: Results, names: Sequence[str] = NAMES) -> list[Table]:
    """As `sweep_tables`, from rows that are read already."""
    found = {name: BUILDERS[name](results) for name in NAMES}
    wanted = [name for name in NAMES if name in names]
    if set(wanted) != set(NAMES):
        for name in wanted:
            if not found[name] and name != "failures":
                filled = ", ".join(name for name in NAMES if found[name]) or "none yet"
                raise DataError(f"the results have no table {name!r}", f"They have: {filled}.")
        if wanted == ["failures"] and not found["failures"]:
            return [Table("failures", FAILURES_TITLE, FAILURES, (), notes=("No run failed.",))]
    return [table for name in wanted for table in found[name]]


QUANTITIES: dict[str, str] = {
    "pos_flips": "ρ⁺ (%)",
    "pos_flips_weaker": "ρ⁺ from weaker teachers (%)",
    "pos_flips_random": "ρ⁺ from randomly initialised teachers (%)",
    "agreement": "agreement (%)",
    "kappa": "error consistency κ",
    "flip_entropy": "entropy of ρ⁺ over classes (nats)",
    **{f"top{p}_classes": f"classes that hold {p}% of ρ⁺" for p in schema.TOP_PERCENTS},
    **{
        f"top{p}_similarity_pct": f"percentile of their similarity (top {p}%)"
        for p in schema.TOP_PERCENTS
    },
}
COMPLEMENTARITY = (
    Column("quantity", kind="text", detail=True),
    Column("label", "over ordered pairs", "text"),
    Column("pairs", "pairs", "count"),
    Column("min", "min"),
    Column("q05", "5%"),
    Column("median", "median"),
    Column("mean", "mean"),
    Column("max", "max"),
    Column("min_pair", kind="text", detail=True),
    Column("max_pair", kind="text", detail=True),
)


def complementarity_tables(results: Results) -> list[Table]:
    failed = results.failed("complementarity")
    return [_complementarity(g, failed) for g in split(results.ok("complementarity"), SAME_DATA)]


def _complementarity(group: Group, failed: pd.DataFrame) -> Table:
    every = group.rows.sort_values(["teacher", "student"], ignore_index=True)
    untrained = every["teacher_key"].str.startswith("random:")
    pairs = every[~untrained].reset_index(drop=True)
    weaker = pairs["pos_flips"].where(pairs["acc_diff"] < 0)
    pairs = pairs.assign(pos_flips_weaker=weaker)
    random = every[untrained].reset_index(drop=True)
    random = random.assign(pos_flips_random=random["pos_flips"])
    spreads = [
        _spread_row(random if column == "pos_flips_random" else pairs, column)
        for column in QUANTITIES
        if column != "pos_flips_random" or len(random)
    ]
    rows = tuple(row for row in spreads if row[2] or not str(row[0]).endswith("_pct"))
    models = pd.concat([pairs["teacher"], pairs["student"]]).nunique()
    classes = int(group.rows["num_classes"].iloc[0])
    notes = (
        f"n = {counted(len(pairs), 'ordered pair')} of {counted(models, 'model')}. "
        "ρ⁺(teacher → student): images that the teacher has right and the student wrong.",
        *_extremes(pairs),
        *_different(pairs),
        *_alike(pairs),
        f"Entropy of flips that are uniform over the C = {classes:,} classes: "
        f"ln C = {math.log(classes):.2f} nats.",
        *left_out(failed, group, "run"),
        *limit_note(group),
    )
    return Table("complementarity", "Complementary knowledge", COMPLEMENTARITY, rows,
                 data_caption(group), notes, group.about)  # fmt: skip


def _spread_row(pairs: pd.DataFrame, column: str) -> Row:
    values = pairs[column]
    low, high = _extreme_pairs(pairs, values)
    return (column, QUANTITIES[column], *stats.spread(values), low, high)


def _extreme_pairs(
    pairs: pd.DataFrame, values: pd.Series[float]
) -> tuple[str, str] | tuple[None, None]:
    """The pairs with the lowest and the highest value; of equal ones the first by name."""
    if not values.count():
        return None, None
    low, high = (
        pairs.iloc[int(find(values.to_numpy(dtype=float)))] for find in (np.nanargmin, np.nanargmax)
    )
    return f"{low['teacher']} → {low['student']}", f"{high['teacher']} → {high['student']}"


def _extremes(pairs: pd.DataFrame) -> list[str]:
    flips = pairs["pos_flips"]
    low, high = _extreme_pairs(pairs, flips)
    if low is None:
        return []
    return [f"Smallest ρ⁺: {low} ({flips.min():.2f}%); largest: {high} ({flips.max():.2f}%)."]


def _different(pairs: pd.DataFrame) -> list[str]:
    """How many accuracies differ, each two models counted once."""
    once = pairs[pairs["teacher_key"] < pairs["student_key"]]["mcnemar_p"].dropna()
    if once.empty:
        return []
    surely = int((holm(once.to_numpy()) < SIGNIFICANT).sum())
    return [
        f"The accuracies of {surely:,} of {counted(len(once), 'pair')} of models differ "
        "significantly (McNemar's exact test, p < 0.05 after Holm's correction)."
    ]


def _alike(pairs: pd.DataFrame) -> list[str]:
    sources = sorted(s for s in pairs["class_embedding"].dropna().unique() if not s.endswith(":"))
    if not sources:
        return []
    return [
        "Similarity: mean cosine of the classes that hold a share of ρ⁺, as its percentile among "
        f"random sets of as many classes; classes compared by {', '.join(sources)}."
    ]


MODELS = (
    Column("model", "model", "text"),
    Column("accuracy", "top-1\n(%)"),
    Column("accuracy_low", "from\n(%)"),
    Column("accuracy_high", "to\n(%)"),
    Column("top5", "top-5\n(%)"),
    Column("params_m", "params\n(M)"),
    Column("input_size", "input\n(px)", "count"),
)


def model_tables(results: Results) -> list[Table]:
    failed = results.failed("models")
    return [_models(group, failed) for group in split(results.ok("models"), SAME_DATA)]


def _models(group: Group, failed: pd.DataFrame) -> Table:
    ranked = group.rows.sort_values(["accuracy", "model"], ascending=[False, True])
    keys = [column.key for column in MODELS]
    rows = tuple(tuple(map(native, row)) for row in ranked[keys].itertuples(index=False))
    notes = (
        f"n = {counted(len(rows), 'model')}. From, to: 95% interval of top-1 (Wilson).",
        *[f"{r.model}: {r.warning}" for r in ranked.itertuples() if isinstance(r.warning, str)],
        *left_out(failed, group, "model"),
        *limit_note(group),
    )
    return Table("models", "Models", MODELS, rows, data_caption(group), notes, group.about)


FAILURES_TITLE = "Failed runs"
FAILURES = (
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


def failure_tables(results: Results) -> list[Table]:
    failed = [_failed_runs(results, table) for table in STAGES]
    runs = pd.concat([frame for frame in failed if len(frame)] or failed[:1])
    return [_failures(str(name), rows) for name, rows in runs.groupby("sweep", sort=True)]


def _failed_runs(results: Results, table: str) -> pd.DataFrame:
    rows = results.failed(table)
    pairs = "teacher" in rows
    example = rows["teacher"] + " → " + rows["student"] if pairs else rows["model"]
    error = rows["error"].fillna("unknown")
    columns = {"sweep": rows["sweep"], "stage": STAGES[table], "error": error, "example": example}
    return pd.DataFrame(columns)


def _failures(sweep: str, runs: pd.DataFrame) -> Table:
    failed = [
        (str(stage), len(same), str(error), native(same["example"].dropna().min()))
        for (stage, error), same in runs.groupby(["stage", "error"])
    ]
    order = list(STAGES.values())
    rows = tuple(sorted(failed, key=lambda row: (order.index(row[0]), -row[1], row[2])))
    notes = (f"n = {counted(len(runs), 'run')} without a result; other tables leave them out.",)
    return Table("failures", FAILURES_TITLE, FAILURES, rows, f"Sweep {sweep}", notes,
                 {"sweep": sweep})  # fmt: skip


BUILDERS: dict[str, Callable[[Results], list[Table]]] = {
    "summary": summary_tables,
    "students": student_tables,
    "complementarity": complementarity_tables,
    "models": model_tables,
    "failures": failure_tables,
}
