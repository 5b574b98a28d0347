"""Names of regions, several results, and the forms in which measurements are shown."""

from __future__ import annotations

import csv
import gzip
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from click.testing import CliRunner, Result
from measuring.regions import Named, write_regions
from support.labelled import write_store

import wsi_unet
from wsi_unet.csv_cells import restore_cell
from wsi_unet.measuring.files import write_table
from wsi_unet_cli.main import cli

BOX = shapely.box(10, 10, 60, 50)


def make_result(path: Path, **options: Any) -> Path:
    labels = np.zeros((90, 100), np.uint8)
    labels[12:20, 12:30] = labels[40:44, 50:60] = labels[70:80, 70:80] = 1
    labels[30:36, 20:28] = 2
    write_store(path, labels, **options)
    wsi_unet.find_objects(path)
    return path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return make_result(tmp_path / "a.ome.zarr")


@pytest.fixture
def regions(tmp_path: Path) -> Path:
    named: list[Named] = [
        ({"classification": {"name": "Tumor"}, "name": "=core"}, BOX),
        ({"classification": {"name": "Tumor"}}, shapely.box(60, 60, 90, 90)),
        ({"classification": {"name": "Tumor"}}, shapely.box(0, 0, 9, 9)),
        ({}, shapely.box(0, 50, 50, 90)),
    ]
    return write_regions(tmp_path / "regions.geojson", named)


def measure(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["measure", *map(str, arguments)])


def test_regions_are_told_apart_by_number_and_named_as_well_as_can_be(
    store: Path, regions: Path
) -> None:
    rows = wsi_unet.measure(store, regions).to_pylist()[::2]
    assert [(row["region"], row["region_name"], row["region_class"]) for row in rows] == [
        (1, "=core", "Tumor"),
        (2, "Tumor", "Tumor"),
        (3, "Tumor", "Tumor"),
        (4, "region 4", None),
    ]
    assert [row["objects"] for row in rows] == [2, 1, 0, 0]


def test_regions_may_be_asap_xml(store: Path, tmp_path: Path) -> None:
    corners = "".join(
        f'<Coordinate Order="{n}" X="{x}" Y="{y}" />'
        for n, (x, y) in enumerate(BOX.exterior.coords[:-1])
    )
    outline = f'<Annotation Name="A1" Type="Polygon" PartOfGroup="T"><Coordinates>{corners}'
    path = tmp_path / "regions.xml"
    path.write_text(
        f"<ASAP_Annotations><Annotations>{outline}</Coordinates></Annotation></Annotations>"
        "</ASAP_Annotations>"
    )
    (row, _) = wsi_unet.measure(store, path).to_pylist()
    assert (row["region_name"], row["region_class"], row["objects"]) == ("A1", "T", 2)


def test_several_results_come_one_after_the_other(
    store: Path, regions: Path, tmp_path: Path
) -> None:
    other = make_result(tmp_path / "b.ome.zarr", mpp=None)
    table = wsi_unet.measure([store, other, store], regions)
    alone = [wsi_unet.measure(each, regions).to_pylist() for each in (store, other)]
    rows = table.to_pylist()
    assert len(rows) == len(alone[0]) + len(alone[1])
    for row, expected in zip(rows, [*alone[0], *alone[1]], strict=True):
        assert {name: row[name] for name in expected} == expected
        assert {row[name] for name in row.keys() - expected.keys()} <= {None}
    assert {row["result"] for row in rows} == {str(store), str(other)}


@pytest.mark.parametrize("name", ["b.geojson", "B 1.svs.geojson", "B 1.geojson", "B 1.json.gz"])
def test_each_slide_may_have_its_own_file_in_a_folder(
    name: str, store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = make_result(tmp_path / "b.ome.zarr", slide="B 1.svs")
    folder = tmp_path / "annotations"
    folder.mkdir()
    write_regions(folder / "a.json", [({}, BOX)])
    path = write_regions(folder / name, [({}, BOX), ({}, BOX)])
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(path.read_bytes()))
    write_regions(folder / "c.geojson", [])
    assert wsi_unet.measure([other, store], folder)["region"].to_pylist() == [1, 1, 2, 2, 1, 1]
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_one_file_for_several_slides_is_doubtful(
    store: Path, regions: Path, tmp_path: Path
) -> None:
    other = make_result(tmp_path / "b.ome.zarr", slide="another")
    done = measure(store, other, "--regions", regions, "--json")
    assert done.exit_code == 0
    assert re.fullmatch(
        r"warning: .*regions.geojson: its regions are measured on 2 slides \(a.ome.zarr, "
        r"b.ome.zarr\), .* give --regions a folder .*\n",
        done.stderr,
    )
    again = make_result(tmp_path / "c.ome.zarr")
    assert measure(store, again, "--regions", regions).stderr == ""


def test_outlines_that_cover_nothing_are_said_once(store: Path, tmp_path: Path) -> None:
    write_store(store, np.ones((90, 100), np.uint8), name="more")
    wsi_unet.find_objects(store)
    line = {"type": "Polygon", "coordinates": [[[1, 1], [5, 1], [1, 1]]]}
    features = [
        {"type": "Feature", "properties": {}, "geometry": line},
        {"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(BOX)},
    ]
    path = tmp_path / "r.geojson"
    path.write_text(json.dumps(features))
    done = measure(store, "--regions", path)
    assert done.stderr.count("\n") == 1
    assert "1 outline that covers nothing is left out, in feature 1" in done.stderr


def test_csv_and_parquet_hold_the_table(store: Path, regions: Path, tmp_path: Path) -> None:
    table = wsi_unet.measure(store, regions)
    for name in ("t.csv", "t.parquet", "T.CSV"):
        (tmp_path / name).write_bytes(b"an earlier file")
        done = measure(store, "--regions", regions, "--output", tmp_path / name)
        assert done.stdout == f"table  {tmp_path / name} (8 rows)\n"
    assert pq.read_table(tmp_path / "t.parquet").equals(table)
    assert (tmp_path / "t.csv").read_bytes() == (tmp_path / "T.CSV").read_bytes()
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    assert read[0]["region_name"] == "'=core"  # no formula
    for row, expected in zip(read, table.to_pylist(), strict=True):
        for name, value in expected.items():
            cell = restore_cell(row[name])
            assert (cell or None) == value if value is None else type(value)(cell) == value


def test_a_table_is_written_whole_or_stays(
    store: Path, regions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"an earlier file")
    table = wsi_unet.measure(store, regions)

    def fail(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(wsi_unet.OutputError, match=r"can't write .*No space left"):
        write_table(table, path)
    assert path.read_bytes() == b"an earlier file"
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "a.ome.zarr",
        "regions.geojson",
        "t.csv",
    ]


def test_json_holds_every_column(store: Path, regions: Path) -> None:
    document = json.loads(measure(store, "--regions", regions, "--json").stdout)
    assert document == {"rows": wsi_unet.measure(str(store), regions).to_pylist()}


def test_the_terminal_shows_the_main_columns(store: Path, regions: Path, tmp_path: Path) -> None:
    done = measure(store, "--regions", regions)
    assert done.exit_code == 0
    heading, first, *_ = done.stdout.splitlines()
    assert re.split("  +", heading) == [
        "region", "name", "looked at", "area", "class", "class area", "share", "objects", "per mm²",
        "mean, median area",
    ]  # fmt: skip
    assert re.split("  +", first) == [
        "1", "=core (Tumor)", "100.0 %", "500 µm²", "nucleus", "46 µm²", "9.2 %", "2",
        "4000", "23, 23 µm²",
    ]  # fmt: skip
    other = make_result(tmp_path / "b.ome.zarr", mpp=None)
    write_store(other, np.zeros((90, 100), np.uint8), name="more", mpp=None)
    done = measure(store, other, "--regions", regions, "--areas-only")
    heading, *_, last = done.stdout.splitlines()
    assert re.split("  +", heading)[:3] == ["result", "label", "region"]
    assert re.split("  +", last)[5:] == ["2000 px", "tumour", "0 px", "0.0 %"]
