"""Results as SpatialData: read by zarr and geopandas, and by spatialdata where it is installed."""

from __future__ import annotations

import importlib
import importlib.util
import json
import warnings
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow as pa
import pytest
import shapely
import zarr
from exports.results import LABELS, make_result
from numpy.typing import NDArray
from support.labelled import write_store

import wsi_unet
from wsi_unet import ExportOptions, OutputError
from wsi_unet.exports.spatialdata import rasters
from wsi_unet.labels.layout import create_image
from wsi_unet.labels.metadata import Frame
from wsi_unet.labels.pyramid import Pyramid, reduce_mean
from wsi_unet.labels.reading import open_image
from wsi_unet.labels.writer import build_tail, write_block
from wsi_unet.storage.local_store import LocalStore

OWN = LABELS[:-3, :-5]
"""Labels of odd size."""

DOWNSAMPLE, MPP = (1.5, 3.25), (0.25, 0.5)
IMAGE = np.random.default_rng(1).integers(0, 256, (3, *OWN.shape), np.uint8)


def _add_image(result: Path, every: int = 1) -> None:
    """Store every n-th pixel of `IMAGE` in a result, as `segment` does."""
    pixels = IMAGE[:, ::every, ::every]
    store, pyramid = LocalStore(result), Pyramid((pixels.shape[1], pixels.shape[2]), 512, 3)
    downsample = DOWNSAMPLE[0] * every, DOWNSAMPLE[1] * every
    create_image(store, "slide", pyramid, Frame.from_downsample(downsample, MPP))
    for index in pyramid.grid:
        part = pixels[(slice(None), *pyramid.grid.core(index).slices())]
        write_block(store, "", pyramid, index, part, reduce_mean)
    build_tail(store, "", pyramid, reduce_mean, 3)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result with an image, whose unequal pixels are coarser than the slide's."""
    path = tmp_path_factory.mktemp("result") / "slide.ome.zarr"
    make_result(path, labels=OWN, downsample=DOWNSAMPLE, mpp=MPP)
    _add_image(path)
    return path


@pytest.fixture(scope="module")
def exported(result: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("exported") / "slide.spatialdata.zarr"
    report = wsi_unet.export(result, "spatialdata", place)
    assert report.files == (place,)
    return place


def _read_levels(element: Path) -> list[NDArray[np.uint8]]:
    group = zarr.open_group(element, mode="r")
    datasets: Any = group.attrs["ome"]
    return [
        np.asarray(zarr.open_array(element / each["path"], mode="r")[...])
        for each in datasets["multiscales"][0]["datasets"]
    ]


def _read_scales(element: Path) -> dict[str, list[float]]:
    """Return the scales of an element by coordinate system."""
    attributes = json.loads((element / "zarr.json").read_text())["attributes"]
    if "ome" in attributes:
        attributes = attributes["ome"]["multiscales"][0]
    return {
        each["output"]["name"]: each["scale"] for each in attributes["coordinateTransformations"]
    }


def test_labels_have_every_level(result: Path, exported: Path) -> None:
    levels = _read_levels(exported / "labels" / "nuclei")
    assert len(levels) == 3
    for number, level in enumerate(levels):
        expected = wsi_unet.open_labels(result, level=number).to_numpy()
        assert np.array_equal(level, expected)
    assert np.array_equal(levels[0], OWN)


def test_the_stored_image_has_every_level(result: Path, exported: Path) -> None:
    levels = _read_levels(exported / "images" / "image")
    assert len(levels) == 3
    for number, level in enumerate(levels):
        image = open_image(result, number)
        assert image is not None
        assert np.array_equal(level, image.to_numpy())
    assert np.array_equal(levels[0], IMAGE)


def test_arrays_are_written_shard_by_shard(
    result: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rasters, "CHUNK", 64)
    monkeypatch.setattr(rasters, "SHARD", 128)
    wsi_unet.export(result, "spatialdata", tmp_path / "a.spatialdata.zarr")
    assert np.array_equal(_read_levels(tmp_path / "a.spatialdata.zarr/labels/nuclei")[0], OWN)
    assert np.array_equal(_read_levels(tmp_path / "a.spatialdata.zarr/images/image")[0], IMAGE)


def test_elements_lie_on_each_other(exported: Path) -> None:
    assert _read_scales(exported / "labels/nuclei") == {
        "global": [1.5, 3.25], "um": [0.375, 1.625],
    }  # fmt: skip
    assert _read_scales(exported / "images/image") == {
        "global": [1, 1.5, 3.25], "um": [1, 0.375, 1.625],
    }  # fmt: skip
    assert _read_scales(exported / "shapes/nuclei_objects") == {
        "global": [1, 1], "um": [0.5, 0.25],
    }  # fmt: skip


def test_an_image_may_be_coarser_than_the_labels(tmp_path: Path) -> None:
    result = make_result(tmp_path / "slide.ome.zarr", labels=OWN, downsample=DOWNSAMPLE, mpp=MPP)
    _add_image(result, every=4)
    wsi_unet.export(result, "spatialdata", tmp_path / "a")
    assert _read_scales(tmp_path / "a/images/image") == {
        "global": [1, 6, 13], "um": [1, 1.5, 6.5],
    }  # fmt: skip
    assert np.array_equal(_read_levels(tmp_path / "a/images/image")[0], IMAGE[:, ::4, ::4])


def test_unknown_pixel_sizes_leave_micrometres_out(tmp_path: Path) -> None:
    result = make_result(tmp_path / "slide.ome.zarr", mpp=None)
    wsi_unet.export(result, "spatialdata", tmp_path / "a")
    for element in ("labels/nuclei", "shapes/nuclei_objects"):
        assert {*_read_scales(tmp_path / "a" / element)} == {"global"}
    assert not [*(tmp_path / "a" / "images").glob("*/")]


def test_shapes_are_the_outlines(result: Path, exported: Path) -> None:
    frame = geopandas.read_parquet(exported / "shapes/nuclei_objects/shapes.parquet")
    expected = wsi_unet.open_objects(result).to_table().sort_by("id")
    assert frame.index.tolist() == expected["id"].to_pylist()
    assert frame.index.name == "id"
    assert [*frame.geometry.to_wkb()] == expected["geometry"].to_pylist()


def test_measurements_are_those_of_the_table(result: Path, exported: Path) -> None:
    table = zarr.open_group(exported / "tables/nuclei_measurements", mode="r")
    expected = wsi_unet.open_objects(result).to_table().sort_by("id")
    variables = _read(table, "var/_index").tolist()
    assert {"area_um2", "perimeter_um", "solidity"} <= {*variables}
    for number, name in enumerate(variables):
        wanted = expected[name].cast(pa.float64()).to_numpy()
        assert np.array_equal(_read(table, "X")[:, number], wanted, equal_nan=True)
    assert _read(table, "obs/_index").tolist() == expected["uuid"].to_pylist()
    assert _read(table, "obs/instance_id").tolist() == expected["id"].to_pylist()
    assert _read(table, "obs/cut").tolist() == expected["cut"].to_pylist()
    names = _read(table, "obs/class/categories")
    assert names[_read(table, "obs/class/codes")].tolist() == expected["class"].to_pylist()
    positions = np.stack([expected["x"].to_numpy(), expected["y"].to_numpy()], axis=1)
    assert np.array_equal(_read(table, "obsm/spatial"), positions)


def test_where_the_model_did_not_look_is_no_background(tmp_path: Path) -> None:
    result = make_result(tmp_path / "slide.ome.zarr", regions=[[100, 40, 500, 900]])
    wsi_unet.export(result, "spatialdata", tmp_path / "a")
    seen = np.zeros(LABELS.shape, np.bool_)
    seen[100:500, 40:900] = True
    assert np.array_equal(
        _read_levels(tmp_path / "a/labels/nuclei")[0], np.where(seen, LABELS, 255)
    )
    table = zarr.open_group(tmp_path / "a/tables/nuclei_classes", mode="r")
    names = _read(table, "obs/class/categories")[_read(table, "obs/class/codes")].tolist()
    assert dict(zip(_read(table, "obs/instance_id").tolist(), names, strict=True)) == {
        1: "nucleus", 2: "tumour", 255: "not predicted",
    }  # fmt: skip


def test_several_groups_are_told_apart(tmp_path: Path) -> None:
    result = make_result(tmp_path / "slide.ome.zarr")
    write_store(result, np.zeros_like(LABELS), name="cells", classes=("background", "cell"))
    wsi_unet.find_objects(result, label="cells")
    wsi_unet.export(result, "spatialdata", tmp_path / "a")
    assert _list(tmp_path / "a" / "labels") == {"nuclei", "cells"}
    assert _list(tmp_path / "a" / "shapes") == {"nuclei_objects"}  # SpatialData has no empty ones
    assert _list(tmp_path / "a" / "tables") == {
        "nuclei_classes", "nuclei_measurements", "cells_classes",
    }  # fmt: skip
    wsi_unet.export(result, "spatialdata", tmp_path / "b", options=ExportOptions(label="cells"))
    assert _list(tmp_path / "b" / "labels") == {"cells"}


@pytest.mark.parametrize("name", ["Nuclei", "nuclei_objects", "IMAGE"])
def test_names_that_are_the_same_to_spatialdata_are_refused(name: str, tmp_path: Path) -> None:
    result = make_result(tmp_path / "slide.ome.zarr", labels=OWN)
    _add_image(result)
    write_store(result, OWN, name=name)
    wsi_unet.find_objects(result, label=name)
    with pytest.raises(OutputError, match=f"takes {name!r} and '.*' for one name"):
        wsi_unet.export(result, "spatialdata", tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_the_same_result_gives_the_same_bytes(tmp_path: Path) -> None:
    found = []
    for block in (512, 1024):
        result = make_result(tmp_path / f"{block}" / "slide.ome.zarr", labels=OWN, block=block)
        place = tmp_path / f"{block}" / "a"
        wsi_unet.export(result, "spatialdata", place)
        files = sorted(path for path in place.rglob("*") if path.is_file())
        found.append(
            {
                str(file.relative_to(place)): file.read_bytes()
                for file in files
                if not file.is_relative_to(place / "labels")
            }
        )
        levels = _read_levels(place / "labels/nuclei")
        assert np.array_equal(levels[0], OWN)
    assert found[0] == found[1]


def test_it_says_where_it_comes_from(exported: Path) -> None:
    attributes = json.loads((exported / "zarr.json").read_text())["attributes"]
    assert attributes["spatialdata_attrs"]["version"] == "0.2"
    assert attributes["wsi_unet"]["groups"][0]["fingerprint"] == "a slide"
    assert attributes["wsi_unet"]["groups"][0]["rules"]["nucleus"]["split"] == "none"


def _read(group: zarr.Group, name: str) -> NDArray[Any]:
    array = group[name]
    assert isinstance(array, zarr.Array)
    return np.asarray(array[...])


def _list(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_dir()}


@pytest.fixture(scope="module")
def library() -> Any:
    """SpatialData's own package, whose dependencies warn when they are imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("spatialdata")


@pytest.fixture(scope="module")
def opened(library: Any, exported: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return library.read_zarr(exported)


@pytest.mark.skipif(
    importlib.util.find_spec("spatialdata") is None,
    reason="spatialdata isn't installed: pip install spatialdata",
)
class TestReader:
    """SpatialData's own reader. The package isn't among what tests install: it wants an older
    pandas than the others bring."""

    def test_all_elements_are_valid(self, library: Any, opened: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            library.models.Image2DModel().validate(opened.images["image"])
            library.models.Labels2DModel().validate(opened.labels["nuclei"])
            library.models.ShapesModel.validate(opened.shapes["nuclei_objects"])
            for name in ("nuclei_classes", "nuclei_measurements"):
                library.models.TableModel().validate(opened.tables[name])
        assert np.array_equal(opened.labels["nuclei"]["scale0"]["image"].to_numpy(), OWN)
        assert np.array_equal(opened.images["image"]["scale0"]["image"].to_numpy(), IMAGE)

    @pytest.mark.parametrize("system", ["global", "um"])
    def test_elements_lie_on_each_other(self, system: str, library: Any, opened: Any) -> None:
        """Every object's outline, in a coordinate system, is the pixels of its class there."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shapes = library.transform(opened.shapes["nuclei_objects"], to_coordinate_system=system)
            labels = opened.labels["nuclei"]
            scale = library.transformations.get_transformation(labels, to_coordinate_system=system)
            extents = [
                library.get_extent(opened[name], coordinate_system=system)
                for name in ("nuclei", "image")
            ]
        height, width = scale.to_affine_matrix(("y", "x"), ("y", "x")).diagonal()[:2]
        assert extents[0] == extents[1]
        covered = np.zeros(OWN.shape, np.int64)
        for outline in shapes.geometry:
            x0, y0, x1, y1 = outline.bounds
            rows, columns = (
                slice(round(y0 / height), round(y1 / height)),
                slice(round(x0 / width), round(x1 / width)),
            )
            y, x = np.mgrid[rows, columns]
            covered[rows, columns] += shapely.contains_xy(
                outline, (x + 0.5) * width, (y + 0.5) * height
            )
        assert np.array_equal(covered, OWN > 0)

    def test_tables_annotate_shapes_and_labels(self, library: Any, opened: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _, table = library.join_spatialelement_table(
                sdata=opened, spatial_element_names="nuclei_objects",
                table_name="nuclei_measurements", how="inner",
            )  # fmt: skip
        assert len(table) == len(opened.shapes["nuclei_objects"]) > 10
        areas = opened.shapes["nuclei_objects"].geometry.area.to_numpy() * MPP[0] * MPP[1]
        assert np.allclose(table[:, "area_um2"].X.ravel(), areas)
