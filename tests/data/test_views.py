from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tv
from PIL import Image

from kt_cli.data import views
from kt_cli.data.sources import open_data
from kt_cli.data.views import AUGMENTS, Views, canonical, centre_square, preprocess
from kt_cli.errors import UnknownName
from kt_cli.spec import DataSpec

CPU = torch.device("cpu")


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(6, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def make(augment: str, seed: int = 0, n: int = 20) -> Views:
    pixels = np.random.default_rng(0).integers(0, 256, (n, 3, 8, 8), dtype=np.uint8)
    return Views(pixels, np.arange(n) % 3, augment, seed, CPU)


@pytest.mark.parametrize("augment", AUGMENTS)
def test_a_view_depends_on_seed_epoch_and_index_alone(augment: str) -> None:
    one, two = make(augment), make(augment)
    everything = one.batch(3, torch.arange(20))
    two.batch(1, torch.tensor([4]))  # what was asked before does not matter
    for indices in ([7], [19, 0, 7], [3, 3]):
        torch.testing.assert_close(two.batch(3, torch.tensor(indices)), everything[indices])
    assert everything.shape == (20, 3, 8, 8)
    assert everything.min() >= 0 and everything.max() <= 1


@pytest.mark.parametrize("augment", ["flip", "paper", "affine"])
def test_views_change_with_seed_and_epoch(augment: str) -> None:
    everything = torch.arange(20)
    first = make(augment).batch(0, everything)
    assert not torch.equal(first, make(augment).batch(1, everything))
    assert not torch.equal(first, make(augment, seed=1).batch(0, everything))
    assert make(augment).epoch_key(0) != make(augment).epoch_key(1)


def test_without_augmentation_all_epochs_are_one() -> None:
    plain = make("none")
    assert plain.epoch_key(0) == plain.epoch_key(5)
    assert torch.equal(plain.batch(0, torch.arange(20)), plain.batch(5, torch.arange(20)))


def test_colour_adjustments_equal_torchvision(images: torch.Tensor) -> None:
    amounts = torch.tensor([0.2, 0.7, 1.0, 1.3, 1.7, 1.8])
    turns = torch.tensor([-0.2, -0.1, 0.0, 0.05, 0.1, 0.2])
    for ours, theirs, values in (
        (views._brightness, tv.adjust_brightness, amounts),
        (views._contrast, tv.adjust_contrast, amounts),
        (views._saturation, tv.adjust_saturation, amounts),
        (views._hue, tv.adjust_hue, turns),
    ):
        got = ours(images, values)
        wanted = torch.stack(
            [theirs(image, float(v)) for image, v in zip(images, values, strict=True)]
        )
        torch.testing.assert_close(got, wanted, atol=2e-4, rtol=0)


def test_papers_probabilities() -> None:
    n = 4000
    flat = torch.rand(1, 3, 4, 4).expand(n, 3, 4, 4)
    draws = torch.rand(n, views.DRAWS, generator=torch.Generator().manual_seed(1))
    grey = AUGMENTS["paper"](flat, draws)
    is_grey = (grey.amax(1) - grey.amin(1)).amax((1, 2)) < 1e-6
    assert abs(float(is_grey.float().mean()) - 0.2) < 0.03
    flipped = AUGMENTS["flip"](flat, draws)
    changed = (flipped != flat).flatten(1).any(1)
    assert abs(float(changed.float().mean()) - 0.5) < 0.03


def test_canonical_crop_is_the_centre_square() -> None:
    image = Image.new("RGB", (100, 50), "black")
    image.paste("white", (15, 0, 85, 50))
    assert (centre_square(image, 1.0, 10) == 255).all()
    wide = centre_square(Image.new("RGB", (30, 70), "red"), 0.875, 16)
    assert wide.shape == (3, 16, 16) and (wide[0] == 255).all() and (wide[1:] == 0).all()


def test_canonical_images_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KT_CACHE", str(tmp_path))
    images = open_data(DataSpec("digits", fraction=0.05), training=True).training()
    first = np.array(canonical(images, 1.0, 16))
    monkeypatch.setattr(views, "_write_canonical", None)
    again = canonical(images, 1.0, 16)
    np.testing.assert_array_equal(first, again)
    wanted = images.read(3).resize((16, 16), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(again[3].transpose(1, 2, 0), np.asarray(wanted))


def test_teacher_and_student_see_the_same_geometry_at_their_own_size() -> None:
    """A bright dot ends up at the same relative place at both resolutions, flipped or not."""
    pixels = np.zeros((8, 3, 32, 32), np.uint8)
    pixels[:, :, 8:12, 4:8] = 255
    flips = Views(pixels, np.zeros(8, np.int64), "flip", 0, CPU)
    batch = flips.batch(0, torch.arange(8))
    centres = []
    for size in (16, 64):
        config = {"input_size": (3, size, size), "mean": (0.0,) * 3, "std": (1.0,) * 3}
        seen = preprocess(config, CPU)(batch).mean(1)
        assert seen.shape == (8, size, size)
        place = (torch.arange(size) + 0.5) / size
        mass = seen.sum((1, 2))
        centres.append(
            torch.stack([(seen.sum(1) * place).sum(1) / mass, (seen.sum(2) * place).sum(1) / mass])
        )
    torch.testing.assert_close(centres[0], centres[1], atol=5e-3, rtol=0)
    assert len(centres[0][0].round(decimals=2).unique()) == 2  # some are flipped, some are not


def test_preprocess_normalises_and_resizes_as_pil_does() -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (48, 48, 3), dtype=np.uint8))
    config = {"input_size": (3, 20, 20), "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)}
    ours = preprocess(config, CPU)(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255)
    small = np.asarray(image.resize((20, 20), Image.Resampling.BICUBIC)) / 255
    wanted = (small - np.array(config["mean"])) / np.array(config["std"])
    assert np.abs(ours[0].permute(1, 2, 0).numpy() - wanted).max() < 1.5 / 255 / 0.2


def test_unknown_augmentation() -> None:
    with pytest.raises(UnknownName, match="papper"):
        make("papper")
