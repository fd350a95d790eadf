from __future__ import annotations

import colorsys
import errno
import os
import threading
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import IO

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tv
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from kt_cli.data import augmentations, views
from kt_cli.data import canonical as canonical_module
from kt_cli.data.augmentations import AUGMENTS, Augment
from kt_cli.data.canonical import canonical, canonical_path, centre_square, evaluated
from kt_cli.data.sources import open_data
from kt_cli.data.views import Views, preprocess
from kt_cli.errors import KtWarning
from kt_cli.settings import DataSpec

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

    def blend(of_mean: int, of_grey: int) -> Augment:
        def adjust(some: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
            factor = factor[:, None, None, None]
            rest = 1 - factor
            return augmentations._blend(some, factor, of_mean * rest, of_grey * rest)

        return adjust

    for ours, theirs, values in (
        (blend(0, 0), tv.adjust_brightness, amounts),
        (blend(1, 0), tv.adjust_contrast, amounts),
        (blend(0, 1), tv.adjust_saturation, amounts),
        (augmentations._hue, tv.adjust_hue, turns),
    ):
        wanted = torch.stack(
            [theirs(image, float(v)) for image, v in zip(images, values, strict=True)]
        )
        torch.testing.assert_close(ours(images.clone(), values), wanted, atol=2e-4, rtol=0)


def test_threads_do_not_share_a_lone_image() -> None:
    images, weights = torch.rand(3, 3, 224, 224), torch.full((3, 1, 1, 1), 0.5)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        blend, one = augmentations._blend, weights[:1]
        together = blend(images.clone(), weights, weights, 0 * weights)
        alone = [blend(image[None].clone(), one, one, 0 * one) for image in images]
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.cat(alone), together)


def papers_view(image: NDArray[np.float64], draws: list[float]) -> NDArray[np.float64]:
    """One image (3, S, S), pixel by pixel in float64, with Python's own HSV."""

    def hue(image: NDArray[np.float64]) -> NDArray[np.float64]:
        def turned(pixel: NDArray[np.float64]) -> tuple[float, float, float]:
            h, s, v = colorsys.rgb_to_hsv(*pixel)
            return colorsys.hsv_to_rgb((h + 0.4 * draws[5] - 0.2) % 1, s, v)

        return np.apply_along_axis(turned, 0, image)

    def grey(image: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.tensordot(augmentations.GREY, image, 1)

    brightness, contrast, saturation = (0.2 + 1.6 * draw for draw in draws[2:5])
    adjustments = (
        lambda image: image * brightness,
        lambda image: image * contrast + grey(image).mean() * (1 - contrast),
        lambda image: image * saturation + grey(image) * (1 - saturation),
        hue,
    )
    if draws[0] < 0.5:
        image = image[..., ::-1]
    for operation in np.argsort(draws[6:10]) if draws[1] < 0.8 else ():
        image = adjustments[operation](image).clip(0, 1)
    return np.stack([grey(image)] * 3) if draws[10] < 0.2 else image


@pytest.mark.parametrize("values", [(0, 128, 255), (0, 1), (7,), range(256)])
def test_papers_views_equal_a_loop_over_images(values: Sequence[int]) -> None:
    """Also where two channels, or all, are the same: black, white, grey and pure colours."""
    n, rng = 60, np.random.default_rng(1)
    pixels = rng.choice(np.array(values, np.uint8), (n, 3, 5, 5))
    draws = torch.rand(n, augmentations.DRAWS, generator=torch.Generator().manual_seed(2))
    found = AUGMENTS["paper"](torch.from_numpy(pixels), draws)
    wanted = [papers_view(*each) for each in zip(pixels / 255, draws.tolist(), strict=True)]
    np.testing.assert_allclose(found, np.stack(wanted), atol=1e-5, rtol=0)


@pytest.mark.parametrize("augment", AUGMENTS)
def test_a_view_has_the_same_bits_in_any_batch(augment: str) -> None:
    made = make(augment, n=40)
    everything = made.batch(0, torch.arange(40))
    for size in (1, 7, 16):
        parts = [made.batch(0, some) for some in torch.arange(40).split(size)]
        assert torch.equal(torch.cat(parts), everything)


def test_papers_probabilities() -> None:
    n = 4000
    flat = torch.randint(256, (1, 3, 4, 4)).byte().repeat(n, 1, 1, 1)
    draws = torch.rand(n, augmentations.DRAWS, generator=torch.Generator().manual_seed(1))
    grey = AUGMENTS["paper"](flat, draws)
    is_grey = (grey.amax(1) - grey.amin(1)).amax((1, 2)) < 1e-6
    assert abs(float(is_grey.float().mean()) - 0.2) < 0.03
    flipped = AUGMENTS["flip"](flat, draws)
    changed = (flipped != flat / 255).flatten(1).any(1)
    assert abs(float(changed.float().mean()) - 0.5) < 0.03


def test_canonical_crop_is_the_centre_square() -> None:
    image = Image.new("RGB", (100, 50), "black")
    image.paste("white", (15, 0, 85, 50))
    assert (centre_square(image, 1.0, 10) == 255).all()
    wide = centre_square(Image.new("RGB", (30, 70), "red"), 0.875, 16)
    assert wide.shape == (3, 16, 16) and (wide[0] == 255).all() and (wide[1:] == 0).all()


@pytest.mark.parametrize("damage", ["cut", "other", "text"])
def test_canonical_images_that_are_damaged_are_decoded_again(damage: str) -> None:
    images = open_data(DataSpec("digits", limit=5)).eval
    wanted, path = np.array(canonical(images, 1.0, 16)), canonical_path(images, 1.0, 16)
    if damage == "cut":
        os.truncate(path, path.stat().st_size // 2)
    elif damage == "other":
        np.save(path, np.zeros((5, 3, 8, 8), np.uint8))
    else:
        path.write_text("no array")
    np.testing.assert_array_equal(canonical(images, 1.0, 16), wanted)


def shown(image: Image.Image) -> Tensor:
    return centre_square(image, 1.0, 16)


def test_evaluated_images_that_cannot_be_kept_are_not_decoded_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of many processes that evaluate at once each would fill the disk of temporary files."""
    images = open_data(DataSpec("digits", limit=5)).eval
    monkeypatch.setattr("kt_cli.data.canonical._elsewhere", None)

    def full(file: IO[bytes], *_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("kt_cli.data.canonical._decode", full)
        with pytest.warns(KtWarning, match="No space left"):
            assert evaluated(images, "how", shown, (3, 16, 16)) is None
    kept = evaluated(images, "how", shown, (3, 16, 16))
    assert kept is not None and kept.shape == (5, 3, 16, 16)


def test_images_that_another_process_is_keeping_are_not_kept_twice() -> None:
    images = open_data(DataSpec("digits", limit=6)).eval
    path = canonical_module._path(images, version("timm"), repr("how"))
    path.parent.mkdir(parents=True, exist_ok=True)
    other = path.parent / f".{path.name}.0123456789ab.tmp"
    other.touch()
    assert evaluated(images, "how", shown, (3, 16, 16)) is None
    os.utime(other, (0, 0))  # it was killed long ago
    assert evaluated(images, "how", shown, (3, 16, 16)) is not None


def test_canonical_images_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KT_CACHE", str(tmp_path))
    images = open_data(DataSpec("digits", fraction=0.05), training=True).training()
    first = np.array(canonical(images, 1.0, 16))
    monkeypatch.setattr("kt_cli.data.canonical._decode", None)
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


@pytest.mark.parametrize("augment", ["none", "flip", "affine", "paper"])
def test_views_of_two_models_agree_when_brought_to_one_size(augment: str) -> None:
    """Within interpolation; a view of another sample, or turned over, is far from it."""
    n, side = 16, 96
    y, x = np.mgrid[:side, :side] / side
    pixels = np.zeros((n, 3, side, side), np.uint8)
    for i in range(n):
        pixels[i] = np.stack([100 * x, 60 + 40 * y, 80 + 0 * x])  # no view of it is symmetric
        pixels[i, :, 12 + 3 * i : 24 + 3 * i, 6 + 2 * i : 30 + 2 * i] = 240
    made = Views(pixels, np.zeros(n, np.int64), augment, 0, CPU)
    seen = []
    for size, mean in ((32, 0.4), (64, 0.5)):
        config = {"input_size": (3, size, size), "mean": (mean,) * 3, "std": (0.2,) * 3}
        # Each model asks for itself: the draws are the same.
        shown = preprocess(config, CPU)(made.batch(4, torch.arange(n))) * 0.2 + mean
        assert shown.shape == (n, 3, size, size)
        seen.append(torch.nn.functional.interpolate(shown, size=(32, 32), mode="area"))
    one, other = seen

    def apart(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a - b).abs().mean((1, 2, 3))

    agreeing = apart(one, other)
    assert agreeing.max() < 0.012
    assert (apart(one, other.flip(-1)) > 5 * agreeing).all()
    assert (apart(one, other.roll(1, 0)) > 3 * agreeing).all()
    back = torch.nn.functional.interpolate(made.plain(torch.arange(n)), size=(32, 32), mode="area")
    as_it_was, turned = (apart(one, image) < 0.012 for image in (back, back.flip(-1)))
    if augment == "flip":
        assert torch.equal(turned, ~as_it_was) and 0 < int(turned.sum()) < n


def test_papers_probabilities_in_many_views() -> None:
    """Told from what is seen: one half is black, the other coloured."""
    n = 6000
    pixels = np.zeros((n, 3, 4, 4), np.uint8)
    colour = torch.tensor([200.0, 120.0, 60.0])
    pixels[..., 2:] = colour.numpy()[None, :, None, None]
    made = Views(pixels, np.zeros(n, np.int64), "paper", 0, CPU)
    weights = torch.tensor(augmentations.GREY)
    luma = float(weights @ colour / 255)
    found = []
    for epoch in range(2):
        seen = made.batch(epoch, torch.arange(n))
        left, right = seen[..., 0, 0], seen[..., 0, 3]
        flip = left.sum(1) > right.sum(1)
        bright, dark = (
            torch.where(flip[:, None], *pair) for pair in ((left, right), (right, left))
        )
        grey = (bright.amax(1) - bright.amin(1)) < 1e-6
        # Distorted colours have another luminance, grey or not, or black is black no more.
        changed = ((bright @ weights - luma).abs() > 1e-4) | (dark.sum(1) > 1e-4)
        found.append((flip.float(), changed.float(), grey.float()))
    for flip, changed, grey in found:
        wanted = {0.5: flip, 0.8: changed, 0.2: grey, 0.5 * 0.8: flip * changed,
                  0.5 * 0.2: flip * grey, 0.8 * 0.2: changed * grey}  # fmt: skip
        for share, told in wanted.items():
            assert float(told.mean()) == pytest.approx(share, abs=0.025)
    # Epochs are independent of each other.
    for share, (one, other) in zip((0.25, 0.64, 0.04), zip(*found, strict=True), strict=True):
        assert float((one * other).mean()) == pytest.approx(share, abs=0.025)


@pytest.mark.parametrize("augment", AUGMENTS)
def test_a_stream_is_batch_after_batch(augment: str) -> None:
    made = make(augment)
    batches = [torch.tensor(indices) for indices in ([3, 1], [7], [0, 19, 4], [5, 5], [2])]
    found = list(made.stream(2, batches))
    assert len(found) == len(batches)
    for shown, indices in zip(found, batches, strict=True):
        assert torch.equal(shown, make(augment).batch(2, indices))
    assert list(made.stream(0, [])) == []


@pytest.mark.parametrize("augment", ["flip", "paper", "affine"])
def test_views_that_are_kept_are_the_views(augment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made, batches = make(augment, n=150), torch.split(torch.randperm(150), 32)
    made.keep(1)
    monkeypatch.setattr(made, "_augment", None)
    for shown, indices in zip(made.stream(1, batches), batches, strict=True):
        assert torch.equal(shown, make(augment, n=150).batch(1, indices))


def test_views_are_kept_within_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run goes through the same epochs in order, so the first ones stay."""
    size = 4 * 20 * 3 * 8 * 8
    for budget, wanted in ((size - 1, []), (size, [5]), (3 * size, [0, 1, 5])):
        monkeypatch.setattr(views, "KEPT", budget)
        made = make("paper")
        for epoch in (*range(6), 0, 5):
            made.keep(epoch)
        assert list(made._kept) == wanted
    plain = make("none")
    plain.keep(0)
    assert not plain._kept


class Ahead(Views):
    """As for a GPU, but the pixels stay where they are."""

    _at_once = 1

    def _picked(self, indices: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self._pixels[indices.numpy()])

    def _augmented(self, epoch: int, indices: torch.Tensor, picked: torch.Tensor) -> torch.Tensor:
        return picked / 255


@pytest.mark.parametrize("at_once", [1, 4, 5, 100])
@pytest.mark.parametrize("count", range(6))
def test_what_is_made_ahead_and_together_comes_in_order(count: int, at_once: int) -> None:
    made = make("none")
    made.__class__, made.device, made._at_once = Ahead, torch.device("cuda"), at_once
    batches = [torch.tensor([3 * i, 3 * i + 1]) for i in range(count)]
    found = list(made.stream(0, batches))
    assert len(found) == count
    for shown, indices in zip(found, batches, strict=True):
        assert torch.equal(shown, make("none").batch(0, indices))


class Timed(Ahead):
    """Reading a batch takes three seconds, making views of it five, by a clock of its own."""

    def __init__(self) -> None:
        self.__dict__ |= vars(make("none"))
        self.now, self.read = 0.0, [threading.Event() for _ in range(4)]

    def _picked(self, indices: torch.Tensor) -> torch.Tensor:
        self.now += 3
        self.read[int(indices[0])].set()
        return super()._picked(indices)

    def _augmented(self, epoch: int, indices: torch.Tensor, picked: torch.Tensor) -> torch.Tensor:
        self.now += 5
        return super()._augmented(epoch, indices, picked)


def test_what_is_read_is_waited_for_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    made, waits = Timed(), list[float]()
    monkeypatch.setattr(views.time, "perf_counter", lambda: made.now)
    shown = list(made.stream(0, [torch.tensor([i]) for i in range(4)], waits.append))
    assert len(shown) == 4 and waits == [3, 3, 3, 3]


@pytest.mark.parametrize(
    ("limit", "wanted"), [(1, [1] * 5), (4, [1, 2, 2]), (6, [1, 3, 1]), (7, [1, 3, 1])]
)
def test_batches_are_joined_up_to_a_limit(limit: int, wanted: list[int]) -> None:
    batches = [torch.arange(2) + 2 * i for i in range(5)]
    groups = views._together(batches, limit)
    assert [len(group) for group in groups] == wanted
    assert torch.equal(torch.cat([batch for group in groups for batch in group]), torch.arange(10))


def test_for_a_gpu_the_next_is_made_meanwhile() -> None:
    made, waits = Timed(), list[float]()
    made.device = torch.device("cuda")
    stream = made.stream(0, [torch.tensor([i]) for i in range(4)], waits.append)
    for i, _ in enumerate(stream):
        assert all(event.wait(10) for event in made.read[: i + 2])
    assert len(waits) == 4


@pytest.mark.parametrize("augment", AUGMENTS)
def test_plain_views_are_the_images(augment: str) -> None:
    made, indices = make(augment), torch.tensor([4, 0, 19])
    wanted = np.random.default_rng(0).integers(0, 256, (20, 3, 8, 8), dtype=np.uint8)[[4, 0, 19]]
    np.testing.assert_array_equal(made.plain(indices), wanted.astype(np.float32) / 255)
    assert torch.equal(made.plain(indices), make("none").batch(3, indices))


def test_preprocess_normalises_and_resizes_as_pil_does() -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (48, 48, 3), dtype=np.uint8))
    config = {"input_size": (3, 20, 20), "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)}
    ours = preprocess(config, CPU)(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255)
    small = np.asarray(image.resize((20, 20), Image.Resampling.BICUBIC)) / 255
    wanted = (small - np.array(config["mean"])) / np.array(config["std"])
    assert np.abs(ours[0].permute(1, 2, 0).numpy() - wanted).max() < 1.5 / 255 / 0.2
