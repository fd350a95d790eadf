"""`kt complementarity A B [C …]`: what each model knows that the others do not."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kt_cli.cli import options, screen
from kt_cli.errors import UsageError

if TYPE_CHECKING:
    from kt_cli.complementarity.comparison import Comparison

MATRIX_UP_TO = 12


def complementarity(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL MODEL [MODEL…]", help="Two or more models, or selections of them."
        ),
    ],
    data: options.DataOption = None,
    data_dir: options.DataDir = None,
    val_split: options.ValSplit = "validation",
    limit: options.Limit = None,
    eval_size: options.EvalSizeOption = options.EvalSize.test,
    top: Annotated[int, typer.Option(min=0, help="How many classes to list.")] = 5,
    workers: options.Workers = None,
    as_json: options.Json = False,
) -> None:
    """Measure what each of two or more models knows that the others do not.

    Each model predicts the evaluation images once; the predictions are kept and reused.
    """
    spec = options.data_spec(data, data_dir, val_split=val_split, limit=limit)
    from kt_cli.zoo import classes, names

    resolved = names.resolve(models)
    if len(resolved) < 2:
        raise UsageError(
            f"one model alone has nothing to be compared with: {resolved[0].name}",
            "Name at least two different models; equal weights count once.",
        )
    classes.common_num_classes(resolved)
    from kt_cli.complementarity.comparison import compare
    from kt_cli.data.sources import open_data
    from kt_cli.device import pick_device
    from kt_cli.spec import EvalSpec
    from kt_cli.zoo import load

    images = open_data(spec).eval
    classes.require_classes(resolved, len(images.classes), images.name)
    load.require_weights(resolved)
    with screen.progress() as progress:
        found = compare(
            resolved, images, EvalSpec(eval_size.value), pick_device(), workers, progress
        )
    if as_json:
        screen.out.print_json(
            json.dumps({"data": spec.source, "limit": limit, **found.to_dict(top)})
        )
    else:
        show(found, spec.source, limit, top)


def show(found: Comparison, source: str, limit: int | None, top: int) -> None:
    limited = f", limited to {limit:,}" if limit else ""
    screen.out.print(
        f"{Path(source).name}: {found.n:,} images of {len(found.classes):,} classes{limited}\n"
    )
    _models(found)
    if len(found.names) == 2:
        _pair(found, top)
    else:
        _matrix(found)
        _ceilings(found, "any")
        _extreme(found, top)


def _models(found: Comparison) -> None:
    table = screen.simple_table()
    table.add_column("model")
    table.add_column("top-1 %", justify="right")
    table.add_column("only it knows %", justify="right")
    for name, accuracy, alone in zip(found.names, found.accuracies, found.alone, strict=True):
        table.add_row(name, f"{accuracy:.2f}", f"{alone:.2f}")
    screen.out.print(table)


def _pair(found: Comparison, top: int) -> None:
    pairs = found.pairs
    screen.out.print(
        f"\nagree on {pairs['agreement'][0, 1]:.2f}% of the images · error consistency κ "
        f"{pairs['kappa'][0, 1]:.3f} · accuracies differ by "
        f"{abs(pairs['acc_diff'][0, 1]):.2f} points (McNemar p = {pairs['mcnemar_p'][0, 1]:.2g})"
    )
    _ceilings(found, "either")
    for teacher, student in ((0, 1), (1, 0)):
        _knows(found, teacher, student, top)


def _ceilings(found: Comparison, one: str) -> None:
    screen.out.print(
        f"{one} right (oracle) {found.oracle:.2f}% · the more confident right "
        f"{found.confident:.2f}% · mean of probabilities right {found.mean_probability:.2f}%"
    )


def _knows(found: Comparison, teacher: int, student: int, top: int) -> None:
    share = found.pairs["pos_flips"][teacher, student]
    count = round(share * found.n / 100)
    screen.out.print(
        f"\n[bold]{found.names[teacher]}[/] knows {share:.2f}% ({count:,} images) that "
        f"[bold]{found.names[student]}[/] does not (ρ⁺)"
    )
    if not count:
        return
    entropy = found.pairs["flip_entropy"][teacher, student]
    half = found.pairs["top50_classes"][teacher, student]
    screen.out.print(
        f"half of it in {half:.0f} of {len(found.classes):,} classes · entropy over classes "
        f"{entropy:.2f} nats (uniform: {math.log(len(found.classes)):.2f})"
    )
    table = screen.simple_table()
    for header, justify in (("class", "left"), ("images", "right"), ("share %", "right")):
        table.add_column(header, justify=justify)  # type: ignore[arg-type]
    for name, flips, share in found.top_classes(teacher, student, top):
        table.add_row(name, f"{flips:,}", f"{share:.1f}")
    if top:
        screen.out.print(table)


def _matrix(found: Comparison) -> None:
    if len(found.names) > MATRIX_UP_TO:
        screen.out.print(f"\n(matrix of {len(found.names)} models: use --json)")
        return
    screen.out.print("\n[bold]ρ⁺: what the row knows and the column does not, % of the images[/]")
    table = screen.simple_table()
    table.add_column("")
    for index in range(len(found.names)):
        table.add_column(f"({index + 1})", justify="right")
    for t, name in enumerate(found.names):
        cells = [
            "·" if t == s else f"{found.pairs['pos_flips'][t, s]:.2f}"
            for s in range(len(found.names))
        ]
        table.add_row(f"({t + 1}) {name}", *cells)
    screen.out.print(table)


def _extreme(found: Comparison, top: int) -> None:
    """The ordered pair with the most complementary knowledge, class by class."""
    import numpy as np

    flips = found.pairs["pos_flips"]
    teacher, student = np.unravel_index(int(flips.argmax()), flips.shape)
    screen.out.print("\nThe most that one knows and another does not:", end="")
    _knows(found, int(teacher), int(student), top)
