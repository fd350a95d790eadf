"""Workers of `benchmarks.schedule`: a run sleeps the seconds that its student is called."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from unittest import mock

from kt_cli.progress import Progress
from kt_cli.runs import kinds
from kt_cli.runs.columns import Row
from kt_cli.spec import Run
from kt_cli.sweeps import workers


def sleep(runs: Sequence[Run], folder: Path, progress: Progress) -> list[list[Row] | Exception]:
    for run in runs:
        time.sleep(float(run.models[-1].name))
    return [[{"delta": 0.0, "created": "now"}] for _ in runs]


class Sleepers(workers.Workers):
    module = __name__


if __name__ == "__main__":
    sleeping = replace(kinds.KINDS["transfer"], execute=sleep)
    with mock.patch.dict(kinds.KINDS, {"transfer": sleeping}):
        workers.main()
