from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from wsi_unet.errors import MaskError
from wsi_unet.slides import Slide, load_mask, open_slide
from wsi_unet.slides.tissue import mask_files

Pixels = NDArray[np.uint8]
SlideOf = Callable[..., Slide]


@pytest.fixture
def slide(slide_of: SlideOf) -> Slide:
    return slide_of(np.zeros((60, 80, 3), np.uint8))


def square(x: float, y: float, side: float) -> list[list[float]]:
    return [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]


def written(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_rasters_mark_tissue_by_anything_but_zero(
    tmp_path: Path, slide: Slide, suffix: str
) -> None:
    marked = np.zeros((6, 8), bool)
    marked[2:4, 3:7] = True
    rasters: list[NDArray[Any]] = [
        marked.astype(np.uint8) * 255,
        marked.astype(np.uint8),
        marked.astype(np.uint16) * 300,
        np.dstack([marked * np.uint8(0), marked * np.uint8(9), marked * np.uint8(0)]),
        marked,
    ]
    for number, raster in enumerate(rasters):
        path = tmp_path / f"{number}.{suffix}"
        if suffix == "tif":
            photometric = "rgb" if raster.ndim == 3 else "minisblack"
            tifffile.imwrite(path, raster, photometric=photometric)
        else:
            Image.fromarray(raster).save(path)
        assert (load_mask(path, slide) == marked).all(), number


def test_transparent_pixels_mark_nothing(tmp_path: Path, slide: Slide) -> None:
    rgba = np.full((6, 8, 4), 255, np.uint8)
    rgba[:3, :, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "a.png")
    mask = load_mask(tmp_path / "a.png", slide)
    assert not mask[:3].any()
    assert mask[3:].all()


def test_every_kind_of_geojson_is_drawn(tmp_path: Path, slide: Slide) -> None:
    polygon = {"type": "Polygon", "coordinates": [square(10, 20, 30), square(20, 30, 10)]}
    several = {"type": "MultiPolygon", "coordinates": [[square(60, 5, 4)], [square(70, 50, 5)]]}
    collection = {"type": "GeometryCollection", "geometries": [polygon, several]}
    point = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 1]}}
    nothing = {"type": "Feature", "geometry": None}
    features = [{"type": "Feature", "geometry": collection, "properties": {}}, point, nothing]
    expected = np.zeros((60, 80), bool)
    expected[20:50, 10:40] = True
    expected[30:40, 20:30] = False  # the hole
    expected[5:9, 60:64] = True
    expected[50:55, 70:75] = True
    for name, document in (
        ("collection", {"type": "FeatureCollection", "features": features}),
        ("feature", features[0]),
        ("geometry", collection),
        ("list", features),
    ):
        path = written(tmp_path / f"{name}.geojson", document)
        assert (load_mask(path, slide) == expected).all(), name


def test_overlapping_polygons_both_count(tmp_path: Path, slide: Slide) -> None:
    shapes = [{"type": "Polygon", "coordinates": [square(x, 10, 20)]} for x in (5, 15)]
    document = {"type": "GeometryCollection", "geometries": shapes}
    mask = load_mask(written(tmp_path / "a.geojson", document), slide)
    assert mask[10:30, 5:35].all()
    assert mask.sum() == 20 * 30


def test_polygons_reaching_beyond_the_slide_are_clipped(tmp_path: Path, slide: Slide) -> None:
    document = {"type": "Polygon", "coordinates": [square(-30, -40, 1000)]}
    assert load_mask(written(tmp_path / "a.geojson", document), slide).all()


def test_large_slides_get_coarser_cells(slide_of: SlideOf, tmp_path: Path) -> None:
    document = {"type": "Polygon", "coordinates": [square(0, 0, 400)]}
    path = written(tmp_path / "a.geojson", document)
    mask = mask_files.read_mask(path, (800, 100_000))
    assert mask.shape == (62, 7693)  # cells of 13 px
    assert mask[:30, :30].all()
    assert not mask[32:].any()


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ('{"type": "FeatureCollection", "features": [', "isn't valid GeoJSON"),
        ('{"type": "FeatureCollection", "features": []}', "holds no polygons"),
        ('{"type": "FeatureCollection"}', "where a list should be"),
        ('{"type": "Point", "coordinates": [1, 2]}', "holds no polygons"),
        ('{"type": "Polygon", "coordinates": [[[1, 2], [3, 4]]]}', "that covers nothing"),
        ('{"type": "Polygon", "coordinates": [[["a", 2], [3, 4], [5, 6]]]}', "pairs of numbers"),
        ('{"type": "Polygon", "coordinates": [[1, 2, 3]]}', "pairs of numbers"),
        ('{"type": "Polygon", "coordinates": [[[1, 2], [3, NaN], [5, 6]]]}', "aren't pixels"),
        ('{"type": "Polygon", "coordinates": [[[1, 2], [3, 1e300], [5, 6]]]}', "aren't pixels"),
        ('{"type": "Polygon", "coordinates": null}', "that covers nothing"),
        ('["text"]', "where a JSON object should be"),
        ("[" * 100 + "]" * 100, "nested"),
        ("[" * 100_000, "isn't valid GeoJSON"),
        (
            '{"type": "Polygon", "coordinates": [[[900, 2], [950, 4], [930, 60]]]}',
            "no polygon covers any of the slide",
        ),
        ("just text", "neither an image"),
        ("", "neither an image"),
    ],
)
def test_unusable_masks_are_refused_in_one_line(
    tmp_path: Path, slide: Slide, content: str, match: str
) -> None:
    path = tmp_path / "mask"
    path.write_text(content)
    with pytest.raises(MaskError, match=match) as caught:
        load_mask(path, slide)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unreadable_rasters_are_refused(tmp_path: Path, slide: Slide) -> None:
    with pytest.raises(MaskError, match="can't be read"):
        load_mask(tmp_path / "missing.png", slide)
    with pytest.raises(MaskError, match="can't be read"):
        load_mask(tmp_path, slide)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (99, 99), np.uint8)).save(
        tmp_path / "a.png"
    )
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:3000])
    (tmp_path / "cut.tif").write_bytes(b"II*\0" + bytes(50))
    stack = np.zeros((4, 9, 9), np.uint8)
    tifffile.imwrite(tmp_path / "stack.tif", stack, photometric="minisblack")
    for name, match in (
        ("cut.png", "decoded"),
        ("cut.tif", "one plane"),
        ("stack.tif", "one plane"),
    ):
        with pytest.raises(MaskError, match=match):
            load_mask(tmp_path / name, slide)


def test_real_annotations(example_slide_path: Path, shared_data: Path) -> None:
    folder = shared_data / "annotations"
    with open_slide(example_slide_path) as slide:
        mask = load_mask(folder / "CMU-1-Small-Region_regions.dsa.geojson", slide)
        assert mask.sum() == pytest.approx(821**2 + 821 * (2220 - 1512), rel=0.01)
        assert mask[513:1333, 513:1333].all()
        for name in ("qupath05.geojson", "large_image_sample.geojson"):
            with pytest.raises(MaskError, match="level 0"):  # of other, larger slides
                load_mask(folder / name, slide)
    assert mask_files.read_mask(folder / "qupath05.geojson", (30_000, 40_000)).any()
    assert mask_files.read_mask(folder / "large_image_sample.geojson", (60_000, 60_000)).any()


def test_a_mask_of_another_shape_is_refused_whatever_holds_it(tmp_path: Path, slide: Slide) -> None:
    turned = np.ones((8, 6), np.uint8)
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(turned).save(tmp_path / "turned.png")
    Image.fromarray(turned.T).save(tmp_path / "exif.png", exif=exif)
    tifffile.imwrite(tmp_path / "turned.tif", turned, photometric="minisblack")
    for name in ("turned.png", "exif.png", "turned.tif"):
        with pytest.raises(MaskError, match=r"6 x 8 px, has another shape .* 80 x 60 px.*by 90°"):
            load_mask(tmp_path / name, slide)
    Image.fromarray(turned).save(tmp_path / "upright.png", exif=exif)
    assert load_mask(tmp_path / "upright.png", slide).shape == (6, 8)
