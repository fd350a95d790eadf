"""What benchmarks share: timing, peak memory, cases in processes of their own, tables."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def seconds(work: Callable[[], Any]) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def interleaved(works: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each work, by turns, so that a busy spell of the machine meets all of them."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            found[name].append(seconds(work))
    return found


def medians(found: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in found.items()}


def peak_gb() -> float:
    """Peak memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def environment() -> dict[str, str]:
    """Of a process that finds kt and the benchmarks here, whatever else it has."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path}


def in_own_process(module: str, *arguments: str) -> dict[str, Any]:
    """Run `python -m module arguments` and read the JSON that its last line is."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT, env=environment(), check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


RESULTS = ROOT / "benchmarks" / "results.json"


def record(figure: str, measured: float, limit: float, *, at_least: bool = False) -> bool:
    """Put a figure beside its limit into benchmarks/results.json; whether it holds."""
    found = recorded()
    holds = bool(measured >= limit if at_least else measured <= limit)
    row = {"figure": figure, "measured": round(float(measured), 4), "limit": limit, "holds": holds}
    found[figure] = row
    RESULTS.write_text(json.dumps(list(found.values()), indent=1, ensure_ascii=False) + "\n")
    return holds


def recorded() -> dict[str, dict[str, Any]]:
    """What is in it, by figure."""
    if not RESULTS.exists():
        return {}
    return {row["figure"]: row for row in json.loads(RESULTS.read_text())}


def show(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; all columns but the first to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, ["-" * w for w in widths], *rows):
        cells = [f"{c:<{w}}" if i == 0 else f"{c:>{w}}"
                 for i, (c, w) in enumerate(zip(row, widths, strict=True))]  # fmt: skip
        print("  ".join(cells).rstrip())
