"""How a comparison of models looks on the screen."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from kt_cli.cli import screen
from kt_cli.errors import counted, some_of

if TYPE_CHECKING:
    from kt_cli.knowledge.areas import Area
    from kt_cli.knowledge.comparison import Comparison
    from kt_cli.knowledge.explanation import Sample

MATRIX_UP_TO = 12
AREAS = 5
CLASSES_OF_AREA = 6


def of_interest(found: Comparison) -> list[tuple[int, int]]:
    """The ordered pairs that are read aloud: of two models, or of those with the most ρ⁺."""
    if found.trained == 2:
        return [(0, 1), (1, 0)]
    flips = found.pairs["pos_flips"][: found.trained, : found.trained].copy()
    for model in range(found.trained):
        flips[model, model] = -1.0  # nobody is its own teacher, also where nobody knows more
    teacher, student = divmod(int(flips.argmax()), found.trained)
    return [(teacher, student), (student, teacher)]


def show(found: Comparison, limit: int | None, top: int, samples: int) -> None:
    limited = f", limited to {limit:,}" if limit else ""
    screen.line(
        f"{Path(found.images.name).name}: {found.n:,} images of {len(found.classes):,} classes"
        f"{limited}\n"
    )
    _models(found)
    if found.trained == 2:
        _agreement(found)
    else:
        _matrix(found)
        _different(found)
    _ceilings(found)
    _baselines(found)
    if found.trained > 2:
        screen.out.print("\nThe most that one knows and another does not, and the reverse:", end="")
    from kt_cli.knowledge import explanation

    for teacher, student in of_interest(found):
        _knows(found, teacher, student, top)
        if samples:
            _samples(explanation.samples(found, teacher, student, samples))


def _models(found: Comparison) -> None:
    rows = [
        (name, f"{accuracy:.2f}", f"{low:.2f}–{high:.2f}", _number(said.top5_accuracy, 2),
         f"{found.alone[i]:.2f}" if i < found.trained else "")
        for i, (name, accuracy, (low, high), said) in enumerate(
            zip(found.names, found.accuracies, found.intervals, found.predictions, strict=True)
        )
    ]  # fmt: skip
    headers = ("model", "top-1 %", "95% interval", "top-5 %", "only it knows %")
    screen.out.print(screen.table(headers, rows))


def _agreement(found: Comparison) -> None:
    pairs, kappa = found.pairs, found.pairs["kappa"][0, 1]
    consistency = "" if math.isnan(kappa) else f"error consistency κ {kappa:.3f} · "
    screen.line(
        f"\nagree on {pairs['agreement'][0, 1]:.2f}% of the images · {consistency}"
        f"accuracies differ by {abs(pairs['acc_diff'][0, 1]):.2f} points "
        f"(McNemar p = {pairs['mcnemar_p'][0, 1]:.2g})"
    )


def _matrix(found: Comparison) -> None:
    if found.trained > MATRIX_UP_TO:
        screen.line(f"\n(matrix of {found.trained} models: use --json)")
        return
    screen.line(("\nρ⁺: what the row knows and the column does not, % of the images", "bold"))
    models = range(found.trained)
    rows = [
        (f"({t + 1}) {found.names[t]}", *("·" if t == s else f"{flips[s]:.2f}" for s in models))
        for t, flips in enumerate(found.pairs["pos_flips"][: found.trained])
    ]
    screen.out.print(screen.table(["", *(f"({model + 1})" for model in models)], rows))


def _different(found: Comparison) -> None:
    from kt_cli.knowledge.significance import SIGNIFICANT

    pairs = found.trained * (found.trained - 1) // 2
    surely = int((found.holm_p < SIGNIFICANT).sum()) // 2
    screen.line(
        f"\nthe accuracies of {surely:,} of {pairs:,} pairs of models differ significantly "
        "(McNemar, p < 0.05 after Holm's correction)"
    )


def _ceilings(found: Comparison) -> None:
    one = "either" if found.trained == 2 else "any"
    said = [f"{one} right (oracle) {found.oracle:.2f}%"]
    if found.confident is not None:
        said.append(f"the more confident right {found.confident:.2f}%")
    mean = found.mean_probability
    untold = any(one.path is None and one.logits is None for one in found.predictions)
    if not untold:
        average = "(add --logits)" if mean is None else f"{mean:.2f}%"
        said.append(f"mean of probabilities right {average}")
    screen.line(" · ".join(said))


def _baselines(found: Comparison) -> None:
    for teacher in range(found.trained, len(found.names)):
        flips = found.pairs["pos_flips"][teacher, : found.trained]
        screen.line(
            f"baseline: {found.names[teacher]} knows "
            f"{flips.min():.2f}–{flips.max():.2f}% that the models do not"
        )


def _knows(found: Comparison, teacher: int, student: int, top: int) -> None:
    from kt_cli.knowledge.explanation import sentence

    screen.line((f"\n{found.names[teacher]} → {found.names[student]}", "bold"))
    screen.line(sentence(found, teacher, student))
    if not found.pairs["pos_flips"][teacher, student]:
        return
    screen.line(_spread(found, teacher, student))
    if top:
        _classes(found, teacher, student, top)
    _areas(found, found.areas(teacher, student))


def _spread(found: Comparison, teacher: int, student: int) -> str:
    half, entropy, percentile = (
        found.pairs[name][teacher, student]
        for name in ("top50_classes", "flip_entropy", "top50_similarity_pct")
    )
    alike = f", more alike than {percentile:.0f}% of random sets of as many"
    alike = "" if math.isnan(percentile) else alike
    classes = counted(len(found.classes), "class", "classes")
    return (
        f"half of it in {half:.0f} of {classes}{alike} · entropy over classes {entropy:.2f} nats "
        f"(uniform: {math.log(len(found.classes)):.2f})"
    )


def _classes(found: Comparison, teacher: int, student: int, top: int) -> None:
    from kt_cli.knowledge.comparison import top_classes

    flips = found.flips(teacher, student)
    rows = [
        (found.classes[c], int(flips[c]), f"{100 * flips[c] / flips.sum():.1f}",
         f"{100 * flips[c] / found.images.class_sizes[c]:.1f}")
        for c in top_classes(flips, top)
    ]  # fmt: skip
    headers = ("class", "images", "share of ρ⁺ %", "share of the class %")
    screen.out.print(screen.table(headers, rows))


def _areas(found: Comparison, areas: list[Area]) -> None:
    if areas:
        screen.line("areas of expertise (similar classes):")
    for area in areas[:AREAS]:
        named = some_of([found.classes[c] for c in area.classes], CLASSES_OF_AREA)
        screen.line(f"  {area.share:.1f}%: {named}")


def _samples(samples: list[Sample]) -> None:
    rows = [
        (s.id, s.label, _number(s.teacher_prob, 3), s.answer, _number(s.confidence, 3))
        for s in samples
    ]
    if rows:
        headers = ("image", "label", "teacher's p", "student's answer", "student's p")
        screen.out.print(screen.table(headers, rows, words=("label", "student's answer")))


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
