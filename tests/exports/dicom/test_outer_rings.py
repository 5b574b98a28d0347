"""Outer outlines as single rings, against filled components of scipy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy import ndimage
from support.labelled import write_store

import wsi_unet
from wsi_unet.exports.dicom.outer_rings import find_outer_rings


def _measure(ring: NDArray[np.float64]) -> float:
    """Return the area of a ring by the shoelace formula, counter-clockwise in (x, y) positive."""
    x, y = ring.T
    return float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2)


def _find_components(
    labels: NDArray[np.uint8],
) -> list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Return the 8-connected components: with surely enclosed pixels, and with all that may be.

    They differ in background that is enclosed by corners alone.
    """
    numbered, total = ndimage.label(labels, np.ones((3, 3)))
    fill = ndimage.binary_fill_holes
    own = [numbered == number for number in range(1, total + 1)]
    return [(fill(each, np.ones((3, 3))), fill(each)) for each in own]


def test_noise(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    labels = np.zeros((61, 4 * 50), np.uint8)
    for number, share in enumerate((0.3, 0.45, 0.6, 0.75)):
        part = labels[:, 50 * number : 50 * number + 49]
        part[...] = random.random(part.shape) < share
    store = write_store(tmp_path / "a.ome.zarr", labels)
    wsi_unet.find_objects(store)
    table = wsi_unet.open_objects(store).to_table().sort_by("id")
    outlines = shapely.from_wkb(table["geometry"].to_numpy())
    found = find_outer_rings(outlines)
    rings = np.split(found.coordinates, np.cumsum(found.corners)[:-1])
    components = _find_components(labels)
    assert len(rings) == len(outlines) == len(components) > 100
    holes = [any(len(part.interiors) for part in shapely.get_parts(each)) for each in outlines]
    assert found.with_holes == sum(holes) > 1
    y, x = np.indices(labels.shape) + 0.5
    for ring, outline, (least, most) in zip(rings, outlines, components, strict=True):
        assert not np.array_equal(ring[0], ring[-1])
        inside = shapely.contains_xy(shapely.make_valid(shapely.Polygon(ring)), x, y)
        assert abs(_measure(ring)) == np.count_nonzero(inside)
        assert not (inside & ~most).any()
        assert not (least & ~inside).any()
        exteriors = [shapely.Polygon(part.exterior) for part in shapely.get_parts(outline)]
        assert np.array_equal(inside, shapely.contains_xy(shapely.union_all(exteriors), x, y))
        steps = np.abs(np.diff(ring, axis=0, append=ring[:1]))
        assert ((steps == 0).sum(axis=1) == 1).all()


def test_corners_join_parts() -> None:
    parts = shapely.MultiPolygon([shapely.box(0, 0, 2, 2), shapely.box(2, 2, 3, 3)])
    found = find_outer_rings(np.array([parts, shapely.box(5, 5, 6, 6)]))
    assert found.corners.tolist() == [8, 4]
    assert abs(_measure(found.coordinates[:8])) == 5


def test_what_lies_in_a_hole_is_inside() -> None:
    ring = shapely.box(0, 0, 9, 9).difference(shapely.box(2, 2, 5, 5))
    found = find_outer_rings(np.array([shapely.MultiPolygon([ring, shapely.box(3, 3, 4, 4)])]))
    assert (found.corners.tolist(), found.with_holes) == ([4], 1)
    assert abs(_measure(found.coordinates)) == 81


def test_many_parts_take_linear_time() -> None:
    parts = [shapely.box(n, n, n + 1, n + 1) for n in range(5_000)]
    found = find_outer_rings(np.array([shapely.MultiPolygon(parts)]))
    assert found.corners.tolist() == [20_000]
    assert abs(_measure(found.coordinates)) == 5_000
