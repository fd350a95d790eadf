"""The views of the training images that settings name."""

from __future__ import annotations

from kt_cli.data.canonical import canonical
from kt_cli.data.remembered import remembered
from kt_cli.data.sources import open_data
from kt_cli.data.views import Views
from kt_cli.device import pick_device
from kt_cli.settings import DataSpec
from kt_cli.settings.declared import digest


@remembered(2)
def views_of(data: DataSpec, crop: float, side: int, augment: str, seed: int) -> Views:
    """Views of the training images of `data`."""
    images = open_data(data, training=True).training()
    key = digest([images.fingerprint, crop, side])
    pixels = canonical(images, crop, side)
    return Views(pixels, images.labels, augment, seed, pick_device(), key)
