"""What workers leave in their logs, for whoever finds them dead."""

from __future__ import annotations

from pathlib import Path


def last_line(log: Path) -> str:
    """The last line, at most 500 characters; of srun's own only if there is no other."""
    said = lines(log)
    own = [line for line in said if not line.startswith("srun: ")]
    return (own or said or [""])[-1].strip()[:500]


def last_said(log: Path, prefix: str) -> str | None:
    """What is behind `prefix` in the last line that has it: what a worker said of itself."""
    said = [line for line in lines(log) if line.startswith(prefix)]
    return said[-1].removeprefix(prefix) if said else None


def last_numbers(log: Path, prefix: str) -> list[int] | None:
    """The numbers behind `prefix` in the last line that has it."""
    said = last_said(log, prefix)
    return None if said is None else [int(number) for number in said.split()]


def lines(log: Path) -> list[str]:
    """All lines; none where there is no such file."""
    try:
        return log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return []
