"""Stored objects painted back into pixels against the objects of the whole image."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from objects import oracle, shapes
from objects.shapes import InMemory, Labels
from objects.test_finding import HEIGHTS, SHAPES, SPLIT

from wsi_unet.errors import OutputError
from wsi_unet.geometry import BlockGrid, Box
from wsi_unet.labels.pyramid import UINT32
from wsi_unet.labels.shards import ShardRecord
from wsi_unet.objects.faces import Faces
from wsi_unet.objects.finding import find_objects_of_block
from wsi_unet.objects.joining import join_faces
from wsi_unet.objects.painting import edges as edges_module
from wsi_unet.objects.painting.edges import VerticalEdges, paint
from wsi_unet.objects.painting.label_image import paint_block
from wsi_unet.objects.painting.numbering import DenseNumbering
from wsi_unet.objects.painting.stored import StoredObjects, number_by_class, number_by_identity
from wsi_unet.objects.reach import PartReach
from wsi_unet.objects.records import PartMarker, StageFiles, StageRecord
from wsi_unet.objects.rule import ClassRule, ObjectRule
from wsi_unet.objects.search import LARGEST_BOX, Search
from wsi_unet.objects.table import TableFrame, encode_part, make_table
from wsi_unet.storage.local_store import LocalStore

NONE = "0" * 64


def store_objects(
    folder: Path,
    labels: Labels,
    side: int,
    rules: dict[int, ClassRule],
    downsample: tuple[float, float] = (1.0, 1.0),
    largest_box: int = LARGEST_BOX,
) -> StoredObjects:
    """Find objects in blocks of any side, and store their parts."""
    grid, pixels = BlockGrid((labels.shape[0], labels.shape[1]), side), InMemory(labels)
    classes = {value: shapes.NAMES[value] for value in rules}
    boundaries = ObjectRule({shapes.NAMES[v]: r for v, r in rules.items()}).find_boundaries(classes)
    search = Search(grid, rules, (0.5, 0.5), largest_box, margin=8, boundaries=boundaries)
    faces = {i: Faces.find(pixels.labels(grid.core(i)), grid, i) for i in grid}
    owned = join_faces(grid, {i: each.without(boundaries.values()) for i, each in faces.items()})
    frame = TableFrame(
        columns=labels.shape[1], downsample=downsample, pixel_size=(0.5, 0.5), micrometres=True,
        classes=classes, rules=rules, fingerprint="f", model="m",
    )  # fmt: skip
    files, markers = StageFiles(LocalStore(folder), "nuclei", "nuclei"), {}
    for block in grid:
        found = find_objects_of_block(pixels, search, block, owned.get(block, []))
        if len(found):
            data = encode_part(make_table(found, frame), {"downsample": downsample})
            markers[block] = PartMarker(
                inputs=NONE, file=ShardRecord.from_shard(data), classes={},
                reach=PartReach.of(found, side),
            )  # fmt: skip
            files.write_part(block, data, markers[block])
    record = StageRecord(signature=NONE, rules={}, labels_finished="t", parts=len(markers))
    return StoredObjects(files.store, files, record, grid, markers)


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def paint_all(objects: StoredObjects) -> NDArray[np.int64]:
    """Return the dense numbers of all pixels, painted block by block."""
    numbering = DenseNumbering(objects)
    painted = np.zeros(objects.grid.shape, np.int64)
    for block in objects.grid:
        pixels = paint_block(objects, numbering, block)
        assert pixels.dtype == np.uint32
        painted[objects.grid.core(block).slices()] = pixels
    assert painted.max(initial=0) == numbering.total
    return painted


@pytest.mark.parametrize("side", [32, 48, 100])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_shapes(folder: Path, shape: Any, side: int) -> None:
    labels = shape(100)
    objects = store_objects(folder, labels, side, SPLIT)
    assert (paint_all(objects) == oracle.find(labels, HEIGHTS, LARGEST_BOX).numbers).all()


@pytest.mark.parametrize("downsample", [(2.0, 2.0), (1.6, 3.7), (1 / 3, 0.7)], ids=str)
def test_resampled_labels(folder: Path, downsample: tuple[float, float]) -> None:
    """Outlines are in pixels of the slide, and whole numbers again in those of the labels."""
    labels = shapes.touching_discs(90)
    objects = store_objects(folder, labels, 32, SPLIT, downsample)
    assert (paint_all(objects) == oracle.find(labels, HEIGHTS, LARGEST_BOX).numbers).all()


def test_components_that_are_too_large_to_be_split(folder: Path) -> None:
    labels = shapes.touching_discs(100)
    labels[::9] = 1
    objects = store_objects(folder, labels, 32, SPLIT, largest_box=40 * 40)
    assert (paint_all(objects) == oracle.find(labels, HEIGHTS, 40 * 40).numbers).all()


def test_interiors_that_have_grown(folder: Path) -> None:
    labels = shapes.cells(96)
    rule = ClassRule(split="interior", boundary="border", growth=1.5)
    objects = store_objects(folder, labels, 32, {1: rule, 2: rule, 3: ClassRule()})
    interiors = np.where(labels == 3, 0, labels).astype(np.uint8)
    whole = oracle.find(interiors, {}, LARGEST_BOX)
    grown = oracle.grow(whole, labels, {1: (3, "1.5"), 2: (3, "1.5")}, ("0.5", "0.5"))
    assert (paint_all(objects) == grown.numbers).all()
    assert (grown.numbers != whole.numbers).any()


def test_dropped_objects_are_background(folder: Path) -> None:
    labels = shapes.touching_discs(80)
    rules = dict.fromkeys((1, 2), ClassRule(min_area=5))
    whole = oracle.find(labels, {}, LARGEST_BOX).numbers
    kept = [number for number in np.unique(whole) if (whole == number).sum() * 0.25 >= 5 and number]
    expected = np.searchsorted(kept, whole) + 1
    expected[~np.isin(whole, kept)] = 0
    assert len(kept) < whole.max()
    assert (paint_all(store_objects(folder, labels, 32, rules)) == expected).all()


@settings(max_examples=15, deadline=None)
@given(
    hnp.arrays(
        np.uint8,
        st.tuples(st.integers(1, 80), st.integers(1, 80)),
        elements=st.sampled_from([0, 0, 1, 1, 1, 2]),
    ),
    st.integers(32, 50),
    st.booleans(),
    st.data(),
)
def test_random_labels_and_windows(
    labels: Labels, side: int, splits: bool, data: st.DataObject
) -> None:
    rules, heights = (SPLIT, HEIGHTS) if splits else (shapes.NO_RULES, {})
    with tempfile.TemporaryDirectory() as made:
        objects = store_objects(Path(made), labels, side, rules)
        whole = oracle.find(labels, heights, LARGEST_BOX)
        assert (paint_all(objects) == whole.numbers).all()
        rows, columns = (
            sorted(data.draw(st.lists(st.integers(0, edge), min_size=2, max_size=2, unique=True)))
            for edge in labels.shape
        )
        box = Box(rows[0], columns[0], rows[1], columns[1])
        expected = whole.numbers[box.slices()]
        assert (
            objects.paint(box, DenseNumbering(objects).number, np.dtype(np.uint32)) == expected
        ).all()
        ids = np.array([0, *(y * labels.shape[1] + x + 1 for y, x in whole.first)])
        assert (objects.paint(box, number_by_identity, np.dtype(np.uint64)) == ids[expected]).all()
        classed = objects.paint(box, number_by_class, np.dtype(np.uint64))
        assert (classed & np.uint64(255) == np.array([0, *whole.values])[expected]).all()
        assert (classed >> np.uint64(8) == ids[expected]).all()


def test_long_edges_and_many_pixels_are_taken_in_pieces(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = np.zeros((1300, 40), np.uint8)
    labels[3:1297, 5:20] = 1
    labels[600:1100, 10:12] = 0
    labels[::7, 30] = 2
    monkeypatch.setattr(edges_module, "AT_ONCE", 100)
    objects = store_objects(folder, labels, 64, shapes.NO_RULES)
    assert (paint_all(objects) == oracle.find(labels, {}, LARGEST_BOX).numbers).all()


def test_sums_wrap_around_to_the_largest_numbers() -> None:
    outline = shapely.to_wkb(shapely.box(0, 0, 3, 2), byte_order=1)
    largest = np.array([2**32 - 1], UINT32)
    edges = VerticalEdges.parse([outline], (1.0, 1.0), np.array([6]))
    sums = np.zeros((2, 5), UINT32)
    edges.add(sums, Box(0, 0, 2, 5), largest)
    assert paint(sums).tolist() == [[2**32 - 1] * 3 + [0] * 2] * 2


@pytest.mark.parametrize(
    ("outline", "downsample", "match"),
    [
        (shapely.box(0, 0, 3, 2.5), (1.0, 1.0), "doesn't run along pixels"),
        (shapely.box(0, 0, 3, 2), (2.0, 1.0), None),
        (shapely.box(0, 0, 3, 2), (1.0, 2.0), "doesn't run along pixels"),
        (shapely.Polygon([(0, 0), (2, 0), (2, 2)]), (1.0, 1.0), "doesn't run along pixels"),
        (shapely.box(0, 0, 3, 2, ccw=False), (1.0, 1.0), "another area"),
        (shapely.box(0, 0, 3, 1), (1.0, 1.0), "another area"),
    ],
)
def test_outlines_that_are_not_of_pixels_are_refused(
    outline: shapely.Polygon, downsample: tuple[float, float], match: str | None
) -> None:
    areas, wkb = np.array([6 if match else 3]), shapely.to_wkb(outline)
    if match is None:
        VerticalEdges.parse([wkb], downsample, areas)
        return
    with pytest.raises(ValueError, match=match):
        VerticalEdges.parse([wkb], downsample, areas)


def test_a_damaged_part_is_named(folder: Path) -> None:
    objects = store_objects(folder, shapes.corners(64), 32, shapes.NO_RULES)
    part = folder / "objects/nuclei/0.1.parquet"
    data = part.read_bytes()
    part.write_bytes(data[:-1] + b"\0")
    with pytest.raises(OutputError, match=r"0\.1\.parquet' is damaged \(it isn't what was written"):
        objects.paint(Box(0, 0, 64, 64), number_by_identity, np.dtype(np.uint64))
    part.unlink()
    with pytest.raises(OutputError, match=r"0\.1\.parquet' is damaged"):
        objects.paint(Box(0, 0, 64, 64), number_by_identity, np.dtype(np.uint64))


def test_few_parts_are_read_for_a_small_window(folder: Path) -> None:
    labels = np.zeros((256, 256), np.uint8)
    labels[::16, ::16] = 1
    labels[100:104, 20:180] = 2  # across blocks 0 to 5
    objects = store_objects(folder, labels, 32, shapes.NO_RULES)
    assert objects.find_parts(Box(64, 64, 70, 70)) == [(2, 2)]
    assert objects.find_parts(Box(100, 160, 101, 161)) == [(3, 0), (3, 5)]
