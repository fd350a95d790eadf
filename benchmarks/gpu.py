"""What a GPU shows: the tests marked gpu, then how fast kt is on it. Without one, at toy size.

    python -m benchmarks.gpu [--out results/gpu] [--minutes 8] [--only tests|benchmarks]

Everything is written as it is known, to OUT/tests.txt and OUT/benchmarks.md. Each test file and
each table has a process of its own; what no longer fits into the time is left out and said.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from benchmarks import apart
from benchmarks.measure import ROOT, environment

# The most telling first.
FILES = ("overflow", "workers", "going_on", "memory", "waiting", "guarded", "compiled", "agreement")
# Of the time that is left then, the share that a table may take.
TABLES = {"device steps": 0.4, "device evaluation": 0.35, "levers": 0.5, "device waits": 0.75,
          "device pairs": 1.0}  # fmt: skip
TESTS_SHARE = {"cuda": 0.5, "cpu": 0.75}  # of the time, at most
LAST_SECONDS = 5.0  # to end in time
GRACE_SECONDS = 15.0  # for a row that took longer than the one before
TEST_SECONDS = {"cuda": 140.0, "cpu": 240.0}
JOBS = {"cuda": 4, "cpu": 2}
Tell = Callable[[str], None]


@lru_cache(maxsize=1)
def no_gpu() -> str:
    """Why there is none; "" where there is one."""
    if torch.version.cuda is None and torch.version.hip is None:
        return f"torch {torch.__version__} is built without CUDA"
    if torch.cuda.is_available():
        return ""
    try:
        torch.cuda.init()
    except Exception as error:  # whatever the driver has to say
        return " ".join(str(error).split()) or type(error).__name__
    return "torch sees no device"


def heading() -> str:
    """The card, or that there is none; then what is installed."""
    lines = [f"No GPU, so on the CPU at toy size: {no_gpu()}" if no_gpu() else f"On {_card()}"]
    names = ("torch", "torchvision", "timm", "triton", "numpy")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    installed = [f"{name} {found}" for name in names if (found := _version(name))]
    installed += [f"CUDA {torch.version.cuda}", f"Python {platform.python_version()}"]
    lines.append(f"{', '.join(installed)}, {cores} cores{_shared_memory()}")
    return "\n".join(lines)


def _card() -> str:
    about = torch.cuda.get_device_properties(0)
    major, minor = torch.cuda.get_device_capability(0)
    name, count = torch.cuda.get_device_name(0), torch.cuda.device_count()
    memory = about.total_memory / 2**30
    return (
        f"{name} ({memory:.0f} GiB, compute capability {major}.{minor}, driver {_driver()}), "
        f"{count} visible"
    )


def _driver() -> str:
    with suppress(OSError, subprocess.SubprocessError):
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        shown = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True)
        return shown.stdout.splitlines()[0].strip() if shown.stdout.strip() else "unknown"
    return "unknown"


def _version(name: str) -> str:
    with suppress(PackageNotFoundError):
        return version(name)
    return ""


def _shared_memory() -> str:
    with suppress(OSError):
        return f", /dev/shm {shutil.disk_usage('/dev/shm').free / 2**30:.1f} GB"
    return ""


# --- the two parts -------------------------------------------------------------------------------


def tests(kind: str, until: float, say: Tell, write: Tell) -> bool:
    """Whether all tests that ran passed, and all ran."""
    folder = ROOT / "tests" / "gpu"
    files = sorted(folder.glob("test_*.py"), key=_place)
    # On a GPU a warning that nobody has met yet is shown, and no failure.
    options = ("-W", "default") if kind == "cuda" else ()
    found = apart.run(files, jobs=JOBS[kind], seconds=TEST_SECONDS[kind], until=until,
                      options=options, say=say, write=write)  # fmt: skip
    text = ", ".join(f"{count} {outcome}" for outcome, count in sorted(found.items()))
    say(f"tests: {text}\n")
    write(f"\ntests: {text}")
    return found["passed"] > 0 and not any(found[bad] for bad in ("failed", apart.DIED, apart.CUT))


def _place(path: Path) -> tuple[int, str]:
    name = path.stem.removeprefix("test_")
    return (FILES.index(name) if name in FILES else len(FILES)), name


def tables(out: Path, until: float, say: Tell, write: Tell) -> bool:
    """Each table in a process of its own; whether all went well."""
    well = True
    for name, share in TABLES.items():
        left = until - time.monotonic()
        if left < LAST_SECONDS:
            write(f"{name}: left out, no time left\n")
            say(f"{name}: left out, no time left")
            continue
        command = [sys.executable, "-m", *f"benchmarks.{name}".split(), "--out", str(out),
                   "--seconds", f"{share * left:.0f}"]  # fmt: skip
        process = subprocess.Popen(command, cwd=ROOT, env=environment(),
                                   stdin=subprocess.DEVNULL, start_new_session=True)  # fmt: skip
        try:
            code = process.wait(min(left, share * left + GRACE_SECONDS))
        except subprocess.TimeoutExpired:
            code = None
        finally:
            apart.end(process)
        if code != 0:
            well = False
            how = "was cut: no time left" if code is None else f"ended with {code}"
            write(f"\n{name} {how}\n")
            say(f"{name} {how}")
    return well


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "gpu")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--only", choices=("tests", "benchmarks"))
    chosen = parser.parse_args()
    end = time.monotonic() + 60 * chosen.minutes - LAST_SECONDS
    say, out = _say, chosen.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    text = heading()
    say(text + "\n")
    kind = "cpu" if no_gpu() else "cuda"
    if kind == "cpu":  # works so small that threads cost more than they save
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    well = []
    if chosen.only != "benchmarks":
        share = 1.0 if chosen.only == "tests" else TESTS_SHARE[kind]
        until = time.monotonic() + share * (end - time.monotonic())
        well.append(tests(kind, until, say, _writer(out / "tests.txt", text)))
    if chosen.only != "tests":
        well.append(tables(out, end, say, _writer(out / "benchmarks.md", text)))
    say(f"written to {_short(out)}")
    sys.exit(0 if all(well) else 1)


def _writer(path: Path, first: str) -> Tell:
    """Appends to a new file, line by line, as whoever is cut off leaves it."""
    path.write_text("", encoding="utf-8")

    def write(text: str) -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write(text + "\n")

    write(first + "\n")
    return write


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _short(path: Path) -> Path:
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


if __name__ == "__main__":
    main()
