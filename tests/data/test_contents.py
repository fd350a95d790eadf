"""What files hold: read once, and again whenever they may have changed."""

from __future__ import annotations

import hashlib
import io
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kt_cli import cache, files
from kt_cli.data import contents
from kt_cli.data.contents import Digests, of_files, remembered
from kt_cli.errors import DataError
from kt_cli.rows import arrays

Counted = list[str]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Counted:
    """Names of the files that are read, in a world whose clock is past what was just written."""
    found: Counted = []
    real = contents._read

    def counted(path: str) -> Any:
        found.append(Path(path).name)
        return real(path)

    monkeypatch.setattr(contents, "_read", counted)
    monkeypatch.setattr(files, "GRAIN", -(10**15))
    return found


def make(root: Path, count: int, size: int = 50) -> list[str]:
    rng = random.Random(count)
    names = [f"c{i % 3}/{i}.bin" for i in range(count)]
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(rng.randbytes(size))
    return names


def by_hand(root: Path, names: list[str]) -> list[str]:
    return [hashlib.sha256((root / name).read_bytes()).hexdigest()[:32] for name in names]


def told(found: Digests) -> list[str]:
    return [bytes(row).hex() for row in found]


def memory() -> Path:
    (path,) = (Path(os.environ["KT_CACHE"]) / "contents").iterdir()
    return path


def test_what_did_not_change_is_not_read_again(tmp_path: Path, read: Counted) -> None:
    names = make(tmp_path, 300)
    found = of_files(tmp_path, names)
    assert found.shape == (300, contents.SIZE) and told(found) == by_hand(tmp_path, names)
    assert len(read) == 300
    backwards = of_files(tmp_path, names[::-1])
    assert len(read) == 300 and told(backwards) == by_hand(tmp_path, names[::-1])
    assert of_files(tmp_path, []).shape == (0, contents.SIZE)


def test_only_what_changed_is_read_again(tmp_path: Path, read: Counted) -> None:
    names = make(tmp_path, 300)
    of_files(tmp_path, names)
    read.clear()
    (tmp_path / names[7]).write_bytes(b"x" * 50)
    copy = tmp_path / "copy"
    copy.write_bytes((tmp_path / names[8]).read_bytes())
    copy.replace(tmp_path / names[8])  # as rsync does: the same content, another inode
    assert told(of_files(tmp_path, names)) == by_hand(tmp_path, names)
    assert sorted(read) == ["7.bin", "8.bin"]


def test_a_restored_time_hides_nothing(tmp_path: Path, read: Counted) -> None:
    names = make(tmp_path, 5)
    of_files(tmp_path, names)
    path = tmp_path / names[3]
    before = path.stat()
    path.write_bytes(bytes(255 - byte for byte in path.read_bytes()))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns and path.stat().st_size == before.st_size
    assert told(of_files(tmp_path, names)) == by_hand(tmp_path, names)


@pytest.mark.parametrize(("age", "again"), [(files.GRAIN // 2, True), (2 * files.GRAIN, False)])
def test_what_changed_within_the_clocks_grain_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age: int, again: bool
) -> None:
    """Whatever the clock of the file system: a second change leaves the status as it is."""
    path, now = tmp_path / "file", 10**18
    monkeypatch.setattr(contents, "status_of", lambda found: (found.st_size, now - age, 0, 1))
    monkeypatch.setattr(contents.time, "time_ns", lambda: now)
    path.write_bytes(b"one")
    first = told(of_files(tmp_path, ["file"]))
    path.write_bytes(b"two")
    second = told(of_files(tmp_path, ["file"]))
    assert first == [hashlib.sha256(b"one").hexdigest()[:32]]
    assert second == ([hashlib.sha256(b"two").hexdigest()[:32]] if again else first)


def test_what_changes_while_it_is_read_is_read_again(
    tmp_path: Path, read: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = make(tmp_path, 3)

    def disturbed(value: bytes) -> bytes:
        monkeypatch.setattr(contents, "one", one)
        (tmp_path / names[0]).write_bytes(b"meanwhile")
        return one(value)

    one = contents.one
    monkeypatch.setattr(contents, "READERS", 1)
    monkeypatch.setattr(contents, "one", disturbed)
    of_files(tmp_path, names)
    assert told(of_files(tmp_path, names)) == by_hand(tmp_path, names)
    assert read.count("0.bin") == 2 and read.count("1.bin") == 1


def test_a_file_that_is_gone_is_named(tmp_path: Path, read: Counted) -> None:
    names = make(tmp_path, 3)
    (tmp_path / names[1]).unlink()
    with pytest.raises(DataError, match=rf"cannot read {tmp_path}/{names[1]}: No such file"):
        of_files(tmp_path, names)


# --- memory -------------------------------------------------------------------------------------


def test_what_was_read_before_an_error_is_kept(tmp_path: Path, read: Counted) -> None:
    names = make(tmp_path, 300)
    (tmp_path / names[-1]).unlink()
    (tmp_path / names[-1]).mkdir()
    with pytest.raises(DataError, match=r"299\.bin"):
        of_files(tmp_path, names)
    before = len(read)
    of_files(tmp_path, names[:128])
    assert len(read) == before


def test_a_part_leaves_the_rest_in_memory(tmp_path: Path, read: Counted) -> None:
    names = make(tmp_path, 100)
    for part in (names[:60], names[40:], names):
        assert told(of_files(tmp_path, part)) == by_hand(tmp_path, part)
    assert len(read) == 100


def test_what_another_wrote_meanwhile_stays(
    tmp_path: Path, read: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = make(tmp_path, 90)
    counting = contents._read

    def slow(path: str) -> Any:
        monkeypatch.setattr(contents, "_read", counting)
        of_files(tmp_path, names[30:])  # another process, between our looking and our keeping
        return counting(path)

    monkeypatch.setattr(contents, "READERS", 1)
    monkeypatch.setattr(contents, "_read", slow)
    of_files(tmp_path, names[:30])
    read.clear()
    assert told(of_files(tmp_path, names)) == by_hand(tmp_path, names) and not read


def test_several_processes_at_once(tmp_path: Path) -> None:
    names = make(tmp_path, 600)
    code = (
        "import sys\nfrom pathlib import Path\nfrom kt_cli import files\n"
        "from kt_cli.data import contents\n"
        "files.GRAIN = -10**15\n"
        "root, start, stop = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])\n"
        "names = [f'c{i % 3}/{i}.bin' for i in range(start, stop)]\n"
        "for _ in range(3):\n"
        "    print(*[bytes(row).hex() for row in contents.of_files(root, names)])\n"
    )
    ranges = [(0, 400), (200, 600), (0, 600)]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), str(a), str(b)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for a, b in ranges
    ]
    wanted = by_hand(tmp_path, names)
    for process, (a, b) in zip(started, ranges, strict=True):
        out, _ = process.communicate()
        assert process.returncode == 0
        assert [line.split() for line in out.splitlines()] == [wanted[a:b]] * 3
    assert cache.verify(*cache.entries("contents")) is None


def _flipped(path: Path) -> Iterator[bytes]:
    whole = path.read_bytes()
    rng = random.Random(0)
    for _ in range(60):
        at = rng.randrange(len(whole))
        yield whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1 :]


def _replaced(path: Path) -> Iterator[bytes]:
    whole = path.read_bytes()
    yield from (b"", b"PAR1", whole[: len(whole) // 2], whole[:-1], b"\0" * len(whole))


def _others(path: Path) -> Iterator[bytes]:
    good, _ = arrays.read(path)
    fewer = {name: values[:10] for name, values in good.items()}
    narrow = {**good, "digest": good["digest"][:, :4]}
    shuffled = {name: values[::-1].copy() for name, values in good.items()}
    for columns in ({"digest": good["digest"]}, {"key": good["key"]}, fewer, narrow, shuffled):
        arrays.write(path, columns, {})
        yield path.read_bytes()


@pytest.mark.parametrize("damage", [_flipped, _replaced, _others])
def test_damaged_memory_costs_only_time(
    tmp_path: Path, read: Counted, damage: Callable[[Path], Iterator[bytes]]
) -> None:
    names = make(tmp_path, 40)
    of_files(tmp_path, names)
    path = memory()
    good = path.read_bytes()
    wanted = by_hand(tmp_path, names)
    for broken in damage(path):
        path.write_bytes(broken)
        assert told(of_files(tmp_path, names)) == wanted
        read.clear()
        assert told(of_files(tmp_path, names)) == wanted and not read  # mended
        path.write_bytes(good)


def test_a_cache_that_cannot_be_written_costs_only_time(
    tmp_path: Path, read: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = make(tmp_path / "images", 20)
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("KT_CACHE", str(tmp_path / "file"))
    for _ in range(2):
        assert told(of_files(tmp_path / "images", names)) == by_hand(tmp_path / "images", names)
    assert len(read) == 40


def test_memory_is_listed_and_checked(tmp_path: Path, read: Counted) -> None:
    of_files(tmp_path, make(tmp_path, 20))
    (entry,) = cache.entries("contents")
    assert entry.about == {"data": str(tmp_path)} and entry.rows == 20 and not entry.fault
    assert entry.matches([f"{tmp_path.parent}/*"]) and cache.verify(entry) is None
    memory().write_bytes(memory().read_bytes()[:-9])
    assert cache.entries("contents")[0].fault


def test_folders_do_not_share_names(tmp_path: Path, read: Counted) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x").write_text(folder)
    found = [told(of_files(tmp_path / folder, ["x"])) for folder in ("a", "b")]
    assert found[0] != found[1]
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert told(of_files(tmp_path / "link", ["x"])) == found[0] and len(read) == 2


def test_a_status_can_be_of_what_things_lie_in(read: Counted) -> None:
    asked: list[int] = []

    def value(i: int) -> tuple[bytes, files.Status | None]:
        asked.append(i)
        return contents.one(str(i).encode()), (1, 2, 3, 4) if i else None

    status = np.tile(np.array([1, 2, 3, 4], np.int64), (3, 1))
    for _ in range(2):
        found = remembered("table", ["0", "1", "2"], status, value)
        assert told(found) == [hashlib.sha256(b"%d" % i).hexdigest()[:32] for i in range(3)]
    assert asked == [0, 1, 2, 0]  # the first is not to be remembered
    remembered("table", ["0", "1", "2"], status + 1, value)
    assert asked[4:] == [0, 1, 2]


# --- progress -----------------------------------------------------------------------------------


def test_progress_is_shown_only_where_reading_takes_a_while(
    tmp_path: Path, read: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, shown = make(tmp_path, 100), io.StringIO()

    def progress(done: int, total: int, what: str) -> None:
        shown.write(f"{what} {done}/{total}\n")

    of_files(tmp_path, names[:30], progress)
    assert not shown.getvalue()
    monkeypatch.setattr(contents, "QUIET_SECONDS", 0.0)
    of_files(tmp_path, names, progress)
    lines = shown.getvalue().splitlines()
    assert len(lines) == 70 and lines[-1] == "read images 70/70"
    of_files(tmp_path, names, progress)
    assert shown.getvalue().splitlines() == lines
