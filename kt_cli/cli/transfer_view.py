"""The screen of one transfer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kt_cli.cli import screen
from kt_cli.errors import signed

MOST = 3  # classes that are named


def show_all(rows: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> None:
    """One transfer, or two in both directions and what both students gained."""
    for row in rows:
        show(row, classes)
        if len(rows) > 1:
            screen.line("")
    if len(rows) > 1:
        deltas = " · ".join(f"{row['student']} {signed(row['delta'])}" for row in rows)
        screen.line(f"both directions, Δ: {deltas} points")


def show(row: Mapping[str, Any], classes: Sequence[str]) -> None:
    """Before and after, what came of it, and at last what that means."""
    single = row["together"] == "single"
    together = "" if single else f" ({row['together']})"
    screen.line(
        f"{row['teacher']} → {row['student']} by {row['method']}{together}, on "
        f"{row['n_train']:,} images; evaluated on {row['n']:,}\n"
    )
    one, all_ = ("teacher", "teacher") if single else ("a teacher", "all teachers")
    names = zip(row["teacher_names"] or [row["teacher"]], row["teacher_accs"], strict=True)
    rows = [
        ("student's top-1", row["student_acc"], row["after_acc"]),
        *((f"{name}'s top-1", accuracy, None) for name, accuracy in names),
        (f"{one} right, student wrong (ρ⁺)", row["pos_flips"], row["pos_flips_after"]),
        (f"student right, {all_} wrong (ρ⁻)", row["neg_flips"], row["neg_flips_after"]),
    ]
    cells = [(name, *("" if v is None else f"{v:.2f}" for v in values)) for name, *values in rows]
    screen.out.print(screen.table(("%", "before", "after"), cells))
    style = "green" if row["delta"] > 0 else "red" if row["delta"] < 0 else "yellow"
    screen.line(
        "\ntransfer delta Δ ", (signed(row["delta"]), f"bold {style}"), f" points = gain "
        f"{row['gain']:.2f} − loss {row['loss']:.2f} (McNemar p = {row['transfer_p']:.2g})"
    )  # fmt: skip
    screen.line("\n".join(_further(row)))
    screen.line("\n".join(["", *_classes(row, classes), *_verdict(row)]))


def _classes(row: Mapping[str, Any], classes: Sequence[str]) -> list[str]:
    by_class = zip(classes, row["gain_by_class"], row["loss_by_class"], strict=True)
    changes = sorted((gain - loss, name) for name, gain, loss in by_class)
    gained = [f"{name} +{change}" for change, name in changes[: -MOST - 1 : -1] if change > 0]
    lost = [f"{name} −{-change}" for change, name in changes[:MOST] if change < 0]
    ends = {"gained": gained, "lost": lost}
    return [f"classes that {what} most images: {', '.join(n)}" for what, n in ends.items() if n]


def _verdict(row: Mapping[str, Any]) -> list[str]:
    from kt_cli.knowledge.significance import SIGNIFICANT, images_changed, least_seen, verdict

    n, (gained, lost) = row["n"], images_changed(row)
    least = 100 * least_seen(gained + lost) / n
    lines = [f"Verdict: {verdict(gained, lost, n)}."]
    alone, control = row["delta_statistics"] or 0.0, row["delta_control"] or 0.0
    if row["bn"] == "train" and alone <= -least:
        better = "--bn recompute" if control > alone else "--bn eval"
        lines.append(f"Tip: running statistics alone cost {-alone:.2f} points: {better}.")
    elif row["transfer_p"] < SIGNIFICANT and row["delta"] < 0 and row.get("guard_alpha") is None:
        kept = row["schedule"] != "constant" or row["average"] != "none"
        better = "" if kept else "--preset keep loses less (docs/science.md); "
        guard = "--guard safe goes as far as images that it never trained on let it."
        lines.append(f"Tip: {better}{guard}")
    return lines


def _further(row: Mapping[str, Any]) -> list[str]:
    """What else is worth a line: each is there only where it says something."""
    rate = "no ρ⁺ to learn"
    if row["transfer_rate"] is not None:
        rate = f"transfer rate {row['transfer_rate']:.1f}% of ρ⁺"
    taught = [f"the teacher taught {row['share_taught']:.1f}%"]
    if row["together"] != "single":
        names = zip(row["teacher_names"], row["teacher_shares"], strict=True)
        taught = [f"{name} taught {share:.1f}%" for name, share in names]
    lines = [f"{rate} · {', '.join(taught)} of the samples"]
    if row["step_accs"]:
        steps = ", ".join(f"{accuracy:.2f}" for accuracy in row["step_accs"])
        what = "after each teacher" if row["together"] == "sequential" else "of each part"
        lines.append(f"student's top-1 {what}: {steps}")
    apart = {
        "delta_statistics": "running statistics alone, on the weights before",
        "delta_control": "control, nothing learned but statistics estimated anew",
    }
    lines += [f"{what}: Δ {signed(row[key])}" for key, what in apart.items() if row[key]]
    if "guard_alpha" in row:
        alpha = row["guard_alpha"]
        went = f"{alpha:.0%} of the way" if alpha else "the student stays as it was"
        lines.append(
            f"guard: {went} (α = {alpha:g}), judged on {row['guard_n']:,} images; "
            f"without it Δ {signed(row['delta_unguarded'])}"
        )
        lines.append(_judgement(row))
    return lines


def _judgement(row: Mapping[str, Any]) -> str:
    """What the guard went by, and what its images could have borne out."""
    score, least = signed(row["guard_score"]), row["guard_least"]
    if (others := row.get("guard_pooled")) is not None:
        known = f"{others} other transfers of the student" if others else "the stated prior"
        return f"Δ to be expected there, given {known}: {score}"
    could = "over the whole way these images are too few to bear out any Δ"
    if least is not None:
        could = f"over the whole way these images bear out a Δ of {signed(least)} or more"
    if not row["guard_alpha"]:
        return f"nothing is proven; {could}"
    return f"there Δ is above {score} (p = {row['guard_p']:.2g}); {could}"
