"""How busy a sweep keeps the slots of a machine where its models' costs differ a hundredfold.

    python -m benchmarks.schedule [--slots 4] [--seconds 180]

Forty transfers whose work is replaced by sleeping go through a stage as `kt sweep` does it, with
real worker processes: known to cost what they do; estimated wrongly, by a factor of up to two; and
with equal estimates, which is a chunk of equally many for each slot. Busy: the seconds that runs
take, of those that all slots have from the stage's begin to its end; workers' starts are in it.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.measure import record, seconds, show
from benchmarks.sleepers import Sleepers
from kt_cli.data.sources import open_data
from kt_cli.progress import silent
from kt_cli.settings import DataSpec, TransferSpec
from kt_cli.spec import Model, Run
from kt_cli.sweeps.execute import LocalStage
from kt_cli.sweeps.slots import Slot

DATA = DataSpec("digits")
RUNS = 40
LIMIT = 0.85


def stage_seconds(costs: Sequence[float], estimates: Sequence[float] | None, slots: int) -> float:
    data_id = open_data(DATA, training=True).transfer_id(False)
    runs = [Run("transfer", (Model("t"), Model(f"s{i}", name=str(cost))), data_id, TransferSpec(),
                DATA) for i, cost in enumerate(costs)]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, Sleepers(Path(folder)) as sleepers:
        places = [Slot(None, 1)] * slots
        stage = LocalStage(Path(folder), runs, places, sleepers, print, costs=estimates)
        failed: list[int] = []
        took = seconds(lambda: failed.append(stage.run(silent, "transfer")))
        if any(failed):
            raise RuntimeError("runs failed")
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=180, help="of work for each slot")
    chosen = parser.parse_args()
    random = np.random.default_rng(0)
    costs = 10 ** random.uniform(0, 2, RUNS)
    costs *= chosen.seconds * chosen.slots / costs.sum()
    wrong = costs * random.choice([0.5, 1.0, 2.0], RUNS)
    rows = []
    for name, estimates in (("known", [*costs]), ("wrong", [*wrong]), ("equal", None)):
        took = stage_seconds([*costs], estimates, chosen.slots)
        busy = costs.sum() / (chosen.slots * took)
        rows.append([name, f"{took:.0f}", f"{busy:.0%}"])
        if name == "known":
            record("schedule: share of four slots' time at work", busy, LIMIT, at_least=True)
    print(f"{RUNS} runs of {costs.min():.1f} to {costs.max():.0f} s in {chosen.slots} slots; "
          f"limit of the first: {LIMIT:.0%}")  # fmt: skip
    show(["estimates", "s", "busy"], rows)


if __name__ == "__main__":
    main()
