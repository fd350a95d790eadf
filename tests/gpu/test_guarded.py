"""A student that the guard does not let go anywhere is the one that came in, to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from gpu.toys import AMPS, precise, spec_of
from gpu.zoo import model, run_of, trained
from kt_cli.runs.transfer import transfer_run

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zoo")
    trained(folder)
    return folder


@pytest.mark.parametrize("amp", [precise(amp) for amp in AMPS])
def test_the_guard_at_zero_gives_back_the_student_exactly(
    amp: str, zoo: Path, tmp_path: Path, device: torch.device
) -> None:
    good, noise = model(zoo, "", "good-test_resnet"), model(zoo, "test_vit", "noise")
    spec = spec_of(method="kl+guard", amp=amp, eval_amp=amp, lr=2.0, epochs=1, force_guard=True)
    (row,) = transfer_run(run_of(spec, noise, good, out="after"), tmp_path)
    assert row["delta_unguarded"] < -5, "the teacher did no harm, so the guard had nothing to do"
    assert (row["guard_alpha"], row["delta"], row["gain"], row["loss"]) == (0, 0, 0, 0)
    before, after = (
        load_file(home / "model.safetensors")
        for home in (zoo / "good-test_resnet", tmp_path / "after")
    )
    assert before.keys() == after.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(value, after[name], name)
