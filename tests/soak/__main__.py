"""Sweeps that are disturbed at random, and their rows beside those of an undisturbed one.

    make soak                                     (twenty minutes; on Slurm too, where one answers)
    python -m tests.soak --minutes 5 --seed 7     (one that failed, again)

Trial after trial a sweep is started; while it is at work one to three of the faults in faults.py
happen, at random; then the same command is given until it is done. Its rows have to be those of the
undisturbed sweep in every column but provenance, no run twice.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from kt_cli.rows import store
from tests.slurm.real_sweep import PROVENANCE, TABLES, Sweep, slurm_answers
from tests.soak.faults import DISK, FAULTS, SLURM_FAULTS, Fault, Trial, relieve

RUNS = 8  # of one command, until a trial has failed
WITHIN = 25.0  # seconds of a run in which its fault happens


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--trials", type=int, default=10_000, help="at most so many")
    parser.add_argument("--faults", nargs="*", help="only these, by their names in faults.py")
    asked = parser.parse_args()
    ends, failed, done = time.monotonic() + 60 * asked.minutes, [], 0
    with tempfile.TemporaryDirectory(prefix="kt-soak-") as name:
        wanted = _undisturbed(Path(name))
        while done < asked.trials and time.monotonic() < ends:
            seed = asked.seed + done
            with _small_disk(Path(name) / f"trial{seed}") as folder:
                if not _trial(folder, wanted, seed, asked.faults):
                    failed.append(seed)
            done += 1
    print(f"{done - len(failed)} of {done} sweeps ended with the rows of the undisturbed one")
    if failed:
        print(f"not these: --trials 1 --seed {', '.join(map(str, failed))}")
    return 1 if failed or not done else 0


def _undisturbed(folder: Path) -> Sweep:
    (folder / "undisturbed").mkdir()
    sweep = Sweep(folder / "undisturbed", folder / "cache")
    sweep.finish(sweep.start("--processes", "2"))
    return sweep


@contextmanager
def _small_disk(folder: Path) -> Iterator[Path]:
    """A folder on a disk of its own that can be filled; an ordinary one where none can be had."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}m", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        yield folder
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)
        shutil.rmtree(folder)


def _trial(folder: Path, wanted: Sweep, seed: int, only: list[str] | None) -> bool:
    """Whether a disturbed sweep came to the wanted rows; says what happened to it."""
    chance = random.Random(seed)
    slurm = slurm_answers() and chance.random() < 0.5
    known = {**FAULTS, **SLURM_FAULTS}
    names = sorted(only or (known if slurm else FAULTS))
    todo = [chance.choice(names) for _ in range(chance.randint(1, 3))]
    print(f"{seed}{' on Slurm' if slurm else ''}: {', '.join(todo)} …", end=" ", flush=True)
    sweep = Sweep(folder, folder / "cache")
    if chance.random() < 0.5:  # the models are there already
        shutil.copytree(wanted.cache, sweep.cache)
        shutil.copytree(
            wanted.results, sweep.results, dirs_exist_ok=True,
            ignore=shutil.ignore_patterns("transfer", ".checkpoints"),
        )  # fmt: skip
    try:
        runs = _until_done(sweep, [known[name] for name in todo], chance, slurm)
        _same_rows(sweep, wanted)
    except (AssertionError, subprocess.TimeoutExpired) as error:
        print(f"FAILED: {error}")
        return False
    finally:
        if slurm:
            sweep.cancel_all()
    print(f"the same rows after {runs} runs")
    return True


def _until_done(sweep: Sweep, faults: list[Fault], chance: random.Random, slurm: bool) -> int:
    """Disturb one run after the other, then leave them alone; how many it took."""
    for run in range(1, RUNS + 1):
        process = sweep.on_slurm() if slurm else sweep.start("--processes", "2")
        trial = Trial(sweep, process, chance)
        if run <= len(faults):
            err = _disturbed(trial, faults[run - 1], chance.uniform(1, WITHIN))
        else:
            err = process.communicate(timeout=500)[1]
        relieve(trial)
        assert "Traceback" not in err, err
        if process.returncode == 0 and run > len(faults):
            return run
    raise AssertionError(f"not done after {RUNS} runs: {err}")


def _disturbed(trial: Trial, fault: Fault, seconds: float) -> str:
    """What the run says on stderr."""
    try:
        return trial.process.communicate(timeout=seconds)[1]
    except subprocess.TimeoutExpired:
        fault(trial)
    return trial.process.communicate(timeout=500)[1]


def _same_rows(found: Sweep, wanted: Sweep) -> None:
    """Exactly the planned rows with equal results, and none twice among what can be read."""
    for table in TABLES:
        skipped: dict[Path, str] = {}
        store.read([found.results], table, on_skip=skipped.__setitem__)
        parts = set(store.list_parts(found.results / table)) - set(skipped)
        # A killed process may leave a row twice, in a part and in what it was merged into.
        done = pd.concat(pd.read_parquet(p, columns=["run_id", "created"]) for p in parts)
        assert done.drop_duplicates()["run_id"].is_unique, f"{table}: runs were done twice"
        got, reference = found.rows(table), wanted.rows(table)
        if table == "complementarity":  # all pairs are one run, whose failure is a row of its own
            got = got[got["status"] == store.OK].reset_index(drop=True)
        failed = got[got["status"] != store.OK]
        assert failed.empty, f"{table}: {failed[['run_id', 'error', 'created']].to_dict('records')}"
        columns = [c for c in got.columns if c not in PROVENANCE]
        pd.testing.assert_frame_equal(got[columns], reference[columns])


if __name__ == "__main__":
    sys.exit(main())
