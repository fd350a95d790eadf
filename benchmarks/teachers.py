"""Do predictions tell which teacher helps a student? Transfers, and what foresaw their Δ.

    python -m benchmarks.teachers FOLDER --zoo ZOO --data DATA [--students a,b] [--methods kl,kl-dp]
    … --only-table                                              # of what is there
    … --outputs                                                 # also what needs whole outputs

Every model of ZOO teaches every student; FOLDER keeps which images each student had right before
and after, so a second run goes on. Predictors see one half of the evaluation images, Δ is that of
the other: 50 halves drawn at random. For each student: Spearman's correlation over its teachers,
beside that of Δ on one half with Δ on the other (whose square root is about what noise allows a
perfect predictor); and the regret of taking the first, in points: the best teacher's Δ less its
own. Means over students with 95% intervals that draw students. What is fitted, a teacher's mean Δ
on other students, never sees the student.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

import kt_cli as kt
from benchmarks.measure import show
from benchmarks.pilot import outputs, scores
from kt_cli.knowledge.significance import mcnemar

HALVES, DRAWS, LEAST = 50, 2_000, 3  # least: teachers that a student needs
SETTINGS = {
    "fraction": 0.2, "epochs": 3, "lr": 0.02, "batch_size": 60, "micro_batch": 60,
    "average": "last-half",
    "augment": "flip", "crop": 1.0, "side": 48,
}  # fmt: skip
OTHERS, CEILING = "its Δ on others", "Δ on the other half"


@dataclass(frozen=True)
class Student:
    """What a student had right before, (n,), and after each of its teachers, by name."""

    name: str
    before: Any
    after: dict[str, Any]
    teaching: Any  # of the same teachers, in the same order
    outputs: Callable[[Any], dict[str, Any]]  # scores among some images, from whole outputs


def transfer_all(
    folder: Path, zoo: Path, data: str, limit: int, students: Sequence[str], method: str
) -> None:
    names = sorted(path.name for path in zoo.iterdir() if (path / "config.json").exists())
    for student in students or names:
        for teacher in (name for name in names if name != student):
            path = folder / method / student / f"{teacher}.npz"
            if path.exists():
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            ours, theirs = (f"local-dir:{zoo / name}" for name in (student, teacher))
            with tempfile.TemporaryDirectory() as saved:
                moved = kt.transfer(theirs, ours, data=data, limit=limit, method=method,
                                    output=f"{saved}/student", **SETTINGS)  # fmt: skip
                found = kt.explain(ours, f"local-dir:{moved.path}", data=data, limit=limit)
            before, after = found.found.right[:2]
            np.savez(path, before=before, after=after)
            print(f"{method} {teacher} → {student}: Δ {moved.delta:+.2f}", flush=True)


def read(folder: Path, zoo: Path, data: str, limit: int, whole: bool) -> list[Student]:
    found = []

    @cache
    def said(name: str) -> Any:
        return outputs(f"local-dir:{zoo / name}", data, limit)

    def scored(name: str, teachers: Sequence[str], among: Any) -> dict[str, Any]:
        if not whole:
            return {}
        (student, labels), others = said(name), [said(teacher)[0] for teacher in teachers]
        return scores(student, others, labels, among)

    for path in sorted(folder.iterdir()):
        right = {file.stem: np.load(file) for file in sorted(path.glob("*.npz"))}
        if len(right) < LEAST:
            continue
        ranking = kt.teachers(f"local-dir:{zoo / path.name}",
                              [f"local-dir:{zoo / name}" for name in right],
                              data=data, limit=limit, results=[])  # fmt: skip
        order = [model.name for model in ranking.teachers]
        first = next(iter(right.values()))["before"]
        found.append(
            Student(
                path.name,
                first,
                {n: right[n]["after"] for n in order},
                ranking.teaching,
                partial(scored, path.name, order),
            )
        )
    return found


def deltas(student: Student, among: Any) -> Any:
    """(M,) Δ in points on some of the images."""
    before = student.before[among].mean()
    return 100 * np.array([after[among].mean() - before for after in student.after.values()])


def significant(students: Sequence[Student]) -> tuple[int, int]:
    """Transfers that are significantly better, and worse: McNemar's exact test, p < 0.05, each."""
    pairs = [(s.before, after) for s in students for after in s.after.values()]
    gained = np.array([(after & ~before).sum() for before, after in pairs])
    lost = np.array([(before & ~after).sum() for before, after in pairs])
    sure = mcnemar(gained, lost) < 0.05
    return int((sure & (gained > lost)).sum()), int((sure & (gained < lost)).sum())


def drawn(each: Any, random: Any) -> Any:
    """95% interval of the mean over students, whom it draws: low and high of each column."""
    picks = random.integers(0, len(each), (DRAWS, len(each)))
    return np.quantile(each[picks].mean(axis=1), [0.025, 0.975], axis=0)


def apart(first: Sequence[Student], second: Sequence[Student]) -> str:
    """Mean Δ of the first method less that of the second: over students, whom intervals draw."""
    others = {student.name: student for student in second}
    each = []
    for student in (s for s in first if s.name in others):
        theirs = others[student.name].after
        shared = [name for name in student.after if name in theirs]
        each.append(np.mean([100 * (student.after[name].mean() - theirs[name].mean())
                             for name in shared]))  # fmt: skip
    low, high = drawn(np.array(each), np.random.default_rng(0))
    return f"{np.mean(each):+.2f} [{low:+.2f}, {high:+.2f}]"


def judged(students: Sequence[Student], random: Any) -> dict[str, list[tuple[float, float]]]:
    """Of one draw of halves: for each predictor each student's correlation and regret."""
    n = len(students[0].before)
    half = np.zeros(n, bool)
    half[random.permutation(n)[: n // 2]] = True
    seen = {s.name: dict(zip(s.after, deltas(s, half), strict=True)) for s in students}
    found: dict[str, list[tuple[float, float]]] = {}
    for student in students:
        wanted = deltas(student, ~half)
        others = [np.mean([seen[o.name][t] for o in students
                           if o is not student and t in seen[o.name]] or [0.0])
                  for t in student.after]  # fmt: skip
        every = {
            **student.teaching.scores_among(half), **student.outputs(half),
            OTHERS: np.array(others), CEILING: np.array(list(seen[student.name].values())),
        }  # fmt: skip
        for name, score in every.items():
            constant = np.ptp(score) == 0 or np.ptp(wanted) == 0
            agreement = 0.0 if constant else float(spearmanr(score, wanted).statistic)
            regret = float(wanted.max() - wanted[score.argmax()])
            found.setdefault(name, []).append((agreement, regret))
    return found


def table(students: Sequence[Student]) -> list[list[str]]:
    random = np.random.default_rng(0)
    draws = [judged(students, random) for _ in range(HALVES)]
    rows = []
    for name in draws[0]:
        each = np.mean([draw[name] for draw in draws], axis=0)  # (students, 2)
        low, high = drawn(each, random)
        means = each.mean(axis=0)
        rows.append([name, *(f"{means[k]:.2f} [{low[k]:.2f}, {high[k]:.2f}]" for k in (0, 1))])
    return sorted(rows, key=lambda row: -float(row[1].split()[0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--zoo", type=Path, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--limit", type=int, default=3000, help="evaluation images")
    parser.add_argument("--students", default="", help="comma list; all by default")
    parser.add_argument("--methods", default="kl-dp", help="comma list")
    parser.add_argument("--only-table", action="store_true")
    parser.add_argument("--outputs", action="store_true")
    chosen = parser.parse_args()
    found: dict[str, list[Student]] = {}
    for method in chosen.methods.split(","):
        if not chosen.only_table:
            transfer_all(chosen.folder, chosen.zoo, chosen.data, chosen.limit,
                         [s for s in chosen.students.split(",") if s], method)  # fmt: skip
        students = read(
            chosen.folder / method, chosen.zoo, chosen.data, chosen.limit, chosen.outputs
        )
        found[method] = students
        best = ", ".join(f"{s.name} {deltas(s, slice(None)).max():+.2f}" for s in students)
        every = np.concatenate([deltas(s, slice(None)) for s in students])
        better, worse = significant(students)
        print(
            f"\n{method}: {len(every)} transfers of {len(students)} students; mean Δ "
            f"{every.mean():+.2f}, {better} significantly better, {worse} worse; best Δ {best}"
        )
        show(["predictor", "Spearman [95%]", "regret, points [95%]"], table(students))
    for first, second in itertools.combinations(found, 2):
        print(f"\nΔ of {second} less {first}: {apart(found[second], found[first])}")


if __name__ == "__main__":
    main()
