"""Tables in one file, read back by pyarrow, geopandas and csv."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from exports.results import LABELS, make_result
from support.labelled import write_store

import wsi_unet
from wsi_unet import OutputError


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_result(tmp_path_factory.mktemp("result") / "slide.ome.zarr")


def test_parquet_has_every_object_in_order_of_identity(result: Path, tmp_path: Path) -> None:
    report = wsi_unet.export(result, "parquet", tmp_path / "objects.parquet")
    assert report.files == (tmp_path / "objects.parquet",)
    assert report.failures == {}
    expected = wsi_unet.open_objects(result).to_table().sort_by("id")
    found = pq.read_table(tmp_path / "objects.parquet")
    assert found.select(expected.schema.names).to_pylist() == expected.to_pylist()
    assert {*found["label_group"].to_pylist()} == {"nuclei"}


def test_geopandas_opens_the_parquet_file(result: Path, tmp_path: Path) -> None:
    wsi_unet.export(result, "parquet", tmp_path / "objects.parquet")
    frame = geopandas.read_parquet(tmp_path / "objects.parquet")
    assert len(frame) > 10
    assert frame.geometry.area.to_numpy() == pytest.approx(frame["area_px"].to_numpy())
    whole = shapely.union_all(frame.geometry.to_numpy())
    assert whole.area == np.count_nonzero(LABELS)


def test_parquet_says_where_it_comes_from(result: Path, tmp_path: Path) -> None:
    wsi_unet.export(result, "parquet", tmp_path / "objects.parquet")
    metadata = pq.read_schema(tmp_path / "objects.parquet").metadata
    said = json.loads(metadata[b"wsi_unet"])
    assert said["creator"] == "wsi-unet"
    assert said["groups"][0]["label"] == "nuclei"
    assert said["groups"][0]["rules"]["nucleus"]["split"] == "none"
    assert json.loads(metadata[b"geo"])["version"] == "1.1.0"


@pytest.mark.parametrize("name", ["csv", "parquet"])
def test_the_bytes_depend_on_the_objects_alone(name: str, tmp_path: Path) -> None:
    found = set()
    for block in (512, 1024):
        result = make_result(tmp_path / f"{block}" / "slide.ome.zarr", block=block)
        file = tmp_path / f"{block}.out"
        wsi_unet.export(result, name, file)
        found.add(file.read_bytes())
    assert len(found) == 1


def test_parts_that_begin_below_their_component_are_in_order(tmp_path: Path) -> None:
    y, x = np.ogrid[:1100, :900]
    centres = [(490, 300), (545, 300), (542, 700), (1020, 60), (1060, 60)]
    discs = [(y - i) ** 2 + (x - j) ** 2 < 900 for i, j in centres]
    found = set()
    for block in (512, 2048):
        result = tmp_path / f"{block}.ome.zarr"
        write_store(result, np.logical_or.reduce(discs).astype(np.uint8), block=block)
        wsi_unet.find_objects(result, split="distance:0.75")
        wsi_unet.export(result, "csv", tmp_path / f"{block}.csv")
        found.add((tmp_path / f"{block}.csv").read_bytes())
    (text,) = found
    ids = [int(row["id"]) for row in csv.DictReader(text.decode().splitlines())]
    assert ids == sorted(ids)
    assert len(ids) == len(centres)


def test_csv_has_every_object(result: Path, tmp_path: Path) -> None:
    wsi_unet.export(result, "csv", tmp_path / "objects.csv")
    expected = wsi_unet.open_objects(result).to_table().sort_by("id").to_pylist()
    with (tmp_path / "objects.csv").open(newline="", encoding="utf-8") as file:
        rows = [*csv.DictReader(file)]
    assert [int(row["id"]) for row in rows] == [row["id"] for row in expected]
    assert [float(row["area_um2"]) for row in rows] == [row["area_um2"] for row in expected]
    assert [row["class"] for row in rows] == [row["class"] for row in expected]
    assert "geometry" not in rows[0]


def test_classes_that_spreadsheets_would_compute_are_guarded(tmp_path: Path) -> None:
    result = make_result(tmp_path / "slide.ome.zarr", classes=("background", "=1+1", "tumour"))
    wsi_unet.export(result, "csv", tmp_path / "objects.csv")
    with (tmp_path / "objects.csv").open(newline="", encoding="utf-8") as file:
        assert {row["class"] for row in csv.DictReader(file)} == {"'=1+1", "tumour"}


@pytest.mark.parametrize("name", ["csv", "parquet"])
@pytest.mark.parametrize("damage", ["cut", "emptied", "another's"])
def test_a_part_that_was_changed_is_named(name: str, damage: str, tmp_path: Path) -> None:
    result = make_result(tmp_path / "slide.ome.zarr")
    parts = sorted((result / "objects" / "nuclei").glob("*.parquet"))
    content = {
        "cut": parts[0].read_bytes()[:-9],
        "emptied": b"",
        "another's": parts[1].read_bytes(),
    }
    parts[0].write_bytes(content[damage])
    with pytest.raises(
        OutputError, match=r"objects/nuclei/0\.0\.parquet' is damaged.*find objects"
    ):
        wsi_unet.export(result, name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_damaged_parts_are_named(tmp_path: Path) -> None:
    result = make_result(tmp_path / "slide.ome.zarr")
    part = result / "objects" / "nuclei" / "0.1.parquet"
    data = bytearray(part.read_bytes())
    data[300] ^= 1  # inside a column, which Parquet has no checksum of
    for damaged in (bytes(data), b"", (part.with_name("0.0.parquet")).read_bytes()):
        part.write_bytes(damaged)
        with pytest.raises(OutputError, match=r"'objects/nuclei/0\.1\.parquet' is damaged"):
            wsi_unet.open_objects(result).to_table()
        with pytest.raises(OutputError, match=r"is damaged .* find objects again"):
            wsi_unet.export(result, "csv", tmp_path / "objects.csv")
        assert not (tmp_path / "objects.csv").exists()
    wsi_unet.find_objects(result)
    wsi_unet.export(result, "csv", tmp_path / "objects.csv")


@pytest.mark.parametrize("regions", [None, [[0, 0, 700, 1100]]])
def test_a_lost_marker_of_a_block_is_no_background(
    regions: list[list[int]] | None, tmp_path: Path
) -> None:
    result = make_result(tmp_path / "slide.ome.zarr", regions=regions)
    (result / ".wsi_unet" / "nuclei" / "blocks" / "0.1.json").unlink()
    with pytest.raises(OutputError, match="doesn't tell of all blocks of 'nuclei'"):
        wsi_unet.find_objects(result, min_area=1.0)
    with pytest.raises(OutputError, match="run the same segmentation again"):
        wsi_unet.export(result, "ome-tiff", tmp_path / "labels.ome.tiff")
    assert [path.name for path in tmp_path.iterdir()] == ["slide.ome.zarr"]
