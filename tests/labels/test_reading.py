from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dask.base import is_dask_collection

import wsi_unet
from wsi_unet.errors import OutputError
from wsi_unet.labels.layout import create_labels, ensure_root, mark_finished
from wsi_unet.labels.metadata import Frame
from wsi_unet.labels.pyramid import Pyramid, reduce_mean, reduce_mode
from wsi_unet.labels.reading import open_image, open_labels, open_probabilities
from wsi_unet.labels.writer import read_shards
from wsi_unet.storage.opening import open_store


def test_every_level_has_its_pixels_and_their_centres(make_output: Any) -> None:
    output = make_output()
    expected = output.labels
    slide_y, slide_x = 0.5 * np.arange(1300), 0.25 * np.arange(2100)
    for level in range(output.pyramid.levels):
        labels = open_labels(output.path, level=level)
        assert labels.dims == ("y", "x")
        assert labels.dtype == np.uint8
        assert np.array_equal(labels.values, expected)
        step = 2**level
        for dim, slide in (("y", slide_y), ("x", slide_x)):
            whole = len(slide) // step * step
            centres = slide[:whole].reshape(-1, step).mean(1)
            assert np.allclose(labels[dim].values[: len(centres)], centres)
        assert labels.attrs["pixel_size"] == (0.5 * step, 0.25 * step)
        expected = reduce_mode(expected)


def test_a_piece_is_selected_by_micrometers(make_output: Any) -> None:
    output = make_output()
    piece = open_labels(output.path).sel(y=slice(100, 109.9), x=slice(50, 60))
    assert np.array_equal(piece.values, output.labels[200:220, 200:241])


def test_attributes_say_what_the_values_mean(make_output: Any) -> None:
    output = make_output()
    attributes = open_labels(output.path, "nuclei").attrs
    assert attributes["classes"] == {0: "background", 1: "nucleus", 2: "tumour"}
    assert attributes["colors"] == {0: "#000000", 1: "#2a6fdb", 2: "#e60000"}
    assert attributes["unit"] == "micrometer"
    assert attributes["finished"] is None
    assert attributes["areas_mm2"] == {}
    assert attributes["provenance"]["model"] == "a model"
    mark_finished(output.store, "nuclei", (0, 8_000_000, 0), "2026-01-02T03:04:05Z")
    attributes = open_labels(output.path, "nuclei", 2).attrs
    assert attributes["finished"] == "2026-01-02T03:04:05Z"
    assert attributes["areas_mm2"][1] == 1.0
    assert attributes["pixels"][1] == 8_000_000


def test_an_unknown_mpp_gives_slide_pixels(make_output: Any) -> None:
    labels = open_labels(make_output(mpp=None).path, level=1)
    assert labels.attrs["unit"] == "pixel"
    assert labels.x.values[:3].tolist() == [0.5, 2.5, 4.5]


def test_nothing_is_read_until_it_is_computed(make_output: Any) -> None:
    output = make_output()
    labels = open_labels(output.path)
    assert is_dask_collection(labels)
    assert labels.chunks == ((512, 512, 276), (512, 512, 512, 512, 52))
    # Torn shards are no obstacle to opening, nor to computing what doesn't touch them.
    for shard in output.path.joinpath("labels/nuclei/0/c").glob("*/*"):
        if shard.parent.name != "1" or shard.name != "2":
            shard.write_bytes(b"torn")
    labels = open_labels(output.path)
    piece = labels[600:1000, 1100:1500]
    assert np.array_equal(piece.values, output.labels[600:1000, 1100:1500])
    with pytest.raises(Exception, match=r"(?i)checksum|crc|shard|range|buffer"):
        labels.compute()


def test_a_chunk_of_dask_is_a_shard(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    ensure_root(store, {})
    pyramid = Pyramid((9000, 5000), 4096)
    create_labels(store, "nuclei", pyramid, Frame.from_downsample((1, 1), None), [], {})
    assert open_labels(tmp_path).chunks == ((4096, 4096, 808), (4096, 904))
    assert open_labels(tmp_path, level=4).chunks == ((563,), (313,))
    assert not open_labels(tmp_path).values.any()


def test_probabilities_have_named_channels(make_output: Any) -> None:
    output = make_output()
    expected = output.probabilities
    for level in range(output.pyramid.levels):
        probabilities = open_probabilities(output.path, level=level)
        assert np.array_equal(probabilities.values, expected)
        expected = reduce_mean(expected)
    assert probabilities.dims == ("c", "y", "x")
    assert probabilities.c.values.tolist() == ["background", "nucleus"]
    assert probabilities.attrs["finished"] is None
    labels = open_labels(output.path, level=3)
    assert np.array_equal(probabilities.x.values, labels.x.values)


def test_what_is_selected_is_what_numpy_selects_and_no_more_is_decoded(
    make_output: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = make_output()
    decoded = []

    def watched(
        store: Any, group: str, level: int, grid: Any, box: Any, *rest: Any, **named: Any
    ) -> Any:
        decoded.append(box.area)
        return read_shards(store, group, level, grid, box, *rest, **named)

    monkeypatch.setattr("wsi_unet.labels.stored_level.read_shards", watched)
    opened = open_probabilities(output.path)
    piece = np.s_[1, 500:530, 1020:1030]
    assert np.array_equal(opened[piece].values, output.probabilities[piece])
    assert sum(decoded) == 30 * 10
    keys: list[Any] = [
        np.s_[[1, 0, 1], ::7, 5],
        np.s_[::-1, ::-300, [7, 3, 2000]],
        np.s_[:, 40:40, :],
        np.s_[0, -1, -1],
        np.s_[...],
    ]
    for key in keys:
        assert np.array_equal(opened[key].values, output.probabilities[key])


def test_the_image_lies_under_the_labels(make_output: Any) -> None:
    output = make_output()
    image = open_image(output.path)
    assert image is not None
    assert np.array_equal(image.values, output.image)
    assert image.y.values[:2].tolist() == [0.75, 2.75]
    bare = make_output(image=False, folder="bare.ome.zarr")
    assert open_image(bare.path) is None


def test_what_is_not_there_is_one_clear_line(make_output: Any, tmp_path: Path) -> None:
    output = make_output()
    create_labels(
        output.store, "tumour", output.pyramid, Frame.from_downsample((1, 1), None), [], {}
    )
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: open_labels(output.path), "several labels; give `label` one of nuclei, tumour"),
        (lambda: open_labels(output.path, "x"), "no labels 'x', only nuclei, tumour"),
        (lambda: open_labels(output.path, "nuclei", 4), "no level 4 of 'nuclei'; there are 0 to 3"),
        (lambda: open_labels(output.path, "nuclei", -1), "no level -1"),
        (lambda: open_probabilities(output.path, "tumour"), "'tumour', only nuclei"),
        (lambda: open_labels(tmp_path / "nothing"), "no output of wsi-unet"),
        (lambda: open_labels(tmp_path), "was not written by wsi-unet"),
    ]
    for call, message in cases:
        with pytest.raises(OutputError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_an_output_without_labels_says_so(tmp_path: Path) -> None:
    ensure_root(open_store(tmp_path), {})
    with pytest.raises(OutputError, match="no labels here"):
        open_labels(tmp_path)
    with pytest.raises(OutputError, match="no probabilities here"):
        open_probabilities(tmp_path)


def test_the_public_name_is_this_one() -> None:
    assert wsi_unet.open_labels is open_labels
    assert wsi_unet.open_probabilities is open_probabilities


def test_writing_needs_neither_zarr_nor_dask_nor_xarray() -> None:
    code = (
        "import sys, wsi_unet.labels.writer, wsi_unet.labels.layout, wsi_unet.labels.progress;"
        "print({'zarr', 'dask', 'xarray', 'torch', 'PIL'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
