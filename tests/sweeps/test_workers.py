"""Worker processes: how they begin, what is left of one that ends, and of who forks them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from kt_cli.errors import KtError, WriteError
from kt_cli.sweeps.workers import Worker, Workers

# Workers whose chunk is a line of Python, and which need no torch.
SERVER = """
import sys
import types

from kt_cli.sweeps import workers

workers.NEEDED = ()
sys.modules["kt_cli.sweeps.chunk"] = types.SimpleNamespace(run_chunk=lambda code, *_: exec(code))
{first}
if __name__ == "__main__":
    workers.main()
"""
PARENTS = "import os; print(os.getppid(), flush=True)"
Start = Callable[..., Worker]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Start]]:
    made: list[Workers] = []
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)

    def starter(first: str = "") -> Start:
        (tmp_path / "server.py").write_text(SERVER.format(first=first))
        found = Workers(tmp_path / "50%j \udce9" / "results")
        monkeypatch.setattr(Workers, "module", "server")
        made.append(found)
        return lambda code: found.start(code, 0, 1, [None, 1])

    yield starter
    for one in made:
        one.close()


def said(worker: Worker, seconds: float = 20) -> tuple[str, str]:
    """Its logs when it has ended."""
    deadline = time.monotonic() + seconds
    while not worker.ended():
        assert time.monotonic() < deadline, "it goes on"
        time.sleep(0.02)
    assert Path(f"/proc/{worker.process}").exists()  # its number is no one else's
    return worker.out.read_text().lstrip(), worker.err.read_text().lstrip()


def test_each_has_logs_of_its_own_and_none_hears_of_another(make: Callable[..., Start]) -> None:
    start = make()
    lasts = start("import time; print('lasts', flush=True); time.sleep(60)")
    raises = start("import sys; sys.stderr.write('careful\\n'); raise ValueError('no such model')")
    out, err = said(raises)
    assert not out and err.startswith("careful") and err.endswith("ValueError: no such model\n")
    assert said(start("print(input())"))[1].endswith("EOFError: EOF when reading a line\n")
    assert said(start("import subprocess; print(subprocess.call(['false']))"))[0] == "1\n"
    assert not lasts.ended()
    lasts.kill()
    assert said(lasts) == ("lasts\n", "")
    lasts.kill()  # again, and nothing happens


def test_all_are_forked_by_one_process_and_by_another_if_that_dies(
    make: Callable[..., Start],
) -> None:
    start = make("print('imported', file=__import__('sys').stderr)")
    first, second = (int(said(start(PARENTS))[0]) for _ in range(2))
    assert first == second != os.getpid()
    goes_on = start("import time; time.sleep(1); print('to the end')")
    os.kill(first, signal.SIGKILL)
    time.sleep(0.2)
    assert int(said(start(PARENTS))[0]) not in {first, os.getpid()}
    assert said(goes_on)[0] == "to the end\n"


def test_one_that_is_killed_before_it_forks_is_replaced(
    make: Callable[..., Start], tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    mark.touch()
    start = make(f"import os\nif os.path.exists({str(mark)!r}):\n"
                 f"    os.remove({str(mark)!r})\n    os.kill(os.getpid(), 9)")  # fmt: skip
    assert said(start("print('here')")) == ("here\n", "") and not mark.exists()


def test_what_imports_print_is_no_answer(make: Callable[..., Start]) -> None:
    start = make("print('Welcome to the cluster')\nprint('42', end='')")
    assert [said(start("print('here')"))[0] for _ in range(2)] == ["here\n"] * 2


def test_logs_of_an_earlier_sweep_stay(make: Callable[..., Start]) -> None:
    first, second = (make()("print('here')") for _ in range(2))
    assert first.out != second.out and said(first) == said(second) == ("here\n", "")


def test_what_a_killed_worker_printed_is_there(
    make: Callable[..., Start], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    dies = make()("print('last words'); import os; os.kill(os.getpid(), 9)")
    assert said(dies)[0] == "last words\n"


def test_random_numbers_differ(make: Callable[..., Start]) -> None:
    start = make()
    drawn = "import random, numpy; print(random.random(), numpy.random.rand())"
    first, second = (said(start(drawn))[0].split() for _ in range(2))
    assert not {*first} & {*second}


def test_a_full_disk_is_known_before_a_worker_starts(
    make: Callable[..., Start], tmp_path: Path, small_disk: Callable[..., Path]
) -> None:
    disk = small_disk("64k", "50%j \udce9")
    with suppress(OSError), (disk / "full").open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    with pytest.raises(WriteError, match="No space left"):
        make()("pass")


def test_what_keeps_workers_from_starting_is_said(make: Callable[..., Start]) -> None:
    with pytest.raises(KtError, match="could not start: ImportError: no torch here") as found:
        make("raise ImportError('no torch here')")("pass")
    log = Path(found.value.tip.removeprefix("Log: "))
    assert "Traceback" in log.read_text()


def test_logs_that_cannot_be_written_are_named(make: Callable[..., Start], tmp_path: Path) -> None:
    (tmp_path / "50%j \udce9").write_text("a file")
    with pytest.raises(WriteError, match=r"cannot write .*results/logs"):
        make()("pass")


# CUDA does not work in what is forked after anybody counted devices.
NO_DEVICE = """
import importlib, sys
import torch
from kt_cli.sweeps import workers

def counted(*_):
    raise SystemExit("devices are counted")

torch._C._cuda_getDeviceCount = torch.cuda.device_count = torch.cuda.is_available = counted
for name in workers.NEEDED:
    importlib.import_module(name)
print(torch.cuda.is_initialized(), "timm" in sys.modules)
"""


def test_who_forks_has_all_that_runs_need_and_no_device() -> None:
    command = [sys.executable, "-c", NO_DEVICE]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "True"], done.stderr
