"""The views of the training images that settings name."""

from __future__ import annotations

from functools import lru_cache

from kt_cli.data.canonical import canonical
from kt_cli.data.folders import class_folders, flat_folder, unlabelled
from kt_cli.data.sources import open_data
from kt_cli.data.views import Views
from kt_cli.device import pick_device
from kt_cli.settings import DataSpec
from kt_cli.settings.declared import digest


def forget() -> None:
    """Look at folders and files again when they are opened next: they may be others by now."""
    for opened in (open_data, class_folders, flat_folder, unlabelled, views_of):
        opened.cache_clear()


@lru_cache(maxsize=2)
def views_of(data: DataSpec, crop: float, side: int, augment: str, seed: int) -> Views:
    """Views of the training images of `data`."""
    images = open_data(data, training=True).training()
    key = digest([images.fingerprint, crop, side])
    pixels = canonical(images, crop, side)
    return Views(pixels, images.labels, augment, seed, pick_device(), key)
