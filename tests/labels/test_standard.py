"""The output as the OME-Zarr validator and napari's reader understand it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from wsi_unet.labels.layout import create_labels, mark_finished
from wsi_unet.labels.metadata import Frame
from wsi_unet.labels.pyramid import reduce_mean, reduce_mode

Pixels = NDArray[np.uint8]


def levels_of(data: Pixels, count: int, reduce: Callable[[Pixels], Pixels]) -> list[Pixels]:
    levels = [data]
    while len(levels) < count:
        levels.append(reduce(levels[-1]))
    return levels


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("image", [False, True])
@pytest.mark.parametrize("mpp", [None, (0.5, 0.25)])
def test_every_group_is_valid_ome_zarr(
    make_output: Any, image: bool, mpp: tuple[float, float] | None, finished: bool
) -> None:
    from ome_zarr_models import open_ome_zarr
    from ome_zarr_models.v05 import Image, ImageLabel, Labels

    output = make_output(image=image, mpp=mpp)
    create_labels(
        output.store, "second", output.pyramid, Frame.from_downsample((1, 1), mpp), [], {}
    )
    if finished:
        mark_finished(output.store, "nuclei", (1, 2, 3), "2026-01-02T03:04:05Z")
    root = zarr.open_group(output.path, mode="r")
    expected = {
        "labels": Labels,
        "labels/nuclei": ImageLabel,
        "labels/second": ImageLabel,
        "probability/nuclei": Image,
    }
    for path, kind in expected.items():
        group = root[path]
        assert isinstance(group, zarr.Group)
        assert isinstance(open_ome_zarr(group), kind)
    if image:
        model = open_ome_zarr(root)
        assert isinstance(model, Image)
        assert model.ome_attributes.multiscales[0].ndim == 3


def napari_layers(path: str) -> list[tuple[list[Any], dict[str, Any], str]]:
    """Return (levels, metadata, kind) of each layer that napari would show."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of napari's own imports
        from napari_ome_zarr._reader import napari_get_reader
    reader = napari_get_reader(path)
    assert reader is not None
    layers: list[tuple[list[Any], dict[str, Any], str]] = reader(path)
    return layers


def test_napari_shows_every_level_of_image_and_labels(make_output: Any) -> None:
    output = make_output()
    mark_finished(output.store, "nuclei", (1, 2, 3), "2026-01-02T03:04:05Z")
    image, labels = napari_layers(str(output.path))

    assert image[2] == "image"
    assert image[1]["channel_axis"] == 0
    for shown, expected in zip(
        image[0], levels_of(output.image, output.pyramid.levels, reduce_mean), strict=True
    ):
        assert np.array_equal(shown.compute(), expected)

    assert labels[2] == "labels"
    for shown, expected in zip(
        labels[0], levels_of(output.labels, output.pyramid.levels, reduce_mode), strict=True
    ):
        assert np.array_equal(shown.compute(), expected)
    assert labels[1]["colormap"][2] == [230 / 255, 0, 0, 1]
    assert labels[1]["properties"]["class"] == ["background", "nucleus", "tumour"]


def test_napari_scales_the_image_to_the_labels(make_output: Any) -> None:
    # napari-ome-zarr 0.10 reads the scale and drops the translation, which shifts a reduced image
    # by half of its own pixel; tests of `open_image` check the translation.
    output = make_output()
    image, labels = (layer[1] for layer in napari_layers(str(output.path)))
    size = np.array([0.5, 0.25])
    assert np.allclose(image["scale"][-2:], 4 * size)
    assert np.allclose(labels["scale"], size)
    assert image["units"] == labels["units"] == ("micrometer", "micrometer")


@pytest.mark.parametrize("folder", ["labels", "labels/nuclei", "probability/nuclei"])
def test_napari_opens_each_group_without_an_image(make_output: Any, folder: str) -> None:
    output = make_output(image=False)
    (layer,) = napari_layers(str(output.path / folder))
    probabilities = folder.startswith("probability")
    expected = output.probabilities if probabilities else output.labels
    assert layer[2] == ("image" if probabilities else "labels")
    assert np.array_equal(layer[0][0].compute(), expected)
