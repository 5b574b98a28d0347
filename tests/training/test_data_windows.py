"""Windows of a field equal the whole: labels, separated objects, weights, components."""

from __future__ import annotations

import math
import pickle
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import label
from support.labelled import blobs, write_geojson, write_store
from support.training_data import (
    CELL,
    GROUND,
    INSTANCES,
    make_image,
    make_instances,
    make_recipe,
    save,
    write_pairs,
)

from wsi_unet.errors import TrainingError
from wsi_unet.geometry import Box
from wsi_unet.training.dataset import DataField, open_fields, opening
from wsi_unet.training.dataset.opening import MemoryBudget
from wsi_unet.training.fields import IGNORED, FieldWindow
from wsi_unet.training.targets.components import ConnectedComponents
from wsi_unet.training.targets.separation import (
    find_boundaries,
    separate_touching,
    separation_weights,
)

SHAPE = (340, 410)
WEIGHTING = {"separation": 10.0, "sigma": 3.0, "part": 2}
PARTED = {"part": 3}
BOUNDARY = {"name": "edge", "reach": 2, "rim": 1}


def spiral(shape: tuple[int, int], width: int = 4) -> NDArray[np.uint8]:
    """Return a map of a long spiral, which nearly touches itself in many places, and of blobs."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    y, x = rows - shape[0] / 2, columns - shape[1] / 2
    turns = np.hypot(y, x) / (4 * width) - np.arctan2(y, x) / (2 * math.pi)
    return np.asarray(turns % 1 < 0.5, np.uint8)


def same(one: FieldWindow, other: FieldWindow) -> bool:
    return all(
        (a == b).all() and a.dtype == b.dtype
        for a, b in (
            (one.image, other.image),
            (one.labels, other.labels),
            (one.separation, other.separation),
        )
    )


def write_truths(folder: Path) -> None:
    """Write an image with every kind of truth."""
    save(folder / "a.png", make_image(SHAPE))
    instances = make_instances(SHAPE, number=90)
    save(folder / "instances.png", instances)
    classes = np.where(instances > 0, 1 + (instances % 2), 0).astype(np.uint8)
    classes[150:] = 2 * spiral((SHAPE[0] - 150, SHAPE[1]))
    save(folder / "classes.png", classes)
    write_store(folder / "labels.ome.zarr", classes, classes=("ground", "cell", "gland"))
    rng = np.random.default_rng(1)
    features = []
    for i in range(60):
        angle = np.sort(rng.uniform(0, 2 * np.pi, 12))
        y, x = rng.uniform(0, SHAPE[0]), rng.uniform(0, SHAPE[1])
        radius = rng.uniform(2, 25)
        ring = np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], 1).tolist()
        features.append((["cell", "gland"][i % 2], [[*ring, ring[0]]]))
    write_geojson(folder / "drawn.geojson", features)


TRUTHS: list[dict[str, Any]] = [
    {"labels": "instances.png", "kind": "instances"},
    {"labels": "classes.png"},
    {"labels": "labels.ome.zarr"},
    {"labels": "drawn.geojson"},
    {"labels": "drawn.geojson", "within": "drawn.geojson", "ignore": ["gland"]},
]
THREE = [
    {"name": "ground", "color": "#000000"},
    {"name": "cell", "color": "#ff0000"},
    {"name": "gland", "color": "#00ff00"},
]
EDGE = {"name": "edge", "color": "#0000ff"}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[DataField, DataField]]:
    """Return fields of every kind of truth and several scales: in memory, and read by windows."""
    folder = tmp_path_factory.mktemp("truths")
    write_truths(folder)
    pairs = []
    for truth in TRUTHS:
        for mpp, weighting in ((0.25, WEIGHTING), (0.4, PARTED)):
            data = {"images": "a.png", "mpp": 0.25, **truth}
            classes = [GROUND, CELL] if truth.get("kind") else THREE
            bounded = {"boundary": BOUNDARY, "classes": [*classes, EDGE]}
            sections = bounded if weighting is PARTED else {"classes": classes}
            recipe = make_recipe(data, mpp=mpp, weighting=weighting, **sections)
            (kept,) = open_fields(recipe, folder, MemoryBudget(1 << 30))
            (windowed,) = open_fields(recipe, folder, MemoryBudget(0))
            pairs.append((kept, windowed))
    return pairs


@settings(max_examples=60)
@given(
    number=st.integers(0, 2 * len(TRUTHS) - 1),
    y=st.integers(-120, SHAPE[0]),
    x=st.integers(-120, SHAPE[1]),
    height=st.integers(1, 200),
    width=st.integers(1, 200),
)
def test_a_window_is_a_piece_of_the_whole(
    both: list[tuple[DataField, DataField]], number: int, y: int, x: int, height: int, width: int
) -> None:
    kept, windowed = both[number]
    window = Box(y, x, y + height, x + width)
    assert same(kept.read(window), windowed.read(window))


def test_the_whole_is_what_its_ingredients_give(
    both: list[tuple[DataField, DataField]],
) -> None:
    instances = make_instances(SHAPE, number=90)
    classes = np.where(instances > 0, 1 + (instances % 2), 0)
    classes[150:] = 2 * spiral((SHAPE[0] - 150, SHAPE[1]))
    eight = label(classes, background=0, connectivity=2)  # type: ignore[no-untyped-call]
    for number, objects, labels in ((0, instances, instances > 0), (2, eight, classes)):
        window = both[number][0].read(Box.from_shape(SHAPE))
        separated = separate_touching(objects, 2)
        assert (window.labels == np.where(separated > 0, labels, 0)).all()
        assert (window.separation == separation_weights(separated, 10.0, 3.0)).all()
        assert window.separation.max() > 5


def test_what_is_separated_and_ignored(both: list[tuple[DataField, DataField]]) -> None:
    labels = both[-2][0].read(Box.from_shape(SHAPE)).labels
    assert set(np.unique(labels).tolist()) == {0, 1, IGNORED}


@settings(max_examples=40)
@given(
    seed=st.integers(0, 1000),
    shape=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    chunk=st.integers(1, 40),
    data=st.data(),
)
def test_components_are_those_of_the_whole(
    seed: int, shape: tuple[int, int], chunk: int, data: st.DataObject
) -> None:
    classes = blobs(shape, seed) if seed % 3 else spiral(shape, 2) * np.uint8(1 + seed % 2)
    expected = label(classes, background=0, connectivity=2)  # type: ignore[no-untyped-call]

    def read(box: Box) -> NDArray[np.uint8]:
        return classes[box.slices()]

    components = ConnectedComponents.find(read, shape, chunk)
    y0, x0 = data.draw(st.integers(0, shape[0] - 1)), data.draw(st.integers(0, shape[1] - 1))
    y1, x1 = data.draw(st.integers(y0 + 1, shape[0])), data.draw(st.integers(x0 + 1, shape[1]))
    box = Box(y0, x0, y1, x1)
    found, wanted = components.read(read, box), expected[box.slices()]
    assert ((found > 0) == (wanted > 0)).all()
    pairs = np.unique(np.stack([found.ravel(), wanted.ravel()], 1), axis=0)
    assert len(np.unique(pairs[:, 0])) == len(np.unique(pairs[:, 1])) == len(pairs)


def test_two_arms_of_one_component_are_one_object_however_far_they_meet(tmp_path: Path) -> None:
    """A horseshoe: its arms aren't separated, though no window shows their bend."""
    labels = np.zeros((700, 1400), np.uint8)
    labels[300:320, :1300] = labels[326:346, :1300] = 1
    labels[300:346, 1300:1320] = 1
    save(tmp_path / "a.png", np.zeros((700, 1400, 3), np.uint8))
    save(tmp_path / "t.png", labels)
    recipe = make_recipe({"images": "a.png", "labels": "t.png"}, weighting={"separation": 10.0})
    (field,) = open_fields(recipe, tmp_path, MemoryBudget(0))
    assert not field.read(Box(250, 100, 400, 200)).separation.any()
    labels[:, 1290:] = 0  # now there are two
    save(tmp_path / "t.png", labels)
    (field,) = open_fields(recipe, tmp_path, MemoryBudget(0))
    assert field.read(Box(250, 100, 400, 200)).separation.max() == pytest.approx(
        10 * math.exp(-49 / 50)
    )


@pytest.mark.parametrize("budget", [1 << 30, 0])
def test_points_are_of_their_class_and_all_alike(tmp_path: Path, budget: int) -> None:
    rng = np.random.default_rng(0)
    labels = np.zeros((200, 300), np.uint8)
    labels[rng.integers(0, 200, 12), rng.integers(0, 300, 12)] = 1
    labels[150:, 100:] = 255
    save(tmp_path / "a.png", make_image((200, 300)))
    save(tmp_path / "t.png", labels)
    recipe = make_recipe({"images": "a.png", "labels": "t.png", "ignore": [255]})
    (field,) = open_fields(recipe, tmp_path, MemoryBudget(budget))
    places = np.argwhere(labels == 1).tolist()
    drawn = [list(field.point(1, rng)) for _ in range(1200)]
    counts = np.array([drawn.count(place) for place in places])
    assert counts.sum() == len(drawn)
    assert (np.abs(counts - 1200 / len(places)) < 5 * math.sqrt(1200 / len(places))).all()
    known = np.array([field.point(None, rng) for _ in range(1500)])
    assert (labels[tuple(known.T)] != 255).all()
    expected = (labels[:100] != 255).sum() / (labels != 255).sum()
    assert abs((known[:, 0] < 100).mean() - expected) < 0.06
    again = [field.point(0, np.random.default_rng(5)) for _ in range(2)]
    assert again[0] == again[1]


def test_areas_hold_all_that_is_known(tmp_path: Path) -> None:
    labels = np.full((2500, 4300), 255, np.uint8)
    labels[100:130, 40:600] = 1
    labels[2049:2300, 1900:4290] = 0
    save(tmp_path / "a.png", np.zeros((*labels.shape, 3), np.uint8))
    save(tmp_path / "t.png", labels)
    recipe = make_recipe({"images": "a.png", "labels": "t.png", "ignore": [255]})
    for budget in (1 << 30, 0):
        (field,) = open_fields(recipe, tmp_path, MemoryBudget(budget))
        covered = np.zeros(labels.shape, int)
        for box in field.areas:
            assert max(box.shape) <= 2048
            covered[box.slices()] += 1
        assert covered.max() == 1
        assert (labels[covered == 0] == 255).all()
        assert covered.sum() < 2 * (labels != 255).sum()


def test_an_outlined_slide_is_sampled_polygon_by_polygon(tmp_path: Path) -> None:
    """A slide too large to be looked at pixel by pixel, with a few small and one large polygon."""
    from support.labelled import rectangle

    import wsi_unet.training.targets.outlines as outlines

    shape = (1500, 2600)
    save(tmp_path / "a.png", np.zeros((*shape, 3), np.uint8))
    boxes = [Box(10, 10, 13, 14), Box(700, 2000, 705, 2003), Box(800, 100, 1000, 500)]
    truth = [("cell", rectangle(box)) for box in boxes[:2]]
    write_geojson(tmp_path / "t.geojson", [*truth, ("gland", rectangle(boxes[2]))])
    recipe = make_recipe({"images": "a.png", "labels": "t.geojson"}, classes=THREE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outlines, "OVERVIEW", 1 << 12)
        patch.setattr(opening, "LARGEST_KEPT", 1 << 12)
        (field,) = open_fields(recipe, tmp_path)
    assert field.amounts[1] == pytest.approx(27, abs=1)
    assert field.amounts[2] == pytest.approx(200 * 400, rel=0.2)
    assert field.amounts[0] == pytest.approx(1500 * 2600, rel=0.1)
    labels = field.read(Box.from_shape(shape)).labels
    rng = np.random.default_rng(0)
    for index in range(3):
        points = np.array([field.point(index, rng) for _ in range(300)])
        assert (labels[tuple(points.T)] == index).all()
        if index == 1:
            assert 80 < (points[:, 0] < 100).sum() < 180  # 12 of 27


def test_polygons_outside_known_regions_count_for_no_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor what lies below smaller polygons; polygons are what large slides are sampled by."""
    from support.labelled import rectangle

    from wsi_unet.training.targets import outlines

    save(tmp_path / "a.png", np.zeros((600, 800, 3), np.uint8))
    cell, gland = Box(100, 100, 160, 160), Box(400, 600, 404, 604)
    write_geojson(tmp_path / "t.geojson", [("cell", rectangle(cell)), ("gland", rectangle(gland))])
    write_geojson(tmp_path / "in.geojson", [("region", rectangle(Box(0, 0, 300, 300)))])
    data = {"images": "a.png", "labels": "t.geojson", "within": "in.geojson"}
    monkeypatch.setattr(outlines, "OVERVIEW", 1 << 12)
    monkeypatch.setattr(opening, "LARGEST_KEPT", 1 << 12)
    (field,) = open_fields(make_recipe(data, classes=THREE), tmp_path)
    assert field.amounts[1] == pytest.approx(3600, rel=0.2)
    assert field.amounts[2] == 0
    with pytest.raises(TrainingError, match="no pixel of class 2"):
        field.point(2, np.random.default_rng(0))


def test_what_is_sampled_does_not_depend_on_the_memory_that_is_free(
    both: list[tuple[DataField, DataField]],
) -> None:
    for kept, windowed in both:
        assert kept.amounts == windowed.amounts
        assert kept.areas == windowed.areas
        for index in (0, 1, None):
            ours, theirs = (
                [field.point(index, np.random.default_rng(seed)) for seed in range(5)]
                for field in (kept, windowed)
            )
            assert ours == theirs


def test_a_rare_class_of_a_pyramid_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "LARGEST_KEPT", 1 << 12)
    labels = blobs((900, 1000), values=2)
    labels[labels == 2] = 0
    labels[400, 500] = 2
    save(tmp_path / "a.png", make_image((900, 1000)))
    write_store(tmp_path / "t.ome.zarr", labels, classes=("ground", "cell", "gland"))
    recipe = make_recipe({"images": "a.png", "labels": "t.ome.zarr"}, classes=THREE)
    (field,) = open_fields(recipe, tmp_path, MemoryBudget(0))
    assert field.point(2, np.random.default_rng(0)) == (400, 500)


def read_some(field: DataField, windows: list[Box]) -> list[FieldWindow]:
    return [field.read(window) for window in windows]


def send_some(field: DataField, windows: list[Box], pipe: Connection) -> None:
    pipe.send(read_some(field, windows))


def test_a_forked_process_opens_slides_itself(tmp_path: Path, example_slide_path: Path) -> None:
    """The threads that decode a slide's tiles don't survive a fork."""
    write_geojson(tmp_path / "t.geojson", [("cell", [[[5, 5], [900, 5], [400, 900], [5, 5]]])])
    data = {"images": str(example_slide_path), "labels": "t.geojson"}
    (field,) = open_fields(make_recipe(data), tmp_path, MemoryBudget(0))
    windows = [Box(100, 200, 900, 1100)]
    expected = read_some(field, windows)
    context = get_context("fork")
    here, there = context.Pipe()
    child = context.Process(target=send_some, args=(field, windows, there), daemon=True)
    child.start()
    assert here.poll(30)
    assert same(here.recv()[0], expected[0])
    child.join()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_read_the_same(tmp_path: Path, method: Literal["fork", "spawn"]) -> None:
    write_truths(tmp_path)
    data = {"images": "a.png", "labels": "labels.ome.zarr"}
    recipe = make_recipe(data, classes=THREE, weighting=WEIGHTING)
    windows = [Box(-3, 5, 90, 100), Box(100, 100, 300, 300)]
    fields = [open_fields(recipe, tmp_path, MemoryBudget(budget))[0] for budget in (1 << 30, 0)]
    expected = [read_some(field, windows) for field in fields]
    context: Any = get_context(method)
    for field, pieces in zip(fields, expected, strict=True):
        here, there = context.Pipe()
        child = context.Process(target=send_some, args=(field, windows, there))
        child.start()  # forked, it inherits what is open here
        assert here.poll(60)
        assert all(same(a, b) for a, b in zip(here.recv(), pieces, strict=True))
        child.join()
        assert not child.exitcode


def test_what_is_pickled_is_small_and_not_open(tmp_path: Path) -> None:
    write_pairs(tmp_path, [(400, 500), (300, 200)])
    fields = open_fields(make_recipe(INSTANCES), tmp_path)
    fields[0].read(Box(0, 0, 10, 10))
    content = pickle.dumps(fields)
    assert len(content) < 10_000
    again = pickle.loads(content)
    window = Box(-5, 3, 200, 230)
    assert all(same(a.read(window), b.read(window)) for a, b in zip(fields, again, strict=True))
    rng, other = np.random.default_rng(3), np.random.default_rng(3)
    assert fields[0].point(1, rng) == again[0].point(1, other)


def test_threads_read_the_same(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    write_truths(tmp_path)
    recipe = make_recipe(
        {"images": "a.png", "labels": "labels.ome.zarr"}, classes=THREE, weighting=WEIGHTING
    )
    windows = [Box(i * 9, i * 7, i * 9 + 60, i * 7 + 50) for i in range(20)]
    for budget in (1 << 30, 0):
        (field,) = open_fields(recipe, tmp_path, MemoryBudget(budget))
        expected = read_some(field, windows)
        field = pickle.loads(pickle.dumps(field))
        with ThreadPoolExecutor(4) as pool:
            assert all(map(same, pool.map(field.read, windows), expected))


def test_distances_are_those_of_an_independent_map(tmp_path: Path) -> None:
    """The paper's term from scipy's distance transforms, one per object."""
    instances = make_instances((90, 110), number=12)
    save(tmp_path / "images" / "a.png", make_image((90, 110)))
    save(tmp_path / "instances" / "a.png", instances)
    recipe = make_recipe(INSTANCES, weighting={"separation": 10.0, "sigma": 5.0})
    (field,) = open_fields(recipe, tmp_path)
    numbers = np.unique(instances)[1:]
    distances = np.sort(
        [ndimage.distance_transform_edt(instances != number) for number in numbers], axis=0
    )
    total = distances[0] + distances[1]
    expected = np.where(
        (instances == 0) & (total <= 22), 10 * np.exp(-(total**2) / (2 * 5.0**2)), 0
    )
    found = field.read(Box(0, 0, 90, 110)).separation
    assert np.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("part", [0, 2])
@pytest.mark.parametrize("kind", ["instances", "classes"])
def test_the_boundary_is_made_from_the_objects(
    kind: Literal["instances", "classes"], part: int, tmp_path: Path
) -> None:
    instances = make_instances(SHAPE, number=90)
    save(tmp_path / "a.png", make_image(SHAPE))
    values = instances if kind == "instances" else (instances > 0).astype(np.uint8)
    save(tmp_path / "t.png", values)
    recipe = make_recipe(
        {"images": "a.png", "labels": "t.png", "kind": kind},
        classes=[GROUND, CELL, EDGE], boundary=BOUNDARY, weighting={"part": part},
    )  # fmt: skip
    (field,) = open_fields(recipe, tmp_path)
    whole = Box.from_shape(SHAPE)
    objects = instances
    if kind == "classes":
        objects = label(instances > 0, connectivity=2)  # type: ignore[no-untyped-call]
    separated = separate_touching(objects, part)
    expected = np.where(find_boundaries(separated, 2, 1), 2, separated > 0)
    assert (field.read(whole).labels == expected).all()
    assert field.amounts[2] == np.count_nonzero(expected == 2)
    assert ((field.number_objects(whole) > 0) == (objects > 0)).all()
