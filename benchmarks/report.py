"""`kt report` on a million transfers and 2.4 million pairs.

    python -m benchmarks.report [FOLDER]

Writes a made-up sweep into FOLDER, by default a temporary one, unless it is there already. Each
command runs in a process of its own, so its peak memory and its start-up are its own. The bound is
the bare reading of the summary's columns by pyarrow, and pandas' mean of Δ by method.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks import rows
from benchmarks.measure import ROOT, record, show

MODELS, TRANSFERS = 1550, 1_000_000
COLUMNS = (
    "run_id", "status", "teacher", "student", "method", "seed", "delta", "gain", "loss",
    "transfer_p", "transfer_rate", "share_taught", "acc_diff", "settings", "eval_data",
)  # fmt: skip
BARE = f"""
import sys
import pandas
import pyarrow.dataset as ds
rows = ds.dataset(sys.argv[1]).to_table(columns={list(COLUMNS)!r}).to_pandas()
rows.groupby("method")[["delta", "gain", "loss"]].mean()
"""
VIT = "student_family == 'vit' and method == 'kl-dp' and teacher_acc < student_acc"
# Options, and the limits of seconds and of peak GB.
CASES: dict[str, tuple[tuple[str, ...], float, float]] = {
    "summary": (("--table", "summary"), 3, 1.0),
    "summary --where": (("--table", "summary", "--where", VIT), 3, 1.0),
    "summary --by": (("--table", "summary", "--by", "student_family"), 8, 1.0),
    "students": (("--table", "students"), 7, 1.0),
    "complementarity": (("--table", "complementarity"), 5, 1.5),
    "page": (("-o", "page.html"), 15, 1.5),
}
HEADER = ("kt report", "seconds", "CPU seconds", "÷ bare", "limit", "peak GB", "limit", "holds")


def measured(command: Sequence[str], folder: Path) -> tuple[float, float, float]:
    """Seconds, those of its processors, and peak GB of a command run in `folder`.

    Raises:
        SystemExit: it failed.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    start = time.perf_counter()
    with (folder / "output.txt").open("w") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output)
        _, status, usage = os.wait4(process.pid, 0)
    took = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
    worked, peak = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e9
    return took, worked, peak


@contextmanager
def sweep(folder: Path | None) -> Iterator[Path]:
    """The results, written if they are not there."""
    if folder is None:
        with tempfile.TemporaryDirectory() as temporary:
            yield from _written(Path(temporary))
    else:
        yield from _written(folder)


def _written(folder: Path) -> Iterator[Path]:
    if not (folder / "large" / "transfer").is_dir():
        rows.write(folder / "large", MODELS, TRANSFERS)
    yield folder


def _row(
    name: str, took: float, worked: float, bare: float, peak: float, most: float, largest: float
) -> list[str]:
    holds = "yes" if took <= most and peak <= largest else "no"
    times = f"{took:.1f}", f"{worked:.1f}", f"{took / bare:.1f}", f"{most:.1f}"
    return [name, *times, f"{peak:.2f}", f"{largest:.2f}", holds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--only", nargs="*", choices=list(CASES), default=list(CASES))
    chosen = parser.parse_args()
    folder = chosen.folder.absolute() if chosen.folder else None
    with sweep(folder) as results, tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        bare = (sys.executable, "-c", BARE, str(results / "large" / "transfer"))
        least, worked, peak = measured(bare, work)
        found = [_row("bare reading", least, worked, least, peak, least, peak)]
        for name in chosen.only:
            options, *limits = CASES[name]
            command = (sys.executable, "-m", "kt_cli", "report", str(results), *options)
            took, worked, peak = measured(command, work)
            found.append(_row(name, took, worked, least, peak, *limits))
            record(f"report: {name}, seconds", took, limits[0])
            record(f"report: {name}, peak GB", peak, limits[1])
    print(f"{TRANSFERS:,} transfers, {MODELS * (MODELS - 1):,} pairs")
    show(HEADER, found)


if __name__ == "__main__":
    main()
