"""Write the example annotations: outlines of dark, round spots in the example slide.

Needs no model: haematoxylin by colour deconvolution, a local threshold, and a watershed that
splits touching nuclei. See README.md for what the outlines are worth.
"""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import numpy as np
import scipy.ndimage
import skimage.color
import skimage.feature
import skimage.filters
import skimage.measure
import skimage.morphology
import skimage.segmentation
import tiffslide
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
SLIDE = HERE / "CMU-1-Small-Region.svs"
X, Y, SIDE = 1100, 770, 240  # the outlined square, full-resolution pixels
SMALLEST, LARGEST = 60, 1200  # area of a nucleus, pixels of 0.499 µm


def main() -> None:
    """Write the nuclei, and the square that was searched for them, as GeoJSON."""
    with tiffslide.TiffSlide(SLIDE) as slide:
        pixels = slide.read_region((X, Y), 0, (SIDE, SIDE), as_array=True)
    nuclei = [
        _feature("nuclei", ring, "#ffd700")
        for ring in map(_outline, skimage.measure.regionprops(_label_nuclei(pixels)))
    ]
    square = [[X, Y], [X + SIDE, Y], [X + SIDE, Y + SIDE], [X, Y + SIDE], [X, Y]]
    _write(HERE / "nuclei.geojson", nuclei)
    _write(HERE / "annotated-region.geojson", [_feature("annotated region", square, "#808080")])


def _label_nuclei(rgb: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Return numbered nuclei of an image (y, x, RGB)."""
    stain = skimage.filters.gaussian(skimage.color.rgb2hed(rgb)[..., 0], sigma=1.5)
    dark = stain > skimage.filters.threshold_local(stain, 61, offset=-0.001)
    dark &= stain > skimage.filters.threshold_otsu(stain) * 0.8
    dark = skimage.morphology.opening(dark, skimage.morphology.disk(2))
    dark = scipy.ndimage.binary_fill_holes(dark)
    depth = skimage.filters.gaussian(scipy.ndimage.distance_transform_edt(dark), sigma=1.5)
    peaks = skimage.feature.peak_local_max(depth, min_distance=6, labels=dark.astype(int))
    seeds = np.zeros(dark.shape, dtype=np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    labels = skimage.segmentation.watershed(-depth, seeds, mask=dark)
    for nucleus in skimage.measure.regionprops(labels):
        if not SMALLEST <= nucleus.area <= LARGEST or nucleus.solidity < 0.85:
            labels[labels == nucleus.label] = 0
    return labels


def _outline(nucleus: skimage.measure.RegionProperties) -> list[list[float]]:
    """Return the closed outline of a nucleus, full-resolution pixels (x, y)."""
    padded = np.pad(nucleus.image_filled, 1)
    ring = skimage.measure.find_contours(padded.astype(float), 0.5)[0]
    ring = skimage.measure.approximate_polygon(ring, tolerance=0.4)
    top, left = nucleus.bbox[:2]
    # A pixel's centre lies half a pixel from its corner, and the padding is one pixel.
    return [[round(X + left + x - 0.5, 1), round(Y + top + y - 0.5, 1)] for y, x in ring.tolist()]


def _feature(name: str, ring: list[list[float]], color: str) -> dict[str, object]:
    """Return a QuPath annotation with a class and one outline; the same id every time."""
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{name} {ring}")),
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {
            "objectType": "annotation",
            "classification": {
                "name": name,
                "color": [int(color[i : i + 2], 16) for i in (1, 3, 5)],
            },
        },
    }


def _write(path: Path, features: list[dict[str, object]]) -> None:
    """Write a feature collection, one feature per line."""
    lines = ",\n".join(json.dumps(feature, separators=(",", ":")) for feature in features)
    path.write_text(f'{{"type":"FeatureCollection","features":[\n{lines}\n]}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
