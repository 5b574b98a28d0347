"""`find_objects` and `open_objects` on stores."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr
from click.testing import CliRunner, Result
from objects import shapes
from support.labelled import write_store

import wsi_unet
from wsi_unet.errors import OptionError, OutputError
from wsi_unet.labels.layout import ensure_root, remove_run
from wsi_unet.labels.progress import Progress
from wsi_unet.objects import stage as stage_module
from wsi_unet.objects.records import StageFiles
from wsi_unet.objects.rule import ClassRule
from wsi_unet.objects.status import read_object_status
from wsi_unet.storage.opening import open_store
from wsi_unet_cli.main import cli


@pytest.fixture(scope="module")
def labels() -> shapes.Labels:
    found = np.zeros((700, 1100), np.uint8)
    for y in range(0, 700, 130):
        for x in range(0, 1100, 170):
            part = found[y : y + 120, x : x + 150]
            part[...] = shapes.touching_discs(160, seed=y + x)[: part.shape[0], : part.shape[1]]
    found[500:520, 480:560] = 1  # across four blocks
    return found


@pytest.fixture
def store(tmp_path: Path, labels: shapes.Labels) -> Path:
    return write_store(tmp_path / "out.ome.zarr", labels)


def read_bytes(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (store / "objects/nuclei").iterdir()}


def test_the_table_is_that_of_the_whole_image(store: Path, labels: shapes.Labels) -> None:
    report = wsi_unet.find_objects(store, split="distance:0.6")
    table = wsi_unet.open_objects(store).to_table().sort_by("id")
    rules = dict.fromkeys((1, 2), ClassRule(split="distance", h=0.6))
    whole = shapes.find_by_blocks(labels, 2000, rules)
    for name in table.column_names:
        if name not in ("uuid", "class"):  # which slide and classes decide
            assert table[name].to_pylist() == whole[name].to_pylist(), name
    (found,) = report.labels
    assert found.objects == len(table)
    assert found.computed == found.parts == 6
    nuclei = found.classes[0]
    own = table.filter(table["label"].to_numpy() == 1)
    assert nuclei.objects == len(own)
    assert nuclei.mean_area == pytest.approx(np.mean(own["area_um2"].to_numpy()))
    assert nuclei.density_per_mm2 == pytest.approx(len(own) / (700 * 1100 * 0.25 / 1e6))


def test_a_part_opens_elsewhere_and_says_what_made_it(store: Path) -> None:
    wsi_unet.find_objects(store, min_area=20)
    part = store / "objects/nuclei/0.0.parquet"
    frame = geopandas.read_parquet(part)
    assert (frame.area * 0.25 == frame["area_um2"]).all()
    assert frame["area_um2"].min() >= 20
    said = json.loads(pq.read_schema(part).metadata[b"wsi_unet"])
    assert said["fingerprint"] == "a slide"
    assert said["rule"]["nucleus"]["min_area"] == 20
    assert len(geopandas.GeoDataFrame.from_arrow(wsi_unet.open_objects(store).to_table()))


def test_zarr_walks_through_a_result_with_a_table(store: Path) -> None:
    wsi_unet.find_objects(store)
    found = {name for name, _ in zarr.open_group(store, mode="r").members(max_depth=None)}
    assert "labels/nuclei/0" in found
    assert not [name for name in found if name.startswith("objects/")]


def test_what_is_there_stays_and_what_is_damaged_is_made_again(store: Path) -> None:
    wsi_unet.find_objects(store)
    before = read_bytes(store)
    assert wsi_unet.find_objects(store).labels[0].computed == 0
    part = store / "objects/nuclei/0.1.parquet"
    part.write_bytes(before["0.1.parquet"][:-1] + b"\0")
    (store / "objects/nuclei/1.0.parquet").unlink()
    with pytest.raises(OutputError, match="5 of 6 parts"):
        wsi_unet.open_objects(store)
    assert wsi_unet.find_objects(store).labels[0].computed == 2
    assert read_bytes(store) == before


def test_another_version_of_the_package_keeps_the_table(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_module, "__version__", "0.0.1")
    wsi_unet.find_objects(store)
    before = read_bytes(store)
    metadata = pq.read_schema(store / "objects/nuclei/0.0.parquet").metadata
    assert json.loads(metadata[b"wsi_unet"])["version"] == "0.0.1"
    monkeypatch.setattr(stage_module, "__version__", "0.0.2")
    assert wsi_unet.find_objects(store).labels[0].computed == 0
    assert read_bytes(store) == before
    monkeypatch.setattr(stage_module, "TABLE_VERSION", stage_module.TABLE_VERSION + 1)
    assert wsi_unet.find_objects(store).labels[0].computed == 6


def test_another_rule_replaces_the_table(store: Path) -> None:
    before = wsi_unet.find_objects(store).labels[0].objects
    report = wsi_unet.find_objects(store, min_area=1e6)
    assert report.labels[0].objects == 0
    assert sum(c.dropped_small for c in report.labels[0].classes) == before
    assert wsi_unet.open_objects(store).count_rows() == 0
    assert read_bytes(store) == {}


def test_a_failure_loses_nothing(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wsi_unet.find_objects(store)
    expected = read_bytes(store)
    wsi_unet.find_objects(store, min_area=1e6)
    write = StageFiles.write_part
    written: list[Any] = []

    def fail_at_third(self: StageFiles, *arguments: Any) -> Any:
        if len(written) >= 2:
            raise OutputError("the disk is full")
        written.append(arguments[0])
        return write(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(StageFiles, "write_part", fail_at_third)
        report = wsi_unet.find_objects(store)
    (found,) = report.labels
    assert (report.state, found.parts, found.left) == ("incomplete", 2, 4)
    assert len(found.failures) == 4
    assert all("the disk is full" in failure.error for failure in found.failures)
    with pytest.raises(OutputError, match="aren't finished"):
        wsi_unet.open_objects(store)
    assert wsi_unet.find_objects(store).labels[0].computed == 4
    assert read_bytes(store) == expected


def test_changed_labels_make_their_parts_again(tmp_path: Path, labels: shapes.Labels) -> None:
    store = write_store(tmp_path / "out.ome.zarr", labels)
    wsi_unet.find_objects(store)
    changed = labels.copy()
    changed[20:30, 20:30] = 2  # in the first block
    write_store(store, changed)
    assert 0 < wsi_unet.find_objects(store).labels[0].computed < 6
    fresh = write_store(tmp_path / "fresh.ome.zarr", changed)
    wsi_unet.find_objects(fresh)
    assert read_bytes(store) == read_bytes(fresh)


def test_blocks_whose_labels_are_gone_are_forgotten(tmp_path: Path, labels: shapes.Labels) -> None:
    store = write_store(tmp_path / "out.ome.zarr", labels)
    wsi_unet.find_objects(store)
    changed = labels.copy()
    changed[512:, 1024:] = 0
    write_store(store, changed)
    assert wsi_unet.find_objects(store).state == "finished"
    (status,) = read_object_status(open_store(store), "nuclei", ["nuclei"], verify=True)
    assert (status.state, status.damaged, status.done) == ("finished", 0, 5)


def test_an_unknown_pixel_size_gives_pixels(tmp_path: Path, labels: shapes.Labels) -> None:
    store = write_store(tmp_path / "out.ome.zarr", labels, mpp=None)
    (found,) = wsi_unet.find_objects(store, min_area=10).labels
    assert (found.unit, found.area_mm2, found.classes[0].density_per_mm2) == ("px", None, None)
    names = wsi_unet.open_objects(store).schema.names
    assert "perimeter_px" in names
    assert not [name for name in names if name.endswith(("_um", "_um2"))]


def test_geometry_is_in_pixels_of_the_slide(tmp_path: Path, labels: shapes.Labels) -> None:
    store = write_store(tmp_path / "out.ome.zarr", labels, downsample=(2.0, 2.0))
    wsi_unet.find_objects(store)
    table = wsi_unet.open_objects(store).to_table()
    frame = geopandas.GeoDataFrame.from_arrow(table)
    assert np.allclose(frame.area * 0.25, frame["area_um2"])
    assert np.allclose(frame.area, frame["area_px"] * 4)
    assert np.allclose(frame["x_um"], frame["x"] * 0.5)


def test_the_edges_of_tissue_and_regions_cut(tmp_path: Path) -> None:
    array = np.zeros((600, 600), np.uint8)
    array[100:110, 90:100] = array[100:110, 50:60] = array[300:310, 0:10] = 1
    store = write_store(tmp_path / "out.ome.zarr", array, regions=[[0, 0, 600, 100]])
    wsi_unet.find_objects(store)
    rows = wsi_unet.open_objects(store).to_table().to_pylist()
    assert [(row["x"], row["cut"]) for row in rows] == [(55.0, False), (95.0, True), (5.0, True)]


def edit(path: Path, change: Callable[[Any], None]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def add_group(store: Path, run: str, label: str) -> None:
    """Add a label group to a run, with the same labels as its first."""
    edit(
        store / f"labels/{run}/zarr.json",
        lambda group: group["attributes"]["wsi_unet"].update(run=run),
    )
    shutil.copytree(store / f"labels/{run}", store / f"labels/{label}")
    edit(
        store / "labels/zarr.json", lambda group: group["attributes"]["ome"]["labels"].append(label)
    )
    for marker in (store / f".wsi_unet/{run}/blocks").iterdir():
        edit(
            marker,
            lambda block: block["shards"].update(
                {
                    key.replace(f"labels/{run}/", f"labels/{label}/"): shard
                    for key, shard in block["shards"].items()
                }
            ),
        )


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often what of a run's progress was read."""
    found: Counter[str] = Counter()

    def watch(name: str) -> None:
        read = getattr(Progress, name)

        def watched(self: Progress, *arguments: Any) -> Any:
            found[name] += 1
            return read(self, *arguments)

        monkeypatch.setattr(Progress, name, watched)

    for name in ("read_run", "read_mask", "read_markers", "read_marker"):
        watch(name)
    return found


def test_what_groups_of_one_run_share_is_read_once(store: Path, reads: Counter[str]) -> None:
    add_group(store, "nuclei", "more")
    found = wsi_unet.find_objects(store).labels
    assert [each.label for each in found] == ["nuclei", "more"]
    assert found[0].classes == found[1].classes
    assert found[0].objects > 0
    assert reads == {"read_run": 1, "read_markers": 1}
    reads.clear()
    assert wsi_unet.open_objects(store, "more").count_rows() == found[1].objects
    assert not reads


def command(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["objects", *map(str, arguments)])


def test_the_command(store: Path) -> None:
    done = command(store, "--split", "nucleus=distance:0.6", "--min-area", "5")
    assert done.exit_code == 0, done.output
    assert "distance:0.6" in done.stdout
    document = json.loads(command(store, "--json").stdout)
    assert {each["rule"] for each in document["labels"][0]["classes"]} == {"none"}


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--split", "ghost=none"], "names the class 'ghost'"),
        (["--split", "distance:0"], "greater than 0"),
        (["--split", "distance:-1"], "greater than 0"),
        (["--split", "distance:nan"], "finite|greater"),
        (["--split", "watershed"], "give none, distance:H"),
        (["--min-area", "9", "--max-area", "3"], "more than max_area"),
        (["--min-area", "much"], "is not an area"),
        (["--label", "ghost"], "there are no labels 'ghost'"),
    ],
)
def test_refusals(store: Path, options: list[str], match: str) -> None:
    done = command(store, *options)
    assert done.exit_code == 2
    assert re.search(match, done.stderr), done.stderr
    assert not (store / "objects").exists()


def test_unfinished_labels_and_other_folders_are_refused(
    tmp_path: Path, labels: shapes.Labels
) -> None:
    unfinished = write_store(tmp_path / "out.ome.zarr", labels, finished=False)
    with pytest.raises(OutputError, match="aren't finished"):
        wsi_unet.find_objects(unfinished)
    with pytest.raises(OutputError, match="there is no output of wsi-unet here; segment a slide"):
        wsi_unet.find_objects(tmp_path / "nothing")
    ensure_root(open_store(tmp_path / "empty"), {})
    for use in (wsi_unet.find_objects, wsi_unet.open_objects):
        for label in (None, "x"):
            with pytest.raises(OutputError, match="there are no labels here; segment a slide"):
                use(tmp_path / "empty", label=label)
    finished = write_store(tmp_path / "finished.ome.zarr", labels)
    with pytest.raises(OptionError, match="ghost"):
        wsi_unet.find_objects(finished, min_area={"ghost": 1})
    with pytest.raises(OutputError, match="no objects of 'nuclei' are stored"):
        wsi_unet.open_objects(finished)


def test_a_bucket_holds_the_same(bucket: str, store: Path) -> None:
    expected = wsi_unet.find_objects(store).labels
    shutil.rmtree(store / "objects")
    remote, local = open_store(f"{bucket}/out.ome.zarr"), open_store(store)
    for key in list(local.list("")):
        if "/objects/" not in key:
            remote.put(key, local.get(key) or b"")
    assert wsi_unet.find_objects(str(remote)).labels == expected
    wsi_unet.find_objects(store)
    opened = wsi_unet.open_objects(str(remote)).to_table()
    assert opened.equals(wsi_unet.open_objects(store).to_table())


def test_the_rule_of_the_card_is_used(store: Path) -> None:
    key = store / "labels/nuclei/zarr.json"
    document = json.loads(key.read_text())
    card = {"objects": {"nucleus": {"split": "distance", "h": 0.6}}}
    document["attributes"]["wsi_unet"]["model"] = {"name": "m", "sha256": "0", "spec": card}
    key.write_text(json.dumps(document))
    (found,) = wsi_unet.find_objects(store).labels
    assert [each.rule for each in found.classes] == ["distance:0.6", "none"]
    (found,) = wsi_unet.find_objects(store, split={"nucleus": "none"}).labels
    assert [each.rule for each in found.classes] == ["none", "none"]


def test_overwriting_the_labels_removes_their_objects(store: Path) -> None:
    wsi_unet.find_objects(store)
    remove_run(open_store(store), "nuclei")
    assert not [key for key in open_store(store).list("") if "objects/" in key]
