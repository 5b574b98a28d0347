"""`find_objects(object_labels=True)`: the label image of objects, in stores."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio.features
import shapely
import zarr
from click.testing import CliRunner
from numpy.typing import NDArray
from objects import shapes
from support import warm
from support.labelled import write_store
from support.oracle import balanced_model, textured, write_png
from support.runs import array_objects, temporaries

import wsi_unet
from wsi_unet.errors import OutputError
from wsi_unet.labels.contents import read_label_names, read_object_images
from wsi_unet.labels.layout import create_image, create_labels
from wsi_unet.labels.metadata import Frame
from wsi_unet.labels.pyramid import Pyramid, reduce_mode
from wsi_unet.models import UNetConfig
from wsi_unet.objects.painting import label_image as label_image_module
from wsi_unet.storage.opening import open_store
from wsi_unet_cli.main import cli

SPLIT = "distance:0.6"
OPTIONS: Any = {"block": 512, "tile": 128, "precision": "float32", "device": "cpu", "mpp": 0.5}


@pytest.fixture(scope="module")
def labels() -> shapes.Labels:
    found = np.zeros((700, 1100), np.uint8)
    for y in range(0, 700, 190):
        for x in range(0, 1100, 310):
            part = found[y : y + 120, x : x + 150]
            part[...] = shapes.touching_discs(160, seed=y + x)[: part.shape[0], : part.shape[1]]
    found[440:590, 950:1100] = shapes.spiral(150)
    found[:500, 4] = 1
    return found


@pytest.fixture
def store(tmp_path: Path, labels: shapes.Labels) -> Path:
    return write_store(tmp_path / "out.ome.zarr", labels)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, labels: shapes.Labels) -> dict[str, str]:
    store = write_store(tmp_path_factory.mktemp("expected") / "out.ome.zarr", labels)
    wsi_unet.find_objects(store, split=SPLIT, object_labels=True)
    return array_objects(store)


def draw(store: Path, downsample: float = 1.0) -> NDArray[np.uint32]:
    """Return the objects of a table in order of identity, drawn by another library."""
    shape = zarr.open_array(store / "labels/nuclei/0", mode="r").shape
    table = wsi_unet.open_objects(store).to_table().sort_by("id")
    outlines = shapely.from_wkb(table["geometry"].to_numpy())
    outlines = shapely.transform(outlines, lambda points: points / downsample)
    numbered = [(outline, number) for number, outline in enumerate(outlines, start=1)]
    drawn: NDArray[np.uint32] = rasterio.features.rasterize(numbered, shape, dtype="uint32")
    return drawn


def read_level(store: Path, level: int) -> NDArray[np.uint32]:
    stored = zarr.open_array(store / f"labels/nuclei.objects/{level}", mode="r")
    assert stored.dtype == np.uint32
    return np.asarray(stored[...])


def check_image(store: Path, downsample: float = 1.0) -> None:
    """Check that every level is that of the table."""
    wanted = draw(store, downsample)
    for level in range(3):
        assert np.array_equal(read_level(store, level), wanted)
        wanted = reduce_mode(wanted)


def test_the_image_numbers_the_rows_of_the_table(store: Path) -> None:
    report = wsi_unet.find_objects(store, split=SPLIT, object_labels=True)
    assert report.images == ("nuclei.objects",)
    check_image(store)
    attributes = json.loads((store / "labels/nuclei.objects/zarr.json").read_text())["attributes"]
    ours = attributes["wsi_unet"]
    assert (ours["objects_of"], ours["objects"]) == ("nuclei", report.labels[0].objects)
    assert report.labels[0].objects == read_level(store, 0).max()
    assert wsi_unet.find_objects(store, split=SPLIT).images == ()
    check_image(store)


def test_labels_of_other_pixels_than_the_slide_s(tmp_path: Path, labels: shapes.Labels) -> None:
    store = write_store(tmp_path / "out.ome.zarr", labels, downsample=(2.0, 2.0))
    wsi_unet.find_objects(store, split="distance:1.2", object_labels=True)
    check_image(store, downsample=2.0)


@pytest.mark.parametrize("array", [shapes.empty(600), shapes.full(1100)], ids=["empty", "full"])
def test_no_object_and_one_that_fills_all(tmp_path: Path, array: shapes.Labels) -> None:
    store = write_store(tmp_path / "out.ome.zarr", array)
    wsi_unet.find_objects(store, object_labels=True)
    assert np.array_equal(read_level(store, 0), array)
    stored = [path for path in (store / "labels/nuclei.objects").rglob("c/*/*") if path.is_file()]
    assert bool(stored) == bool(array.any())


@pytest.mark.parametrize("image", [False, True])
def test_validator_and_napari_take_it_for_labels(store: Path, image: bool) -> None:
    from labels.test_standard import napari_layers
    from ome_zarr_models import open_ome_zarr
    from ome_zarr_models.v05 import ImageLabel, Labels

    if image:
        frame = Frame.from_downsample((4, 4), (0.5, 0.5))
        create_image(open_store(store), "slide", Pyramid((175, 275), 512, 3), frame)
    wsi_unet.find_objects(store, split=SPLIT, object_labels=True)
    root = zarr.open_group(store, mode="r")
    for path, kind in {"labels": Labels, "labels/nuclei.objects": ImageLabel}.items():
        group = root[path]
        assert isinstance(group, zarr.Group)
        assert isinstance(open_ome_zarr(group), kind)
    listed = root["labels"]
    assert isinstance(listed, zarr.Group)
    members = dict(listed.members(max_depth=None))  # warns of what isn't a node
    assert "nuclei.objects/1" in members
    opened = napari_layers(str(store if image else store / "labels/nuclei.objects"))
    assert [kind for _, _, kind in opened] == (
        ["image", "labels", "labels"] if image else ["labels"]
    )
    (levels,) = [levels for levels, _, _ in opened if levels[0].dtype == np.uint32]
    assert np.array_equal(levels[0].compute(), draw(store))


def test_nothing_takes_it_for_a_label_group(store: Path, tmp_path: Path) -> None:
    wsi_unet.find_objects(store, split=SPLIT, object_labels=True)
    opened = open_store(store)
    assert read_label_names(opened) == ["nuclei"]
    assert read_object_images(opened) == ["nuclei.objects"]
    assert wsi_unet.open_labels(store).name == "nuclei"
    with pytest.raises(OutputError, match=r"no labels 'nuclei\.objects', only nuclei"):
        wsi_unet.open_labels(store, "nuclei.objects")
    with pytest.raises(OutputError, match=r"no labels 'nuclei\.objects', only nuclei"):
        wsi_unet.find_objects(store, label="nuclei.objects")
    assert [each.label for each in wsi_unet.find_objects(store, split=SPLIT).labels] == ["nuclei"]
    assert wsi_unet.open_objects(store).count_rows()
    assert wsi_unet.write_overlay(store, tmp_path / "o.png").exists()
    scores = wsi_unet.evaluate(store, store)
    assert [each.name for each in scores.classes] == ["background", "nucleus", "tumour"]
    create_labels(opened, "more", Pyramid((700, 1100), 512, 3), Frame((1, 1), (0, 0), None), [], {})
    assert read_label_names(opened) == ["nuclei", "more"]
    assert read_object_images(opened) == ["nuclei.objects"]


def test_another_table_replaces_or_removes_it(store: Path, labels: shapes.Labels) -> None:
    wsi_unet.find_objects(store, split=SPLIT, object_labels=True)
    wsi_unet.find_objects(store, object_labels=True)
    check_image(store)
    wsi_unet.find_objects(store, split=SPLIT)
    assert read_object_images(open_store(store)) == []
    assert not (store / "labels/nuclei.objects").exists()
    assert not (store / ".wsi_unet/nuclei/objects/nuclei/image").exists()
    wsi_unet.find_objects(store, split=SPLIT, object_labels=True)
    changed = labels.copy()
    changed[20:30, 20:30] = 2
    write_store(store, changed)
    wsi_unet.find_objects(store, split=SPLIT, object_labels=True)
    check_image(store)


def test_only_what_is_missing_or_damaged_is_painted(
    store: Path, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    painted, paint = [], label_image_module.paint_block

    def watched(objects: Any, numbering: Any, block: Any) -> Any:
        painted.append(block)
        return paint(objects, numbering, block)

    monkeypatch.setattr(label_image_module, "paint_block", watched)
    wsi_unet.find_objects(store, split=SPLIT, object_labels=True)
    assert sorted(painted) == [(row, column) for row in range(2) for column in range(3)]
    assert array_objects(store) == expected
    painted.clear()
    wsi_unet.find_objects(store, split=SPLIT, object_labels=True)
    assert not painted
    image = store / "labels/nuclei.objects"
    (image / "0/c/1/1").write_bytes(b"torn")
    (image / "0/c/0/2").unlink()
    (image / "1/c/0/0").unlink()
    (store / ".wsi_unet/nuclei/objects/nuclei/image/1.0.json").write_text("{")
    wsi_unet.find_objects(store, split=SPLIT, object_labels=True)
    assert sorted(painted) == [(0, 2), (1, 0), (1, 1)]
    assert array_objects(store) == expected
    (image / "zarr.json").write_text("{")
    painted.clear()
    wsi_unet.find_objects(store, split=SPLIT, object_labels=True)
    assert len(painted) == 6
    assert array_objects(store) == expected


KILLED = """
import os, signal, sys
import wsi_unet
from wsi_unet.storage import local_store

output, fatal, split = sys.argv[1], int(sys.argv[2]), sys.argv[3]
count = 0

def watch(change):
    def watched(target, *rest, **options):
        global count
        if "objects" in str(target) + str(rest):
            count += 1
            if count == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
        return change(target, *rest, **options)
    return watched

for name in ("replace", "rename", "unlink"):
    setattr(os, name, watch(getattr(os, name)))
wsi_unet.find_objects(output, split=split, object_labels=True)
print(count)
"""


def run_killed(store: Path, fatal: int) -> int:
    done = warm.run([sys.executable, "-c", KILLED, str(store), str(fatal), SPLIT], check=False)
    return done.returncode


@pytest.mark.parametrize("before", ["nothing", "another table"])
def test_killed_anywhere_the_same_command_completes_it(
    tmp_path: Path, labels: shapes.Labels, expected: dict[str, str], before: str
) -> None:
    """Kills are between the stages, and from the first document of the image to the list."""
    made = write_store(tmp_path / "made.ome.zarr", labels)
    wsi_unet.find_objects(made, split=SPLIT if before == "nothing" else "none", object_labels=True)
    if before == "nothing":  # the table is there, its image isn't
        shutil.rmtree(made / "labels/nuclei.objects")
        shutil.rmtree(made / ".wsi_unet/nuclei/objects/nuclei/image")
        listed = {"ome": {"version": "0.5", "labels": ["nuclei"]}, "labels": ["nuclei"]}
        group = {"zarr_format": 3, "node_type": "group", "attributes": listed}
        (made / "labels/zarr.json").write_text(json.dumps(group, indent=1))
    fatal, step = 1, 9 if before == "nothing" else 19
    while True:
        store = tmp_path / f"killed-{fatal}.ome.zarr"
        shutil.copytree(made, store)
        code = run_killed(store, fatal)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        if read_object_images(open_store(store)):
            check_image(store)
        assert wsi_unet.find_objects(store, split=SPLIT, object_labels=True).images
        assert array_objects(store) == expected
        assert not temporaries(store)
        shutil.rmtree(store)
        fatal += step
    assert fatal > 20


def test_an_interruption_keeps_what_is_painted(
    store: Path, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsi_unet.segmentation.object_images.PROGRESS_SECONDS", 0.0)

    def interrupt(progress: Any) -> None:
        if progress.phase == "painting objects" and progress.blocks_done == 2:
            raise KeyboardInterrupt

    report = wsi_unet.find_objects(store, split=SPLIT, object_labels=True, on_progress=interrupt)
    assert (report.state, report.images) == ("interrupted", ())
    assert report.labels[0].left == 0
    assert read_object_images(open_store(store)) == []
    markers = store / ".wsi_unet/nuclei/objects/nuclei/image"
    assert len([*markers.iterdir()]) >= 2
    assert wsi_unet.find_objects(store, split=SPLIT, object_labels=True).images
    assert array_objects(store) == expected


def test_labels_of_a_run_keep_their_name(store: Path) -> None:
    opened = open_store(store)
    pyramid, frame = Pyramid((700, 1100), 512, 3), Frame((0.5, 0.5), (0.0, 0.0), "micrometer")
    create_labels(opened, "nuclei.objects", pyramid, frame, [], {})
    with pytest.raises(OutputError, match=r"'labels/nuclei\.objects' are the labels of a run"):
        wsi_unet.find_objects(store, label="nuclei", object_labels=True)
    assert wsi_unet.open_objects(store, "nuclei").count_rows()
    assert read_label_names(opened) == ["nuclei", "nuclei.objects"]


def test_a_bucket_holds_the_same(bucket: str, store: Path, expected: dict[str, str]) -> None:
    remote, local = open_store(f"{bucket}/out.ome.zarr"), open_store(store)
    for key in list(local.list("")):
        remote.put(key, local.get(key) or b"")
    wsi_unet.find_objects(str(remote), split=SPLIT, object_labels=True)
    wsi_unet.find_objects(store, split=SPLIT, object_labels=True)
    keys = list(local.list("labels"))
    assert sorted(remote.list("labels")) == sorted(keys)
    for key in keys:
        assert remote.get(key) == local.get(key), key


def test_a_run_goes_on_beside_it_and_overwriting_removes_it(tmp_path: Path) -> None:
    image = textured(700, 900)
    slide = write_png(tmp_path / "slide.png", image)
    balanced_model(UNetConfig(depth=1, base_width=4), image, tmp_path / "model")

    def segment(**options: Any) -> wsi_unet.Report:
        return wsi_unet.segment(slide, out, tmp_path / "model", **OPTIONS, **options)

    out = tmp_path / "out"
    segment(outputs=("labels", "objects"))
    (label,) = read_label_names(open_store(out))
    wsi_unet.find_objects(out, object_labels=True)
    assert read_object_images(open_store(out)) == [f"{label}.objects"]
    before = array_objects(out)
    again = segment(outputs=("labels", "objects"))
    assert (again.state, again.blocks.resumed, again.blocks.total) == ("finished", 4, 4)
    assert array_objects(out) == before
    (status,) = [each for each in wsi_unet.run_status(out, verify=True) if each.model]
    assert (status.groups, status.state) == ((label,), "finished")
    assert segment(overwrite=True).state == "finished"
    assert read_object_images(open_store(out)) == []
    assert not [key for key in open_store(out).list("") if ".objects" in key or "/objects/" in key]


def test_the_command(store: Path) -> None:
    arguments = ["objects", str(store), "--split", SPLIT, "--object-labels"]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    assert "painted labels/nuclei.objects" in done.stdout
    document = json.loads(CliRunner().invoke(cli, [*arguments, "--json"]).stdout)
    assert document["images"] == ["nuclei.objects"]
    check_image(store)
