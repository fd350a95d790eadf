"""What hurts a student and what helps, from the rows of three sweeps.

    python -m benchmarks.policies results/policies results/statistics results/guard

Prints the tables of docs/policies.md. A pair's Δ is the mean over its seeds; intervals are 95%
bootstrap intervals of the mean over pairs.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from kt_cli import store
from kt_cli.complementarity.significance import SIGNIFICANT, mcnemar
from kt_cli.report.methods import method_rank

RESAMPLES = 10_000
PAIR = ["teacher", "student"]
COLUMNS = [
    *PAIR, "method", "seed", "bn", "n", "status", "delta", "gain", "loss", "guard_alpha",
    "delta_unguarded", "gain_unguarded", "loss_unguarded", "delta_statistics",
]  # fmt: skip


def outcomes(folder: Path) -> pd.DataFrame:
    """One row for each run; of a guarded one another for what it would have been without."""
    rows = store.read([folder], "transfer", COLUMNS)
    rows = rows[rows["status"] == store.OK]
    rows["guarded"] = rows["method"].str.endswith("+guard")
    rows["method"] = rows["method"].str.removesuffix("+guard")
    plain = {f"{name}_unguarded": name for name in ("delta", "gain", "loss")}
    without = rows[rows["guarded"]].drop(columns=list(plain.values())).rename(columns=plain)
    found = pd.concat([without.assign(guarded=False), rows.drop(columns=list(plain))])
    counts = [(found[k] * found["n"] / 100).round().astype(int) for k in ("gain", "loss")]
    found["significant"] = mcnemar(*(c.to_numpy() for c in counts)) < SIGNIFICANT
    return found


def summary(rows: pd.DataFrame) -> list[str]:
    """success, Δ with its interval, significant gains and losses, gain, loss, share below zero."""
    delta = rows.groupby(PAIR)["delta"].mean().to_numpy()
    low, high = interval(delta)
    won = rows["significant"] & (rows["delta"] > 0)
    lost = rows["significant"] & (rows["delta"] < 0)
    shares = [(rows["delta"] > 0), won, lost, (rows["delta"] < 0)]
    success, wins, losses, below = (f"{100 * share.mean():.0f}" for share in shares)
    return [
        success, f"{delta.mean():+.2f} [{low:+.2f}, {high:+.2f}]", wins, losses,
        f"{rows['gain'].mean():.2f}", f"{rows['loss'].mean():.2f}", below,
    ]  # fmt: skip


def interval(values: np.ndarray) -> tuple[float, float]:
    """95% bootstrap interval of the mean."""
    draws = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def markdown(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] + ["--:"] * (len(lines[0]) - 1))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


HEAD = (
    "success %",
    "mean Δ [95% interval]",
    "sig. gain %",
    "sig. loss %",
    "gain",
    "loss",
    "Δ < 0 %",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    for name in ("policies", "statistics", "guard"):
        parser.add_argument(name, type=Path, help=f"results of sweeps/{name}.toml")
    chosen = parser.parse_args()
    rows = section("All methods, running statistics updated as in the paper", chosen.policies)
    print(markdown(["method", "guard", *HEAD], (
        [f"`{method}`", guard, *summary(some)] for method, guard, some in cells(rows)
    )))  # fmt: skip
    rows = section("Students with batch normalisation, by policy", chosen.statistics)
    print(markdown(["method", "--bn", *HEAD, "Δ of statistics alone"], (
        [f"`{method}`", bn, *summary(some), f"{some['delta_statistics'].mean():+.2f}"]
        for method, _, both in cells(rows)
        for bn in ("train", "eval", "recompute")
        if len(some := both[both["bn"] == bn])
    )))  # fmt: skip
    rows = section("Much to gain and to lose", chosen.guard)
    print(markdown(["method", "guard", *HEAD, "mean α"], (
        [f"`{method}`", guard, *summary(some), f"{some['guard_alpha'].mean():.2f}"]
        for method, guard, some in cells(rows)
    )))  # fmt: skip


def section(title: str, folder: Path) -> pd.DataFrame:
    """Head a table of a sweep, and give its rows."""
    rows = outcomes(folder)
    runs = len(rows) - int(rows["guarded"].sum())
    pairs, seeds = rows.groupby(PAIR).ngroups, rows["seed"].nunique()
    print(f"\n### {title}\n\n{runs:,} transfers of {pairs} pairs, {seeds} seeds.\n")
    return rows


def cells(rows: pd.DataFrame) -> Iterable[tuple[str, str, pd.DataFrame]]:
    """The rows of each method, without the guard and with it."""
    for method in sorted(rows["method"].unique(), key=method_rank):
        for guarded, word in ((False, "no"), (True, "yes")):
            some = rows[(rows["method"] == method) & (rows["guarded"] == guarded)]
            if len(some):
                yield method, word, some


if __name__ == "__main__":
    main()
