"""Names that are not UTF-8, and streams that lack signs."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kt_cli.cli import app, screen
from kt_cli.cli.table_view import as_text
from kt_cli.report.table import Column, Table
from kt_cli.rows import store

Kt = Callable[..., tuple[int, str, str]]
SaveTiny = Callable[..., str]


def folder(root: str) -> str:
    """Class folders of four images each, one of which is called café in latin-1."""
    for c, name in enumerate(("0", "r\udce9d")):
        for i, image in enumerate(("caf\udce9.png", "a.png", "b.png", "c.png")):
            path = Path(root, name, image)
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng([c, i]).integers(0, 255, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(path)
    return root


def test_names_that_are_not_utf8_are_escaped_and_come_back(
    kt: Kt, save_tiny: SaveTiny, tmp_path: Path
) -> None:
    models = [save_tiny(tmp_path / f"m{seed}", 2, seed) for seed in range(2)]
    asked = ("--by-position", "--data", folder(f"{tmp_path}/d\udce9"))
    page = tmp_path / "page.html"
    code, out, err = kt(
        "complementarity", *models, *asked, "--samples", "8", "--gallery", str(page)
    )
    assert code == 0, err
    assert r"d\xe9: 8 images" in out and r"r\xe9d/" in out and r"r\xe9d/" in page.read_text("utf-8")
    code, out, err = kt("complementarity", *models, *asked, "--json")
    assert code == 0 and json.loads(out)["data"].endswith("d\\xe9"), err
    (kept, *_) = Path(os.environ["KT_CACHE"], "predictions").glob("*.parquet")
    said = pd.read_parquet(kept)[["id", "pred"]][::-1]
    assert r"r\xe9d/caf\xe9.png" in said["id"].tolist()
    said.to_csv(tmp_path / "a.csv", index=False)
    raw = json.dumps(said.to_dict("records")).replace(r"\\xe9", r"\udce9")  # as Python has them
    (tmp_path / "b.json").write_text(raw)
    for name in ("a.csv", "b.json"):
        code, out, err = kt("complementarity", models[0], f"predictions:{tmp_path / name}", *asked)
        assert code == 0, err


def test_errors_with_such_names_are_rows(tmp_path: Path) -> None:
    store.write(tmp_path, "transfer", [{"run_id": "a", "error": "cannot decode caf\udce9.png"}])
    assert store.read([tmp_path], "transfer")["error"].tolist() == [r"cannot decode caf\xe9.png"]


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252"])
def test_signs_that_a_stream_lacks_are_replaced(
    monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    shown = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", shown)
    app.tolerate()
    screen.out.print(screen.table(("a", "Δ"), [("ρ⁺ → 猫 ±1 “x”", "café caf\udce9")]))
    shown.flush()
    text = shown.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    assert "D" in text and "rho+ -> ?" in text and r"caf\xe9" in text


@pytest.mark.parametrize("settings", [{"PYTHONIOENCODING": "latin-1"}, {"LC_ALL": "C"}])
def test_commands_on_such_streams(tmp_path: Path, settings: dict[str, str]) -> None:
    for name, pred in (("a→猫", [0, 1, 1]), ("b", [0, 0, 1])):
        frame = pd.DataFrame({"id": list("xyz"), "label": [0, 1, 1], "pred": pred})
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    kt = [sys.executable, "-m", "kt_cli", "complementarity"]
    files = [f"predictions:{tmp_path / name}.csv" for name in ("a→猫", "b")]
    said = subprocess.run([*kt, *files], env={**os.environ, **settings}, capture_output=True)
    assert said.returncode == 0, said.stderr
    assert b" knows " in said.stdout


def test_text_for_files_keeps_all_signs() -> None:
    table = Table("x", "Δ", (Column("a", "ρ⁺", "text"),), (("[red]x :dog:",),))
    text = as_text([table])
    assert "Δ" in text and "ρ⁺" in text and "[red]x :dog:" in text


def test_paths_that_are_not_utf8(kt: Kt, save_tiny: SaveTiny, tmp_path: Path) -> None:
    models = [save_tiny(tmp_path / f"m{seed}", 2, seed) for seed in range(2)]
    data = tmp_path / "d\udce9"
    folder(f"{data}/train"), folder(f"{data}/val")
    asked = ("--by-position", "--data", str(data), "--epochs", "1", "-m", "kl", "--side", "32")
    code, _, err = kt("transfer", *models, *asked, "-o", str(tmp_path / "s\udce9"))
    assert code == 0, err
    assert rf"{tmp_path}/d\xe9" in (tmp_path / "s\udce9/README.md").read_text("utf-8")
    code, _, err = kt("sweep", "--models", ",".join(models), *asked, "-o", str(tmp_path))
    assert code == 2 and r"d\xe9" in err and "link" in err
