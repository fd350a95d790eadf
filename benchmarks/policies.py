"""What hurts a student and what helps, from the rows of four sweeps.

    python -m benchmarks.policies results/{policies,statistics,controls,guard}

Prints the tables of docs/policies.md. Seeds are averaged to one value for each pair first; means
and their 95% intervals are those of `kt report`, which leave out one model after the other.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pandas as pd

from kt_cli.knowledge.significance import SIGNIFICANT, mcnemar
from kt_cli.report.intervals import mean_interval
from kt_cli.report.methods import method_rank
from kt_cli.report.table import Interval
from kt_cli.rows import store

PAIR = ["teacher", "student"]
COLUMNS = [
    *PAIR, "method", "seed", "bn", "n", "status", "delta", "gain", "loss", "guard_alpha",
    "delta_unguarded", "gain_unguarded", "loss_unguarded", "delta_statistics", "student_acc",
]  # fmt: skip
HEAD = ("Δ", "success %", "gain", "loss", "sig. gain %", "sig. loss %")
SHARES = ("success", "won", "lost", "gain", "loss")  # in percent of runs, or of images
NONE = "none"  # no guard
POLICIES = ("train", "eval", "recompute")


def outcomes(folder: Path) -> pd.DataFrame:
    """One row for each run; of guarded ones another for what they would have been without."""
    rows = store.read([folder], "transfer", COLUMNS)
    failed = rows[rows["status"] != store.OK]
    if len(failed):
        print(f"{len(failed)} transfers failed and take no part.")
    rows = rows[rows["status"] == store.OK]
    names = rows["method"].str.split("+", n=1)
    rows["method"], rows["guard"] = names.str[0], names.str[1].fillna(NONE).replace("guard", "gain")
    plain = {f"{name}_unguarded": name for name in ("delta", "gain", "loss")}
    without = rows[rows["guard"] != NONE].drop(columns=list(plain.values())).rename(columns=plain)
    without = without.drop_duplicates([*PAIR, "method", "seed", "bn"])
    without = without.assign(guard=NONE, guard_alpha=1.0)
    found = pd.concat([without, rows.drop(columns=list(plain))])
    counts = [(found[k] * found["n"] / 100).round().astype(int) for k in ("gain", "loss")]
    significant = mcnemar(*(c.to_numpy() for c in counts)) < SIGNIFICANT
    for name, which in (("success", True), ("won", significant), ("lost", significant)):
        sign = -1 if name == "lost" else 1
        found[name] = 100.0 * ((sign * found["delta"] > 0) & which)
    return found


def over_pairs(rows: pd.DataFrame, column: str) -> Interval:
    """The mean of a column over pairs, each the mean of its seeds."""
    means = rows.groupby(PAIR, as_index=False)[column].mean()
    return mean_interval(means, column, percent=column in SHARES)


def shown(found: Interval, pattern: str) -> str:
    """`+0.26 [−0.07, +0.63]`; without an interval where there is none."""
    ends = "" if math.isnan(found.low) else f" [{found.low:{pattern}}, {found.high:{pattern}}]"
    return f"{found.value:{pattern}}{ends}".replace("-", "−")


def summary(rows: pd.DataFrame) -> list[str]:
    """The columns of HEAD."""
    signed = [shown(over_pairs(rows, "delta"), "+.2f")]
    shares = [shown(over_pairs(rows, name), ".0f") for name in ("success", "won", "lost")]
    moved = [shown(over_pairs(rows, name), ".2f") for name in ("gain", "loss")]
    return [*signed, shares[0], *moved, *shares[1:]]


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    lines = [head, ["---"] + ["--:"] * (len(head) - 1), *rows]
    print("\n".join(f"| {' | '.join(line)} |" for line in lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    for name in ("policies", "statistics", "controls", "guard"):
        parser.add_argument(name, type=Path, help=f"results of sweeps/{name}.toml")
    chosen = parser.parse_args()
    rows = section("All methods, running statistics updated as in the paper", chosen.policies)
    markdown(
        ["method", *HEAD], ([f"`{method}`", *summary(some)] for method, _, some in cells(rows))
    )
    statistics(chosen.statistics, chosen.controls)
    rows = section("Much to gain and to lose", chosen.guard)
    markdown(["method", "guard", *HEAD, "mean α"], (
        [f"`{method}`", guard, *summary(some), f"{some['guard_alpha'].mean():.2f}"]
        for method, guard, some in cells(rows)
    ))  # fmt: skip


def statistics(folder: Path, controls: Path) -> None:
    """Each policy for running statistics, and what one changes against another on the same pair."""
    rows = section("Running statistics, by policy", folder)
    trained = store.read([folder], "pretrain", ["model", "curve_acc", "accuracy"])
    taught = trained[trained["model"].isin(rows["student"].unique())]
    print(f"Students: at least {taught['curve_acc'].str[-1].min():.2f}% on their training images, "
          f"{taught['accuracy'].min():.2f} to {taught['accuracy'].max():.2f}% on the others; "
          f"teachers from {trained['accuracy'].min():.2f}%.\n")  # fmt: skip
    markdown(["method", "--bn", *HEAD, "Δ of statistics alone"], (
        [f"`{method}`", bn, *summary(some), shown(over_pairs(some, "delta_statistics"), "+.2f")]
        for method, _, both in cells(rows)
        for bn in POLICIES
        if len(some := both[both["bn"] == bn])
    ))  # fmt: skip
    print("\nDifferences in Δ on the same pair and seed:\n")
    markdown(["method", "eval − train", "recompute − train", "Δ − Δ of `self`, train"],
             differences(rows))  # fmt: skip
    rows = section("Without batch normalisation", controls)
    markdown(
        ["method", *HEAD], ([f"`{method}`", *summary(some)] for method, _, some in cells(rows))
    )


def differences(rows: pd.DataFrame) -> Iterator[list[str]]:
    key = [*PAIR, "seed"]
    wide = rows.pivot_table(index=key, columns=["method", "bn"], values="delta")
    for method in sorted(rows["method"].unique(), key=method_rank):
        against = [wide[method][bn] - wide[method]["train"] for bn in POLICIES[1:]]
        against.append(wide[method]["train"] - wide["self"]["train"])
        yield [f"`{method}`", *(
            shown(over_pairs(one.rename("delta").reset_index(), "delta"), "+.2f")
            for one in against
        )]  # fmt: skip


def section(title: str, folder: Path) -> pd.DataFrame:
    """Head a table of a sweep, and give its rows."""
    print(f"\n### {title}\n")
    rows = outcomes(folder)
    runs = rows.drop_duplicates([*PAIR, "method", "seed", "bn"]).shape[0]
    pairs, seeds = rows.groupby(PAIR).ngroups, rows["seed"].nunique()
    print(f"{runs:,} transfers of {pairs} pairs of {rows['student'].nunique()} students and "
          f"{rows['teacher'].nunique()} teachers, {seeds} seeds.\n")  # fmt: skip
    return rows


def cells(rows: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """The rows of each method without a guard, and with each."""
    for method in sorted(rows["method"].unique(), key=method_rank):
        for guard in sorted(rows["guard"].unique(), key=lambda name: (name != NONE, name)):
            some = rows[(rows["method"] == method) & (rows["guard"] == guard)]
            if len(some):
                yield method, guard, some


if __name__ == "__main__":
    main()
