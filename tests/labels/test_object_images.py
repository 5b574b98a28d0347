"""Label images of objects: uint32 pyramids that are listed beside label groups, and aren't any."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as npst
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from labels.test_pyramid import mode
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from wsi_unet.errors import OutputError
from wsi_unet.geometry import Box
from wsi_unet.labels.contents import read_label_names, read_object_images, read_run_names
from wsi_unet.labels.layout import create_image, create_labels, ensure_root, remove_all, remove_run
from wsi_unet.labels.metadata import Frame, describe_array
from wsi_unet.labels.names import object_image_name
from wsi_unet.labels.object_images import (
    check_free,
    create_object_image,
    list_object_image,
    read_signature,
    remove_object_image,
)
from wsi_unet.labels.pyramid import UINT32, Pyramid, reduce_mode
from wsi_unet.labels.shards import decode_shard, encode_shard
from wsi_unet.labels.writer import build_tail, read_box, write_block
from wsi_unet.storage.local_store import LocalStore

SHAPE = (1100, 700)
PYRAMID = Pyramid(SHAPE, 512, 3)
FRAME = Frame.from_downsample((1, 1), (0.5, 0.5))
GROUP = "labels/nuclei.objects"

Numbers = NDArray[np.uint32]


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    made = LocalStore(tmp_path / "out")
    ensure_root(made, {})
    create_labels(made, "nuclei", PYRAMID, FRAME, [], {})
    return made


def numbers(seed: int = 0) -> Numbers:
    """Return squares with numbers beyond 65535, some of them the largest there are."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 2**32, (275, 175), np.uint32)
    coarse[random.random(coarse.shape) < 0.5] = 0
    coarse[::7] = 2**32 - 1
    found: Numbers = coarse.repeat(4, 0).repeat(4, 1)[: SHAPE[0], : SHAPE[1]]
    return found


@given(npst.arrays(np.uint32, st.tuples(st.integers(1, 9), st.integers(1, 9)),
                   elements=st.sampled_from([0, 1, 2, 70_000, 2**32 - 1])))  # fmt: skip
def test_mode_of_numbers_is_the_brute_force_one(plane: Numbers) -> None:
    expected = [
        [mode(plane[y : y + 2, x : x + 2].ravel().tolist()) for x in range(0, plane.shape[1], 2)]
        for y in range(0, plane.shape[0], 2)
    ]
    reduced = reduce_mode(plane)
    assert reduced.dtype == np.uint32
    assert reduced.tolist() == expected


def test_blocks_and_tail_make_the_pyramid_of_the_whole(store: LocalStore) -> None:
    expected = numbers()
    create_object_image(store, "nuclei", PYRAMID, {"signature": "s"})
    for index in PYRAMID.grid:
        part = expected[PYRAMID.grid.core(index).slices()]
        write_block(store, GROUP, PYRAMID, index, part, reduce_mode, UINT32)
    build_tail(store, GROUP, PYRAMID, reduce_mode, dtype=UINT32)
    for level in range(PYRAMID.levels):
        stored = zarr.open_array(store.root, path=f"{GROUP}/{level}", mode="r")
        assert stored.dtype == np.uint32
        assert np.array_equal(np.asarray(stored[...]), expected)
        box = Box.from_shape(expected.shape)
        ours = read_box(store, GROUP, PYRAMID, level, box, dtype=UINT32)
        assert np.array_equal(ours, expected)
        expected = reduce_mode(expected)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 99))
def test_we_read_what_zarr_encodes(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    root, data = tmp_path_factory.mktemp("array"), numbers(seed)[:1024]
    document = describe_array(data.shape, 1024, UINT32)
    (root / "zarr.json").write_text(json.dumps(document))
    zarr.open_array(root, mode="r+")[...] = data
    theirs = (root / "c/0/0").read_bytes()
    assert np.array_equal(decode_shard(theirs, data.shape, 1024, dtype=UINT32), data)
    assert len(encode_shard(data, 1024) or b"") == len(theirs)
    with pytest.raises(ValueError, match="damaged chunk"):
        decode_shard(theirs, data.shape, 1024)


def test_the_metadata_is_what_zarr_would_write(tmp_path: Path) -> None:
    zarr.create_array(
        tmp_path,
        shape=(5000, 4000),
        chunks=(512, 512),
        shards=(2048, 2048),
        dtype="uint32",
        fill_value=0,
        compressors=ZstdCodec(level=5, checksum=True),
        dimension_names=["y", "x"],
    )
    written = json.loads((tmp_path / "zarr.json").read_text())
    assert describe_array((5000, 4000), 2048, UINT32) == written


def test_a_block_of_another_type_is_refused(store: LocalStore) -> None:
    with pytest.raises(ValueError, match=r"is uint32 512 x 512 px, got uint8"):
        write_block(
            store, GROUP, PYRAMID, (0, 0), np.zeros((512, 512), np.uint8), reduce_mode, UINT32
        )
    with pytest.raises(ValueError, match=r"is uint8 512 x 512 px, got uint32"):
        write_block(store, GROUP, PYRAMID, (0, 0), np.zeros((512, 512), np.uint32), reduce_mode)


def test_an_image_is_listed_but_no_label_group(store: LocalStore) -> None:
    create_object_image(store, "nuclei", PYRAMID, {"signature": "s"})
    assert read_object_images(store) == []
    list_object_image(store, "nuclei")
    list_object_image(store, "nuclei")
    create_labels(store, "tumour", PYRAMID, FRAME, [], {})
    listed = json.loads((store.root / "labels/zarr.json").read_text())["attributes"]
    assert listed["labels"] == listed["ome"]["labels"] == ["nuclei", "tumour", "nuclei.objects"]
    assert read_label_names(store) == ["nuclei", "tumour"]
    assert read_run_names(store) == ["nuclei", "tumour"]
    assert read_object_images(store) == ["nuclei.objects"]
    assert read_signature(store, "nuclei", PYRAMID) == "s"
    assert read_signature(store, "nuclei", Pyramid(SHAPE, 1024, 3)) is None
    assert read_signature(store, "tumour", PYRAMID) is None


def test_the_longest_name_has_an_image_too(store: LocalStore) -> None:
    name = "x" * 64
    create_labels(store, name, PYRAMID, FRAME, [], {})
    create_object_image(store, name, PYRAMID, {"signature": "s"})
    list_object_image(store, name)
    assert read_label_names(store) == ["nuclei", name]
    assert read_object_images(store) == [object_image_name(name)]


@pytest.mark.parametrize("remove", [remove_object_image, remove_run])
def test_removing_it_leaves_nothing(store: LocalStore, remove: Any) -> None:
    before = {*store.list("labels")}
    for listed in (False, True):
        create_object_image(store, "nuclei", PYRAMID, {"signature": "s"})
        if listed:
            list_object_image(store, "nuclei")
        remove(store, "nuclei")
        assert not [*store.list(GROUP)]
        assert read_object_images(store) == []
        if remove is remove_object_image:
            assert {*store.list("labels")} == before
        create_labels(store, "nuclei", PYRAMID, FRAME, [], {})
    create_object_image(store, "nuclei", PYRAMID, {"signature": "s"})
    list_object_image(store, "nuclei")
    remove_all(store)
    assert not [*store.list("labels")]


def test_another_run_s_labels_keep_their_image(store: LocalStore) -> None:
    create_labels(store, "tumour", PYRAMID, FRAME, [], {})
    for label in ("nuclei", "tumour"):
        create_object_image(store, label, PYRAMID, {"signature": "s"})
        list_object_image(store, label)
    remove_run(store, "nuclei")
    assert read_label_names(store) == ["tumour"]
    assert read_object_images(store) == ["tumour.objects"]
    assert [*store.list("labels/tumour.objects")]


def test_labels_of_that_name_are_never_taken_for_one(store: LocalStore) -> None:
    """A multi-label model may have a class "objects"."""
    create_object_image(store, "nuclei", PYRAMID, {"signature": "s"})
    list_object_image(store, "nuclei")
    write_block(store, GROUP, PYRAMID, (0, 0), np.ones((512, 512), np.uint32), reduce_mode, UINT32)
    create_labels(store, "nuclei.objects", PYRAMID, FRAME, [], {})
    assert read_label_names(store) == ["nuclei", "nuclei.objects"]
    assert read_object_images(store) == []
    assert not [key for key in store.list(GROUP) if "/c/" in key]
    with pytest.raises(OutputError, match=r"'labels/nuclei\.objects' are the labels of a run"):
        check_free(store, "nuclei")
    remove_object_image(store, "nuclei")
    assert [*store.list(GROUP)]


@pytest.mark.parametrize("first", ["image", "objects"])
def test_it_names_the_image_that_it_lies_over(tmp_path: Path, first: str) -> None:
    store = LocalStore(tmp_path / "out")
    ensure_root(store, {})
    create_labels(store, "nuclei", PYRAMID, FRAME, [], {})

    def add_objects() -> None:
        create_object_image(store, "nuclei", PYRAMID, {"signature": "s"})
        list_object_image(store, "nuclei")

    if first == "objects":
        add_objects()
    create_image(store, "slide", PYRAMID, FRAME)
    if first == "image":
        add_objects()
    attributes = json.loads((store.root / f"{GROUP}/zarr.json").read_text())["attributes"]
    assert attributes["ome"]["image-label"] == {"source": {"image": "../../"}}
    assert attributes["wsi_unet"] == {"signature": "s"}
