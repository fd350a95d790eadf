"""A cluster faked at its seam: sbatch, squeue, scontrol and the others as small scripts on PATH."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

SBATCH = """
if [ -s "$FAKE/refusals" ]; then
    head -n 1 "$FAKE/refusals" >&2; sed -i 1d "$FAKE/refusals"; exit 1
fi
echo x >> "$FAKE/count"
id=$((100 + $(wc -l < "$FAKE/count")))
cp "$1" "$FAKE/$id.sh"
env > "$FAKE/$id.env"
echo "Submitted batch job $id"
"""
SCRIPTS = {
    "sbatch": SBATCH,
    "srun": "exit 1",
    "squeue": 'echo squeue >> "$FAKE/calls"; [ ! -e "$FAKE/no-squeue" ] || exit 1\n'
    # As where all partitions are hidden.
    'case "$*" in *-a*) cat "$FAKE/queue" 2>/dev/null || true;; esac',
    "sacct": 'echo sacct >> "$FAKE/calls"; [ -e "$FAKE/accounts" ] || exit 1; cat "$FAKE/accounts"',
    "scancel": 'echo "$@" >> "$FAKE/cancelled"',
    "scontrol": '[ ! -e "$FAKE/down" ] || exit 1; echo "MaxArraySize            = 1001"',
    "sinfo": 'cat "$FAKE/nodes"',
}


class FakeSlurm:
    """What the commands say is in files of `folder`, which tests write."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nodes("8|gpu:8")

    def nodes(self, *lines: str) -> None:
        self._write("nodes", lines)

    def queue(self, *lines: str) -> None:
        """Lines JOB|TASK|STATE as squeue prints them."""
        self._write("queue", lines)

    def accounts(self, *lines: str) -> None:
        """Lines JOB_TASKS|STATE as sacct prints them."""
        self._write("accounts", lines)

    def refuse(self, *messages: str) -> None:
        """What the next calls of sbatch answer."""
        self._write("refusals", messages)

    def script_of(self, command: str, script: str) -> None:
        """Let a command do something else."""
        (self.folder / "bin" / command).write_text(f"#!/bin/sh\n{script}\n")

    def squeue_fails(self, fails: bool = True) -> None:
        if fails:
            (self.folder / "no-squeue").touch()
        else:
            (self.folder / "no-squeue").unlink()

    def is_down(self) -> None:
        (self.folder / "down").touch()

    @property
    def calls(self) -> list[str]:
        return self._lines("calls")

    @property
    def cancelled(self) -> list[str]:
        return self._lines("cancelled")

    @property
    def submitted(self) -> list[str]:
        """Ids, in their order."""
        return sorted(path.stem for path in self.folder.glob("*.sh"))

    def options(self, job: str) -> dict[str, str]:
        """The #SBATCH options of a job."""
        found = re.findall(r"^#SBATCH --([a-z-]+)(?:=(.*))?$", self.script(job), re.MULTILINE)
        return dict(found)

    def script(self, job: str) -> str:
        return (self.folder / f"{job}.sh").read_text()

    def environment(self, job: str) -> str:
        return (self.folder / f"{job}.env").read_text()

    def _write(self, name: str, lines: tuple[str, ...]) -> None:
        (self.folder / name).write_text("".join(f"{line}\n" for line in lines))

    def _lines(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []


def fake_slurm(folder: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    (folder / "bin").mkdir(parents=True)
    for name, script in SCRIPTS.items():
        path = folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("FAKE", str(folder))
    monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.delenv("KT_EXECUTOR")
    return FakeSlurm(folder)
