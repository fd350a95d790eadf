"""`--skip-broken`: what it leaves out is said, on the screen and in the rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from kt_cli.api.results import results

Kt = Callable[..., tuple[int, str, str]]
SaveTiny = Callable[..., str]


def test_rows_say_how_many(kt: Kt, save_tiny: SaveTiny, tmp_path: Path) -> None:
    for split in ("train", "val"):
        for c, name in enumerate("ab"):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for i in range(6):
                pixels = np.random.default_rng([c, i]).integers(0, 255, (32, 32, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "data" / split / name / f"{i}.png")
        (tmp_path / "data" / split / "a/0.png").write_bytes(b"")
        (tmp_path / "data" / split / "b/1.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "data/val/b/9.png").symlink_to("nowhere.png")
    models = [save_tiny(tmp_path / f"m{seed}", 2, seed) for seed in range(2)]
    images = ("--data", str(tmp_path / "data"), "--by-position")
    code, out, err = kt("complementarity", *models, *images)
    assert code == 2 and "3 of 13 images" in err
    code, out, err = kt("complementarity", *models, *images, "--skip-broken")
    assert code == 0 and "10 images" in out and "left out" in err
    asked = ("-o", str(tmp_path / "results"), "--name", "x", "--executor", "inline",
             "--epochs", "1", "-m", "kl", "--side", "32")  # fmt: skip
    code, out, err = kt("sweep", "--models", ",".join(models), *images, *asked, "--skip-broken")
    assert code == 0, err
    assert "skip_broken = true" in (tmp_path / "results/x/sweep.toml").read_text()
    found = results(tmp_path / "results/x")
    for table in ("models", "complementarity", "transfer"):
        rows = found.rows(table)
        assert set(rows["skipped"]) == {3} and set(rows["n"]) == {10}
    assert set(found.rows("transfer")["skipped_train"]) == {2}
