from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kt_cli.errors import DataError, WriteError
from kt_cli.rows import arrays


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "entry.parquet"


def columns(start: int = 0, rows: int = 4) -> arrays.Arrays:
    here = np.arange(start, start + rows)
    return {
        "id": [f"val/n{i:04d}.jpeg" for i in here],
        "pred": here.astype(np.int16),
        "confidence": (here / 7).astype(np.float32),
        "logits": (here[:, None] + np.array([0.5, -1.25, 3.0])).astype(np.float16),
    }


def assert_equal(found: arrays.Arrays, expected: arrays.Arrays) -> None:
    assert list(found) == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], np.asarray(values))
        if not isinstance(values, list):
            assert found[name].dtype == values.dtype and found[name].shape == values.shape


def test_what_is_written_is_read(path: Path) -> None:
    arrays.write(path, columns(), {"model": "vit", "name": "ρ⁺"})
    found, about = arrays.read(path)
    assert_equal(found, columns())
    assert about == {"model": "vit", "name": "ρ⁺"}
    assert list(path.parent.iterdir()) == [path]


def test_batches_become_one_file_with_what_was_learned_meanwhile(path: Path) -> None:
    about = {"model": "vit"}
    with arrays.writer(path, about) as append:
        append(columns(0, 5))
        append(columns(5, 2))
        assert not path.exists()
        about["batch_size"] = "5"
        append(columns(7, 1))
    found, said = arrays.read(path)
    assert_equal(found, columns(0, 8))
    assert said == {"model": "vit", "batch_size": "5"}


def test_others_read_it_with_types_as_documented(path: Path) -> None:
    arrays.write(path, columns(), {"model": "vit"})
    table = pq.read_table(path)
    assert table.column("id").to_pylist() == columns()["id"]
    assert table.column("logits").to_pylist() == columns()["logits"].tolist()
    assert table.schema.field("logits").type == pa.list_(pa.float16(), 3)
    assert pq.read_metadata(path).metadata[b"model"] == b"vit"


def test_only_the_columns_that_are_asked_for_and_there(path: Path) -> None:
    arrays.write(path, columns(), {})
    found, about = arrays.read(path, ["logits", "pred", "top5"])
    assert_equal(found, {name: columns()[name] for name in ("pred", "logits")})
    assert about == {}


@pytest.mark.parametrize("name", ["pred", "logits", "id"])
def test_batches_of_one_column(path: Path, name: str) -> None:
    with arrays.writer(path, {}) as append:
        append(columns(0, 6))
        append(columns(6, 4))
    parts = list(arrays.batches(path, name, rows=3))
    assert all(1 <= len(part) <= 3 for part in parts)
    np.testing.assert_array_equal(np.concatenate(parts), columns(0, 10)[name])


def test_info_tells_rows_columns_and_what_is_said(path: Path) -> None:
    with arrays.writer(path, {"data": "digits"}) as append:
        append(columns(0, 6))
        append(columns(6, 4))
    assert arrays.info(path) == (10, ("id", "pred", "confidence", "logits"), {"data": "digits"})


@pytest.mark.parametrize("error", [RuntimeError("the model raised"), KeyboardInterrupt()])
def test_an_error_inside_the_block_leaves_nothing(path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)), arrays.writer(path, {}) as append:
        append(columns())
        raise error
    assert list(path.parent.iterdir()) == []


def test_an_error_leaves_what_was_there_before(path: Path) -> None:
    arrays.write(path, columns(0, 2), {})
    with pytest.raises(RuntimeError), arrays.writer(path, {}) as append:
        append(columns())
        raise RuntimeError
    assert_equal(arrays.read(path)[0], columns(0, 2))


def test_what_cannot_be_replaced_is_an_error_and_leaves_nothing(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(WriteError, match=re.escape(str(path))):
        arrays.write(path, columns(), {})
    assert list(path.parent.iterdir()) == [path]


def test_a_truncated_file_is_named(path: Path) -> None:
    arrays.write(path, columns(), {})
    whole = path.read_bytes()
    for size in (0, 50, len(whole) - 1):
        path.write_bytes(whole[:size])
        for read in (arrays.read, arrays.info, lambda p: list(arrays.batches(p, "pred", 4))):
            with pytest.raises(DataError, match=re.escape(str(path))):
                read(path)
    path.unlink()
    with pytest.raises(DataError, match=re.escape(str(path))):
        arrays.read(path)


@pytest.mark.parametrize("name", ["id", "pred", "confidence", "logits"])
def test_a_flipped_bit_in_a_page_is_found(path: Path, name: str) -> None:
    """Values without structure: only the checksum can tell."""
    drawn = np.random.default_rng(0)
    random = {
        "id": [drawn.bytes(8).hex() for _ in range(64)],
        "pred": drawn.integers(0, 2**15, 64).astype(np.int16),
        "confidence": drawn.random(64).astype(np.float32),
        "logits": drawn.normal(size=(64, 3)).astype(np.float16),
    }
    arrays.write(path, random, {})
    place = list(random).index(name)
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(place)
    content = bytearray(path.read_bytes())
    content[chunk.data_page_offset + chunk.total_compressed_size * 2 // 3] ^= 1
    path.write_bytes(content)
    arrays.info(path)
    for read in (arrays.read, lambda p: list(arrays.batches(p, name, 4))):
        with pytest.raises(DataError, match=re.escape(str(path))):
            read(path)


def test_what_is_said_but_is_no_text_is_named(path: Path) -> None:
    arrays.write(path, {"pred": np.arange(3)}, {"model": "unmistakable"})
    path.write_bytes(path.read_bytes().replace(b"unmistakable", b"unmistak\xffble"))
    with pytest.raises(DataError, match=re.escape(str(path))):
        arrays.info(path)


def test_batches_hold_a_few_rows_at_a_time(path: Path) -> None:
    drawn = np.random.default_rng(0)
    with arrays.writer(path, {}) as append:
        for _ in range(40):
            append({"logits": drawn.normal(size=(128, 500)).astype(np.float16)})
    before, peak = pa.total_allocated_bytes(), 0
    for _ in arrays.batches(path, "logits", 128):
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert peak < path.stat().st_size / 4
