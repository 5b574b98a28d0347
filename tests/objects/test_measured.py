"""Tables with intensities, stains and probabilities: of real runs, and what is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from objects import shapes
from PIL import Image
from scipy import ndimage
from skimage.color import rgb2hed
from skimage.measure import label as label_components
from skimage.measure import regionprops
from support.labelled import write_store
from support.oracle import balanced_model, textured, write_png

import wsi_unet
from wsi_unet import ClusterOptions
from wsi_unet.errors import OptionError, OutputError, SlideError
from wsi_unet.geometry import Box
from wsi_unet.labels.shards import encode_shard
from wsi_unet.models import UNetConfig
from wsi_unet.objects.intensities.stains import STEPS
from wsi_unet.slides.opening import open_slide
from wsi_unet.slides.resample import choose_resampling, open_raster
from wsi_unet.slides.slide import Slide
from wsi_unet_cli.main import cli

ALL = "shape,intensity,stain"
OPTIONS: Any = {
    "block": 512,
    "tile": 128,
    "precision": "float32",
    "device": "cpu",
    "tissue": "none",
}
Planes = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a slide, and of models at half its resolution."""
    folder = tmp_path_factory.mktemp("measured")
    image = textured(1100, 1240)
    write_png(folder / "slide.png", image)
    balanced_model(UNetConfig(depth=1, base_width=4), image, folder / "model", mpp=1.0)
    sigmoid: Any = {"head": "sigmoid", "background": None}
    config = UNetConfig(depth=1, base_width=4, classes=2)
    balanced_model(config, image, folder / "multi", mpp=1.0, name="multi", **sigmoid)
    return folder


def segment(folder: Path, output: Path, model: str = "model", **options: Any) -> Path:
    """Write labels and probabilities; a pixel of the labels is 2 x 2 px of the slide."""
    wsi_unet.segment(
        folder / "slide.png", output, folder / model,
        **(OPTIONS | {"mpp": 0.5, "outputs": ("labels", "probabilities")} | options),
    )  # fmt: skip
    return output


@pytest.fixture(scope="module")
def stored(folder: Path) -> Path:
    return segment(folder, folder / "stored.ome.zarr")


def read_rows(store: Path, label: str | None = None) -> pa.Table:
    """Return the table in order of identity."""
    return wsi_unet.open_objects(store, label).to_table().sort_by("id")


def read_bytes(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.glob("objects/*/*.parquet")}


def read_planes(slide: Path) -> Planes:
    """Return what is measured on the slide, at half its resolution."""
    with open_slide(slide) as opened:
        raster = open_raster(opened, choose_resampling(opened, (2.0, 2.0)))
        pixels = raster.read(Box.from_shape(raster.shape))
    stains = np.moveaxis(rgb2hed(pixels), 2, 0)
    planes: Planes = dict(zip(("red", "green", "blue"), np.moveaxis(pixels, 2, 0), strict=True))
    return planes | dict(zip(("haematoxylin", "eosin", "dab"), stains, strict=True))


def check_rows(store: Path, planes: Planes, label: str | None = None) -> None:
    """Compare a table with the measurements of the components of the whole image."""
    opened = wsi_unet.open_labels(store, label)
    numbers = label_components(opened.values, connectivity=2)  # type: ignore[no-untyped-call]
    probabilities = wsi_unet.open_probabilities(store)
    classes = opened.attrs["classes"]
    rows = {row["id"]: row for row in read_rows(store, label).to_pylist()}
    own = np.zeros(numbers.shape)
    for value, name in classes.items():
        where = opened.values == value
        if value:
            own[where] = probabilities.sel(c=name).values[where]
    found, first = np.unique(numbers, return_index=True)
    of_object = {identity: number for number, identity in zip(found, first.tolist(), strict=True)}
    of_object = {identity: number for identity, number in of_object.items() if number}
    assert of_object.keys() == rows.keys()
    assert len(rows) > 100
    index = [of_object[identity] for identity in rows]

    def compare(column: str, expected: NDArray[Any], tolerance: float) -> None:
        values = [row[column] for row in rows.values()]
        np.testing.assert_allclose(values, expected, rtol=1e-9, atol=tolerance, err_msg=column)

    compare("probability", ndimage.mean(own, numbers, index) / 255, 1e-12)
    for name, plane in planes.items():
        tolerance = 1e-9 if plane.dtype == np.uint8 else 2 / STEPS
        exact = plane.astype(np.float64)
        compare(f"mean_{name}", ndimage.mean(exact, numbers, index), tolerance)
        compare(f"sd_{name}", ndimage.standard_deviation(exact, numbers, index), tolerance)


def test_the_table_has_what_the_whole_image_has(folder: Path, stored: Path) -> None:
    assert wsi_unet.find_objects(stored, measure=ALL).state == "finished"
    check_rows(stored, read_planes(folder / "slide.png"))
    said = json.loads(pq.read_schema(next(stored.glob("objects/*/*"))).metadata[b"wsi_unet"])
    assert said["values"]["slide"] == {"reader": "image", "series": None, "sampling": [0, 2, 2]}
    assert said["values"]["columns"][:3] == ["probability", "mean_red", "sd_red"]


@pytest.mark.parametrize(("block", "cluster"), [(1024, None), (512, ClusterOptions(workers=2))])
def test_other_blocks_and_workers_give_the_same(
    folder: Path, stored: Path, tmp_path: Path, block: int, cluster: ClusterOptions | None
) -> None:
    wsi_unet.find_objects(stored, measure=ALL)
    other = segment(folder, tmp_path / "out", block=block)
    assert wsi_unet.find_objects(other, measure=ALL, cluster=cluster).state == "finished"
    assert read_rows(other).equals(read_rows(stored))


def test_another_measurement_makes_the_table_anew(stored: Path) -> None:
    wsi_unet.find_objects(stored)
    before, plain = read_bytes(stored), read_rows(stored)
    assert "probability" in plain.column_names  # as it is stored
    assert "mean_red" not in plain.column_names
    (found,) = wsi_unet.find_objects(stored, measure=["stain"]).labels
    assert found.computed == found.parts > 1
    measured = read_rows(stored)
    assert {*measured.column_names} - {*plain.column_names} == {
        f"{kind}_{stain}" for kind in ("mean", "sd") for stain in ("haematoxylin", "eosin", "dab")
    }
    assert measured.select(plain.column_names).equals(plain)  # the UUIDs too
    assert wsi_unet.find_objects(stored, measure="stain, shape").labels[0].computed == 0
    assert wsi_unet.find_objects(stored, measure="shape").labels[0].computed == found.parts
    assert read_bytes(stored) == before


def test_overlapping_classes_have_the_probability_of_their_own(folder: Path) -> None:
    store = segment(folder, folder / "multi.ome.zarr", "multi")
    wsi_unet.find_objects(store, measure=ALL)
    planes = read_planes(folder / "slide.png")
    for name in ("multi.class-0", "multi.class-1"):
        check_rows(store, planes, name)


def test_changed_probabilities_make_their_parts_again(folder: Path, tmp_path: Path) -> None:
    store = segment(folder, tmp_path / "out.ome.zarr")
    wsi_unet.find_objects(store)
    before = read_rows(store)
    changed = wsi_unet.open_probabilities(store).values[:, :512, 512:] // 2
    shard = encode_shard(changed, 512)
    assert shard is not None
    (store / "probability/random/0/c/0/0/1").write_bytes(shard)
    marker = store / ".wsi_unet/random/blocks/0.1.json"
    document = json.loads(marker.read_text())
    (key,) = (key for key in document["shards"] if key.startswith("probability/random/0/"))
    record = {"length": len(shard), "sha256": hashlib.sha256(shard).hexdigest()}
    document["shards"][key] = record
    marker.write_text(json.dumps(document))
    (found,) = wsi_unet.find_objects(store).labels
    assert 0 < found.computed < found.parts
    check_rows(store, {})
    assert not read_rows(store).equals(before)
    assert (
        read_rows(store).drop_columns(["probability"]).equals(before.drop_columns(["probability"]))
    )


def test_damaged_probabilities_fail_their_blocks(folder: Path, tmp_path: Path) -> None:
    store = segment(folder, tmp_path / "out.ome.zarr")
    (store / "probability/random/0/c/0/0/1").write_bytes(b"torn")
    report = wsi_unet.find_objects(store, cluster=ClusterOptions(max_retries=0))
    assert report.state == "incomplete"
    assert any("damaged" in each.error for each in report.labels[0].failures)
    segment(folder, store, overwrite=True)
    assert wsi_unet.find_objects(store).state == "finished"
    document = store / "probability/random/0/zarr.json"
    described = json.loads(document.read_text())
    described["shape"][0] = 1
    document.write_text(json.dumps(described))
    with pytest.raises(OutputError, match=r"don't belong to the labels|damaged"):
        wsi_unet.find_objects(store)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Slide]:
    """The slides that are open."""
    slides: list[Slide] = []
    start, close = Slide.__init__, Slide.close

    def watched_start(self: Slide, *arguments: Any) -> None:
        start(self, *arguments)
        slides.append(self)

    def watched_close(self: Slide) -> None:
        close(self)
        if self in slides:
            slides.remove(self)

    monkeypatch.setattr(Slide, "__init__", watched_start)
    monkeypatch.setattr(Slide, "close", watched_close)
    return slides


def write_result(folder: Path, image: NDArray[np.uint8], **changes: Any) -> Path:
    """Write a slide and labels of it, pixel for pixel."""
    path = folder / "slide.png"
    Image.fromarray(image).save(path)
    labels = np.tile(shapes.touching_discs(200), (3, 3))[:520, :600]
    store = write_store(folder / "out.ome.zarr", labels)
    with open_slide(path) as slide:
        reference = {
            "path": str(path), "name": path.name, "reader": slide.reader,
            "fingerprint": slide.fingerprint(), "shape": list(slide.shape), "mpp": [0.5, 0.5],
        }  # fmt: skip
    record = store / ".wsi_unet/nuclei/run.json"
    document = json.loads(record.read_text())
    document["parameters"] |= {"slide": reference | changes}
    document["parameters"]["sampling"] |= {"level": 0, "ratio": [1.0, 1.0], "shape": [520, 600]}
    record.write_text(json.dumps(document))
    return store


@pytest.fixture
def colours() -> NDArray[np.uint8]:
    return textured(520, 600)


def test_slides_are_closed_whatever_happens(
    tmp_path: Path, colours: NDArray[np.uint8], opened: list[Slide]
) -> None:
    store = write_result(tmp_path, colours)
    wsi_unet.find_objects(store, measure=ALL)
    assert not opened
    store = write_result(tmp_path, colours, fingerprint="other")
    with pytest.raises(OutputError, match="isn't the slide that was segmented"):
        wsi_unet.find_objects(store, measure=ALL)
    assert not opened


def test_shapes_need_no_slide(tmp_path: Path, colours: NDArray[np.uint8]) -> None:
    store = write_result(tmp_path, colours)
    (tmp_path / "slide.png").unlink()
    assert wsi_unet.find_objects(store).state == "finished"
    before = read_bytes(store)
    with pytest.raises(SlideError, match=r"slide.png: the slide, which .* can't be opened \(no su"):
        wsi_unet.find_objects(store, measure="intensity")
    assert read_bytes(store) == before
    assert len(wsi_unet.open_objects(store).to_table())


def test_a_grey_slide_has_one_channel_and_no_stains(
    tmp_path: Path, colours: NDArray[np.uint8], opened: list[Slide]
) -> None:
    grey = colours[..., 0]
    store = write_result(tmp_path, grey)
    with pytest.raises(OptionError, match="is grey, so its stains can't be told apart") as raised:
        wsi_unet.find_objects(store, measure=ALL)
    assert raised.value.option == "measure"
    assert not opened
    wsi_unet.find_objects(store, measure="intensity")
    table = read_rows(store)
    assert [name for name in table.column_names if name.startswith("mean_")] == ["mean_grey"]
    labels = wsi_unet.open_labels(store).values
    numbers = label_components(labels, connectivity=2)  # type: ignore[no-untyped-call]
    means = [each.intensity_mean for each in regionprops(numbers, grey)]  # type: ignore[no-untyped-call]
    assert sorted(table["mean_grey"].to_pylist()) == pytest.approx(sorted(means))


def test_labels_that_name_no_slide_are_refused(tmp_path: Path) -> None:
    store = write_store(tmp_path / "out.ome.zarr", shapes.touching_discs(100))
    with pytest.raises(OutputError, match="nothing says which slide the labels are of"):
        wsi_unet.find_objects(store, measure="stain")


def read_stage(store: Path) -> tuple[Path, dict[str, Any]]:
    path = store / ".wsi_unet/nuclei/objects/nuclei/stage.json"
    return path, json.loads(path.read_text())


def test_tables_of_shapes_are_what_they_were_before_there_was_anything_else(
    tmp_path: Path,
) -> None:
    labels = np.zeros((600, 700), np.uint8)
    labels[10:20, 10:30], labels[500:530, 500:540] = 1, 2
    store = write_store(tmp_path / "out.ome.zarr", labels)
    wsi_unet.find_objects(store, split={"nucleus": "distance:0.75"}, min_area=2)
    path, stage = read_stage(store)
    # As the versions signed it that knew nothing of intensities.
    assert stage["signature"] == "4490c2ac4cf7613ab1dd8278af34e4d1cee240b47cb88439e1c5c6206ffbc1d0"
    marker = json.loads((path.parent / "parts/0.0.json").read_text())
    # Of that signature, and of labels whose chunks carry checksums.
    assert marker["inputs"] == "9f0c67ca2e841cea864f894001f12fe8dc06e1d2c41d12b854af5db9a2a274bd"
    expected = read_rows(store)
    del stage["measure"], stage["values"]
    path.write_text(json.dumps(stage))
    assert read_rows(store).equals(expected)
    again = wsi_unet.find_objects(store, split={"nucleus": "distance:0.75"}, min_area=2)
    assert again.labels[0].computed == 0


def command(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["objects", *map(str, arguments)])


def test_the_command_measures(tmp_path: Path, colours: NDArray[np.uint8]) -> None:
    store = write_result(tmp_path, colours)
    done = command(store, "--measure", ALL, "-q")
    assert done.exit_code == 0, done.output
    assert "sd_dab" in wsi_unet.open_objects(store).schema.names
    for wrong in ("shape,colour", "", "shape;stain"):
        refused = command(store, "--measure", wrong, "-q")
        assert refused.exit_code == 2
        assert "`--measure` is" in refused.stderr or "--measure" in refused.stderr
    (tmp_path / "slide.png").write_bytes(b"")
    refused = command(store, "--measure", "shape,stain", "-q")
    assert refused.exit_code == 2
    assert "measure shapes alone, which need no slide" in refused.stderr
