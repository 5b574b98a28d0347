"""Finished stores in which a document or a shard was changed: one clear line or the right result.

Whatever a store says, each way of using it raises our own errors only, nothing beside it changes,
and `segment` gives the undisturbed result or refuses.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.oracle import balanced_model, textured, write_png
from support.runs import CONFIG, OPTIONS, Study, array_objects, every_file

import wsi_unet
from wsi_unet.cohorts.status import read_cohort_status
from wsi_unet.errors import OutputError, WsiUnetError
from wsi_unet.labels.progress import Progress
from wsi_unet.labels.reading import open_image
from wsi_unet.segmentation.status import read_writer
from wsi_unet.storage.opening import open_store

Change = Callable[[Path], object]

ROOT, LIST, GROUP = "zarr.json", "labels/zarr.json", "labels/random/zarr.json"
PROBABILITY, ARRAY = "probability/random/zarr.json", "labels/random/0/zarr.json"
RUN, IMAGE_RUN = ".wsi_unet/random/run.json", ".wsi_unet/image/run.json"
MARKER, TAIL = ".wsi_unet/random/blocks/0.1.json", ".wsi_unet/random/tail.json"
IMAGE_MARKER, FAILURE = ".wsi_unet/image/blocks/0.0.json", ".wsi_unet/random/failures/0.0.json"
LOCK, MASK, SHARD = ".wsi_unet/lock.json", ".wsi_unet/random/mask.png", "labels/random/0/c/0/1"
DOCUMENTS = (ROOT, LIST, GROUP, PROBABILITY, ARRAY, RUN, IMAGE_RUN, MARKER, TAIL, IMAGE_MARKER)
READ_ALIKE = (GROUP, RUN, MARKER)
"""Documents that stand for the others where all that matters is that they can't be parsed."""


def write(key: str, content: bytes) -> Change:
    def change(store: Path) -> None:
        (store / key).parent.mkdir(parents=True, exist_ok=True)
        (store / key).write_bytes(content)

    return change


def put(key: str, where: str, value: Any) -> Change:
    """Change a value inside a JSON document: "parameters/levels"."""

    def change(store: Path) -> None:
        document = json.loads((store / key).read_bytes())
        *way, last = (int(part) if part.isdecimal() else part for part in where.split("/"))
        inner = document
        for part in way:
            inner = inner[part]
        inner[last] = value
        (store / key).write_text(json.dumps(document))

    return change


def replace_by(key: str, make: Callable[[Path], object]) -> Change:
    def change(store: Path) -> None:
        path = store / key
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        make(path)

    return change


def link(key: str, target: str) -> Change:
    return replace_by(key, lambda path: path.symlink_to(target))


def flip(key: str, position: int) -> Change:
    def change(store: Path) -> None:
        data = bytearray((store / key).read_bytes())
        data[position] ^= 0x10
        (store / key).write_bytes(data)

    return change


def shards(change: Callable[[dict[str, Any]], object]) -> Change:
    def change_all(store: Path) -> None:
        document = json.loads((store / MARKER).read_bytes())
        change(document["shards"])
        (store / MARKER).write_text(json.dumps(document))

    return change_all


DEEP = b"[" * 100_000
HUGE = 2**33
LEVELS, SHAPE = "parameters/levels", "parameters/sampling/shape"
CHANGES: dict[str, Change] = {
    **{f"empty {key}": write(key, b"") for key in READ_ALIKE},
    **{f"deep {key}": write(key, DEEP) for key in DOCUMENTS},
    **{f"list {key}": write(key, b"[]") for key in READ_ALIKE},
    **{f"null {key}": write(key, b'{"attributes": null, "shards": null}') for key in READ_ALIKE},
    **{f"bytes {key}": write(key, b"\xff\xfe\0{") for key in READ_ALIKE},
    **{f"large {key}": write(key, b" " * (17 << 20)) for key in (ROOT, RUN, MARKER, LOCK)},
    **{f"pipe {key}": replace_by(key, os.mkfifo) for key in (ROOT, RUN, MARKER, SHARD, LOCK)},
    **{f"link {key}": link(key, "/dev/zero") for key in (*DOCUMENTS, SHARD, LOCK, MASK)},
    "folder labels": link("labels", "../beside/labels"),
    "folder progress": link(".wsi_unet", "../beside/.wsi_unet"),
    "folder temporaries": link(".wsi_unet/.tmp", "../../beside"),
    "folder arrays": link("labels/random/0", "../../../beside/labels/random/0"),
    "escaping name": put(LIST, "attributes/ome/labels", ["../../beside/labels/random"]),
    "escaping second name": put(
        LIST, "attributes/ome/labels", ["random", "../../../beside/labels/random"]
    ),
    "many names": put(LIST, "attributes/ome/labels", [f"n{i}" for i in range(5000)]),
    "escaping run": put(GROUP, "attributes/wsi_unet/run", "../../beside"),
    "number as run": put(GROUP, "attributes/wsi_unet/run", 7),
    "null slide": put(ROOT, "attributes/wsi_unet/slide", None),
    "number as slide": put(ROOT, "attributes/wsi_unet/slide", 5),
    "number as ours": put(GROUP, "attributes/wsi_unet", 5),
    "list as version": put(ROOT, "attributes/wsi_unet/format_version", [1] * 100),
    "null finished": put(GROUP, "attributes/wsi_unet/finished", None),
    "other colors": put(GROUP, "attributes/ome/image-label/colors/1/rgba", [1, 2, 3, 255]),
    "wrong colors": put(GROUP, "attributes/ome/image-label/colors/1/rgba", [1, 2, 300, "x"]),
    "other classes": put(GROUP, "attributes/ome/image-label/properties/1/class", "tumour"),
    "no properties": put(GROUP, "attributes/ome/image-label/properties", []),
    "negative area": put(GROUP, "attributes/ome/image-label/properties/1/area_mm2", -249.9),
    "no datasets": put(GROUP, "attributes/ome/multiscales/0/datasets", []),
    "zero scale": put(
        GROUP,
        "attributes/ome/multiscales/0/datasets/0/coordinateTransformations/0/scale",
        [0, 0],
    ),
    "no channels": put(PROBABILITY, "attributes/ome/omero/channels", []),
    "many channels": put(PROBABILITY, "attributes/ome/omero/channels", [{"label": "a"}] * 9000),
    "huge array": put(ARRAY, "shape", [HUGE, HUGE]),
    "large array": put(ARRAY, "shape", [2**25, 2**25]),
    "huge chunks": put(ARRAY, "chunk_grid/configuration/chunk_shape", [HUGE, HUGE]),
    "other type": put(ARRAY, "data_type", "float64"),
    "other codec": put(ARRAY, "codecs", [{"name": "bytes"}]),
    "huge sampling": put(RUN, SHAPE, [HUGE, HUGE]),
    "many blocks": put(RUN, SHAPE, [2**26, 2**26]),
    "bool in shape": put(RUN, SHAPE, [700, True]),
    "text in shape": put(RUN, SHAPE, ["700", "600"]),
    "zero downsample": put(RUN, "parameters/sampling/downsample", [0.0, 0.0]),
    "many levels": put(RUN, LEVELS, 10**9),
    "no levels": put(RUN, LEVELS, 0),
    "another level": put(RUN, LEVELS, 1),
    "zero block": put(RUN, "parameters/block", 0),
    "odd block": put(RUN, "parameters/block", 600),
    "another block": put(RUN, "parameters/block", 1024),
    "zero tile": put(RUN, "parameters/tile", 0),
    "odd tile": put(RUN, "parameters/tile", 3),
    "escaping label": put(RUN, "parameters/label", "../../beside"),
    "another label": put(RUN, "parameters/label", "other"),
    "escaping groups": put(RUN, "parameters/groups", ["../../../beside/labels/random"]),
    "escaping record": put(RUN, "name", "../beside"),
    "another record": put(RUN, "name", "image"),
    "another device": put(RUN, "parameters/device", "cuda:99999999"),
    "many regions": put(RUN, "parameters/regions", [[0, 0, 700, 600]] * 5000),
    "regions": put(RUN, "parameters/regions", [[0, 0, 700, 600]] * 2),
    "regions beyond": put(RUN, "parameters/regions", [[2**25, 2**25, 2**26, 2**26]]),
    "another slide": put(RUN, "parameters/slide/path", "/dev/zero"),
    "another model": put(RUN, "parameters/model/path", "/dev/zero"),
    "another mask": put(RUN, "parameters/tissue", f"auto:{'0' * 64}"),
    "other values": put(RUN, "parameters/label_values", 200),
    "other channels": put(RUN, "parameters/classes", 200),
    "infinite numbers": write(RUN, b'{"name": "random", "parameters": {"a": Infinity}}'),
    "image shape": put(IMAGE_RUN, SHAPE, [700, True]),
    "smaller image": put(IMAGE_RUN, SHAPE, [100, 600]),
    "huge image": put(IMAGE_RUN, SHAPE, [HUGE, 1]),
    "image block": put(IMAGE_RUN, "parameters/block", 512),
    "image mode": put(IMAGE_RUN, "parameters/mode", "full"),
    "image slide": put(IMAGE_RUN, "parameters/slide/path", "/dev/zero"),
    "no counts": put(MARKER, "counts", []),
    "short counts": put(MARKER, "counts", [1]),
    "long counts": put(MARKER, "counts", [45056, 0, 0, 0]),
    "negative counts": put(MARKER, "counts", [45056, -5]),
    "large counts": put(MARKER, "counts", [10**12, 10**12]),
    "bool counts": put(MARKER, "counts", [True, False]),
    "other counts": put(MARKER, "counts", [45055, 1]),
    "no predicted": put(MARKER, "predicted", 0),
    "much predicted": put(MARKER, "predicted", 10**9),
    "image counts": put(IMAGE_MARKER, "counts", [5]),
    "another block's marker": put(MARKER, "block", [1, 1]),
    "block beyond": put(MARKER, "block", [10**6, 10**6]),
    "endless seconds": put(MARKER, "seconds", {"read": 1e300}),
    "negative seconds": put(MARKER, "seconds", {"read": -5.0}),
    "many seconds": put(MARKER, "seconds", {str(i): 1.0 for i in range(1000)}),
    "overlapping boxes": put(MARKER, "boxes", [[0, 512, 512, 600], [0, 512, 512, 600]]),
    "boxes beyond": put(MARKER, "boxes", [[0, 0, 2**26, 2**26]]),
    "no shards": put(MARKER, "shards", {}),
    "foreign shard": shards(lambda all_: all_.update({"/dev/zero": all_[SHARD]})),
    "escaping shard": shards(lambda all_: all_.update({"../beside/zarr.json": all_.pop(SHARD)})),
    "endless shard": shards(lambda all_: all_[SHARD].update(length=10**15)),
    "odd checksum": shards(lambda all_: all_[SHARD].update(sha256="x" * 5000)),
    "empty shard": shards(lambda all_: all_.update({SHARD: {"length": 0, "sha256": None}})),
    "short tail": put(TAIL, "shards", {}),
    "flipped chunk": flip(SHARD, 20),
    "flipped index": flip(SHARD, -10),
    "flipped checksum": flip(SHARD, -1),
    "flipped image": flip("0/c/0/0/0", 20),
    "torn shard": write(SHARD, b"torn"),
    "failure": write(FAILURE, b'{"block": [0, 0], "error": "\\u001b[2J", "attempts": 1}'),
    "damaged failure": write(FAILURE, b'{"block": [0, 0], "error": 5, "attempts": 1}'),
    "torn lock": write(LOCK, b'{"token":'),
    "foreign file name": write(".wsi_unet/random/blocks/01.1.json", b"{}"),
    "stray file": write("labels/random/0/c/notes.txt", b"mine"),
    "forged mask": write(MASK, b"\x89PNG\r\n\x1a\n" + b"\0" * 100),
}


@dataclass(frozen=True)
class Stores:
    """Changed copies of a finished store, by the name of their change.

    Attributes:
        folder: holds the store as it was, `whole`, a copy that nothing may change, `beside`, and
            the changed copies.
        study: the slide and the model.
        before: every file of `beside` at first.
    """

    folder: Path
    study: Study
    before: dict[str, tuple[int, int, int]]

    def changed(self, name: str, purpose: str) -> Path:
        """Return a fresh copy with a change."""
        # Links in the table lead to `beside`, relative to the store.
        output = self.folder / f"{purpose}-{list(CHANGES).index(name)}"
        if not output.exists():
            shutil.copytree(self.folder / "whole", output)
            CHANGES[name](output)
        return output

    def check_surroundings(self) -> None:
        assert every_file(self.folder / "beside") == self.before


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Stores:
    folder = tmp_path_factory.mktemp("stores")
    image = textured(700, 600)
    study = Study(folder, blocks=4)
    write_png(study.slide, image)
    balanced_model(CONFIG, image, folder / "model")
    report = study.run(study.whole, outputs=("labels", "probabilities"))
    assert report.state == "finished"
    shutil.copytree(study.whole, folder / "beside")
    return Stores(folder, study, every_file(folder / "beside"))


def read_all(output: Path) -> None:
    """Compute whatever can be opened."""
    labels = wsi_unet.open_labels(output, "random")
    assert labels.values.shape == labels.predicted.values.shape


CONSUMERS: dict[str, Callable[[Path], object]] = {
    "status": wsi_unet.run_status,
    "verify": lambda output: wsi_unet.run_status(output, verify=True),
    "writer": read_writer,
    "labels": read_all,
    "coarse labels": lambda output: wsi_unet.open_labels(output, "random", 1).values,
    "probabilities": lambda output: wsi_unet.open_probabilities(output, "random").values,
    "image": lambda output: np.asarray(open_image(output)),
    "overlay": lambda output: wsi_unet.write_overlay(output, output.parent / "o.png", "random"),
    "evaluate": lambda output: wsi_unet.evaluate(
        output, output.parent / "beside", label="random", truth_label="random"
    ),
    "run": lambda output: Progress(open_store(output), "random").read_run(),
    "mask": lambda output: Progress(open_store(output), "random").read_mask(),
    "cohort": lambda output: list(read_cohort_status(output)),
}


def check_line(error: WsiUnetError) -> None:
    assert "\n" not in str(error)
    assert len(str(error)) < 1500


def use(consumer: Callable[[Path], object], output: Path) -> None:
    try:
        consumer(output)
    except WsiUnetError as error:
        check_line(error)


@pytest.mark.parametrize("name", CHANGES)
def test_looking_at_a_changed_store_raises_our_errors_and_changes_nothing(
    stores: Stores, name: str
) -> None:
    output = stores.changed(name, "looked-at")
    before = every_file(output)
    for consumer in CONSUMERS.values():
        use(consumer, output)
    assert every_file(output) == before
    stores.check_surroundings()


SEGMENTED = [name for name in CHANGES if name.split()[0] not in ("bytes", "empty", "list")]
"""Documents that are no JSON or no object are all read alike."""


@pytest.mark.parametrize("name", SEGMENTED)
def test_segment_mends_a_changed_store_or_refuses(stores: Stores, name: str) -> None:
    output = stores.changed(name, "segmented")
    outputs = ("labels", "probabilities")
    # A changed lock may be anybody's, who is waited for.
    if name in (f"large {LOCK}", "torn lock"):
        (output / LOCK).unlink()
    try:
        report = stores.study.run(output, outputs=outputs)
    except (OutputError, wsi_unet.OptionError) as error:
        check_line(error)
    else:
        assert report.state == "finished"
        use(lambda output: wsi_unet.run_status(output, verify=True, forget=True), output)
        if any(status.damaged for status in wsi_unet.run_status(output)) or name.startswith("flip"):
            report = stores.study.run(output, outputs=outputs)
        ours = array_objects(stores.study.whole)
        assert {key: array_objects(output)[key] for key in ours} == ours
        assert all(area.area_mm2 is None or area.area_mm2 >= 0 for area in report.classes)
        assert {status.state for status in wsi_unet.run_status(output, verify=True)} == {"finished"}
    stores.check_surroundings()


@pytest.mark.parametrize("name", ["folder temporaries", "escaping second name", "many blocks"])
def test_overwriting_a_changed_store_stays_inside(stores: Stores, name: str) -> None:
    output = stores.changed(name, "overwritten")
    try:
        stores.study.run(output, overwrite=True)
    except OutputError as error:
        check_line(error)
    stores.check_surroundings()


def test_the_table_changes_what_it_says(stores: Stores) -> None:
    assert OPTIONS["block"] == 512
    assert len(json.loads((stores.study.whole / MARKER).read_bytes())["counts"]) in (2, 3)
