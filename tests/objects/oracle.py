"""Objects of a whole image at once, from definitions: components, distance, flooding, regionprops.

Nothing here cuts an image into blocks, or shares code with what is tested.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull
from skimage.measure import label, perimeter_crofton, regionprops

EIGHT = np.ones((3, 3), np.bool_)
NEIGHBOURS = ((-1, 0), (0, -1), (0, 1), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1))


@dataclass(frozen=True, eq=False)
class Whole:
    """Objects of a whole image.

    Attributes:
        numbers: (h, w) 1 … n in order of first pixels.
        first: (n,) first pixels (y, x), of objects that have grown those of their interiors.
        values: (n,) label values.
        large: (n,) whether the component's bounding box is above the limit.
    """

    numbers: NDArray[np.int64]
    first: list[tuple[int, int]]
    values: list[int]
    large: list[bool]


def find(labels: NDArray[np.uint8], heights: dict[int, float], largest_box: int) -> Whole:
    """Find the objects; heights in px, by label value; a value without one isn't split."""
    components = label(labels, background=0, connectivity=2)  # type: ignore[no-untyped-call]
    parts = np.zeros(labels.shape, np.int64)
    total, large_parts = 0, set()
    for number, (rows, columns) in enumerate(ndimage.find_objects(components), start=1):
        inside = components == number
        value = int(labels[inside][0])
        is_large = (rows.stop - rows.start) * (columns.stop - columns.start) > largest_box
        own = inside.astype(np.int64)
        if value in heights and not is_large:
            own = split(inside, heights[value])
        if is_large:
            large_parts.add(total + 1)
        parts[inside] = own[inside] + total
        total += int(own.max())
    found, first = np.unique(parts[parts > 0], return_index=True)
    order = found[np.argsort(first)]
    lookup = np.zeros(total + 1, np.int64)
    lookup[order] = np.arange(1, len(order) + 1)
    numbers = lookup[parts]
    firsts = [divmod(int(np.argmax(numbers == i + 1)), labels.shape[1]) for i in range(len(order))]
    values = [int(labels[first]) for first in firsts]
    return Whole(numbers, firsts, values, [part in large_parts for part in order.tolist()])


def grow(
    whole: Whole,
    labels: NDArray[np.uint8],
    growths: Mapping[int, tuple[int, str]],
    pixel: tuple[str, str],
) -> Whole:
    """Grow interiors into boundaries: every boundary pixel is compared with every interior pixel.

    Args:
        whole: the objects of the labels less the boundaries.
        labels: (h, w) labels.
        growths: boundary and growth of each class that grows, by label value.
        pixel: (y, x) sides of a pixel, in the unit of the growth; decimals, so that sums are exact.
    """
    sides = [Fraction(side) for side in pixel]
    limits = {value: Fraction(growth) for value, (_, growth) in growths.items()}
    unit = math.lcm(*(each.denominator for each in [*sides, *limits.values()]))
    height, width = (int(side * unit) for side in sides)
    claims = np.zeros(labels.shape, np.int64)
    for boundary in {value for value, _ in growths.values()}:
        classes = [value for value, (own, _) in growths.items() if own == boundary]
        interior = np.argwhere(np.isin(labels, classes))  # row by row
        for y, x in np.argwhere(labels == boundary) if len(interior) else ():
            square = ((interior - (y, x)) ** 2 * (height**2, width**2)).sum(axis=1)
            at = tuple(interior[np.argmin(square)])  # the first of several
            number = whole.numbers[at]
            near = square.min() <= int(limits[int(labels[at])] * unit) ** 2
            claims[y, x] = number if near and not whole.large[number - 1] else 0
    numbers = whole.numbers.copy()
    for number, box in enumerate(ndimage.find_objects(numbers + claims), start=1):
        own = whole.numbers[box] == number
        pieces, _ = ndimage.label(own | (claims[box] == number), EIGHT)
        numbers[box][np.isin(pieces, pieces[own])] = number
    return replace(whole, numbers=numbers)


def split(inside: NDArray[np.bool_], h: float) -> NDArray[np.int64]:
    """Split one component (h, w) by flooding from the maxima that rise by more than `h`."""
    distance = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
    seeds = np.zeros(inside.shape, np.int64)
    count = 0
    for top in np.unique(distance[inside]):
        domes, found = ndimage.label(inside & (distance >= top - h), EIGHT)
        highest = ndimage.maximum(distance, domes, range(1, found + 1))
        for dome in np.flatnonzero(np.atleast_1d(highest) == top) + 1 if found else ():
            count += 1
            seeds[domes == dome] = count
    return flood(inside, seeds, distance)


def flood(
    inside: NDArray[np.bool_], seeds: NDArray[np.int64], distance: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Flood from seeds, farthest pixels first; of equal ones that which was reached first.

    Water that has passed a saddle keeps its level behind it.
    """
    parts, age = seeds.copy(), 0
    queue: list[tuple[float, int, int, int]] = []

    def reach(y: int, x: int, level: float) -> None:
        nonlocal age
        for dy, dx in NEIGHBOURS:
            v, u = y + dy, x + dx
            if 0 <= v < inside.shape[0] and 0 <= u < inside.shape[1]:
                if not inside[v, u] or parts[v, u]:
                    continue
                age += 1
                parts[v, u] = parts[y, x]
                heapq.heappush(queue, (max(-distance[v, u], level), age, v, u))

    for y, x in zip(*np.nonzero(seeds), strict=True):
        reach(int(y), int(x), -math.inf)
    while queue:
        level, _, y, x = heapq.heappop(queue)
        reach(y, x, level)
    return parts


def measure(whole: Whole, pixel: float) -> list[dict[str, Any]]:
    """Measure every object by scikit-image; `pixel` is the side of a pixel."""
    rows = []
    for region in regionprops(whole.numbers):  # type: ignore[no-untyped-call]
        y0, x0, y1, x1 = region.bbox
        image = region.image
        first = whole.first[region.label - 1]
        perimeter = perimeter_crofton(image, 4) * pixel  # type: ignore[no-untyped-call]
        edge = y0 == 0 or x0 == 0 or y1 == whole.numbers.shape[0] or x1 == whole.numbers.shape[1]
        round_ = math.isclose(region.inertia_tensor[0, 0], region.inertia_tensor[1, 1])
        rows.append(
            {
                "id": first[0] * whole.numbers.shape[1] + first[1],
                "y": region.centroid[0] + 0.5,
                "x": region.centroid[1] + 0.5,
                "area_px": int(region.area),
                "area_um2": region.area * pixel**2,
                "perimeter_um": perimeter,
                "equivalent_diameter_um": region.equivalent_diameter_area * pixel,
                "major_axis_um": region.axis_major_length * pixel,
                "minor_axis_um": region.axis_minor_length * pixel,
                "eccentricity": region.eccentricity,
                "orientation": None if round_ else region.orientation,
                "solidity": region.area / hull_area(image),
                "circularity": 4 * math.pi * region.area * pixel**2 / perimeter**2,
                "cut": bool(edge),
                "large": whole.large[region.label - 1],
                "label": whole.values[region.label - 1],
            }
        )
    return rows


def hull_area(image: NDArray[np.bool_]) -> float:
    """Return the area of the convex hull of the squares of pixels."""
    y, x = np.nonzero(image)
    corners = np.concatenate([np.stack([y + dy, x + dx], 1) for dy in (0, 1) for dx in (0, 1)])
    return float(ConvexHull(corners).volume)
