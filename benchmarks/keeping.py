"""What keeps a student from losing what it knew: the tables of docs/science.md.

    kt sweep sweeps/keeping.toml --data FOLDER        # and its variations, as docs/science.md says
    python -m benchmarks.keeping results/{keeping,images,epochs,…}

One row for each choice of method, images, epochs, rate, schedule and what becomes of the weights.
Seeds are averaged to one value for each pair first; means and their 95% intervals are those of
`kt report`, which leave out one model after the other. Differences are to the first row, the
paper's settings, on the pairs and seeds that both have.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from benchmarks.policies import PAIR, markdown, over_pairs, shown
from kt_cli.knowledge.significance import SIGNIFICANT
from kt_cli.rows import store

SETTINGS = ["method", "fraction", "epochs", "lr", "schedule", "average", "subtract_drift"]
COLUMNS = [
    *PAIR, *SETTINGS, "seed", "status", "delta", "gain", "loss", "transfer_p", "acc_diff",
    "student_acc", "delta_control",
]  # fmt: skip
PAPER = {"method": "kl-dp", "schedule": "constant", "average": "none", "subtract_drift": False}
HEAD = ("Δ", "Δ of weaker teachers", "Δ − paper's", "gain", "loss", "sig. gain", "sig. loss",
        "helped by the best")  # fmt: skip


def read(folders: Sequence[Path]) -> pd.DataFrame:
    """One row for each finished transfer, each once."""
    rows = pd.concat([store.read([folder], "transfer", COLUMNS) for folder in folders])
    rows = rows[rows["status"] == store.OK].drop_duplicates([*PAIR, *SETTINGS, "seed"])
    rows["subtract_drift"] = rows["subtract_drift"].fillna(False).astype(bool)
    return rows


def summary(rows: pd.DataFrame, paper: pd.DataFrame) -> list[str]:
    """The columns of HEAD."""
    runs = [*PAIR, "seed"]
    both = rows.merge(paper[[*runs, "delta"]], on=runs, suffixes=("", "_paper"))
    both["more"] = both["delta"] - both["delta_paper"]
    surely = rows["transfer_p"] < SIGNIFICANT
    weaker = rows[rows["acc_diff"] < 0]
    best = rows.groupby(PAIR)["delta"].mean().groupby("student").max()
    versus = "" if rows is paper or both.empty else shown(over_pairs(both, "more"), "+.2f")
    return [
        shown(over_pairs(rows, "delta"), "+.2f"),
        shown(over_pairs(weaker, "delta"), "+.2f") if len(weaker) else "",
        versus, *(shown(over_pairs(rows, name), ".2f") for name in ("gain", "loss")),
        f"{(surely & (rows['delta'] > 0)).sum()} of {len(rows)}",
        f"{(surely & (rows['delta'] < 0)).sum()} of {len(rows)}",
        f"{(best > 0).sum()} of {len(best)}",
    ]  # fmt: skip


def by_choice(rows: pd.DataFrame) -> list[list[str]]:
    """A row for each choice of settings, the paper's first among its like."""
    varied = [name for name in SETTINGS if rows[name].nunique() > 1]
    choices = list(rows.groupby(varied, sort=True)) if varied else [((), rows)]
    is_paper = rows[list(PAPER)].eq(pd.Series(PAPER)).all(axis=1)
    found = []
    for key, members in choices:
        like = is_paper & rows["lr"].eq(members["lr"].iloc[0])
        for name in ("fraction", "epochs"):
            like &= rows[name].eq(members[name].iloc[0])
        paper = members if like[members.index].all() else rows[like]
        found.append([*map(_text, key), str(len(members)), *summary(members, paper)])
    return [[*varied, "n", *HEAD], *found]


def by_student(rows: pd.DataFrame) -> list[list[str]]:
    """Of each student: its accuracy, what statistics alone do, and Δ by its teachers."""
    found = []
    for student, members in rows.groupby("student"):
        each = members.groupby("teacher")["delta"].mean().sort_values()
        control = members["delta_control"].mean()
        found.append([
            str(student), f"{members['student_acc'].iloc[0]:.1f}",
            "" if pd.isna(control) else f"{control:+.2f}", str(len(each)),
            f"{each.mean():+.2f}", f"{each.iloc[-1]:+.2f} ({each.index[-1]})",
        ])  # fmt: skip
    return sorted(found, key=lambda row: float(row[1]))


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folders", type=Path, nargs="+")
    rows = read(parser.parse_args().folders).reset_index(drop=True)
    head, *table = by_choice(rows)
    markdown(head, table)
    for method, members in rows.groupby(["method", "schedule", "average", "subtract_drift"]):
        print(f"\n{', '.join(map(str, method))}\n")
        markdown(["student", "top-1 %", "statistics alone", "teachers", "mean Δ", "best Δ"],
                 by_student(members))  # fmt: skip


if __name__ == "__main__":
    main()
