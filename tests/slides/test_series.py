"""Which of several images in a file is the slide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import tifffile
import zarr
from numpy.typing import NDArray

from wsi_unet.errors import SlideError
from wsi_unet.geometry import Box
from wsi_unet.locations import Location
from wsi_unet.segmentation.parameters import ImageParameters
from wsi_unet.segmentation.planning.resolved_options import make_slide_reference
from wsi_unet.slides import PixelSize, Slide, choose_resampling, open_slide
from wsi_unet.slides.readers.zarr_series import find_images
from wsi_unet.slides.series import Series, choose_series, mention_others
from wsi_unet.slides.sources.folder import LocalFolder

Pixels = NDArray[np.uint8]
HALF_MICRON: dict[str, Any] = {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}


@pytest.fixture
def rgb() -> Pixels:
    return np.random.default_rng(3).integers(0, 256, (256, 320, 3), dtype=np.uint8)


def all_pixels(slide: Slide) -> Pixels:
    return slide.read(0, Box.from_shape(slide.shape))


def ome_tiff(path: Path, *images: tuple[str, Pixels, int]) -> Path:
    """Write images, each with its name and number of levels, as Bio-Formats does."""
    with tifffile.TiffWriter(path, ome=True) as writer:
        for name, pixels, levels in images:
            options: dict[str, Any] = {"photometric": "rgb", "tile": (64, 64)}
            described = {
                "axes": "YXS" if pixels.ndim == 3 else "YX",
                "Name": name,
                "PhysicalSizeX": 0.5,
                "PhysicalSizeY": 0.5,
            }
            if pixels.ndim == 2:
                options["photometric"] = "minisblack"
            writer.write(pixels, subifds=levels - 1, metadata=described, **options)
            for level in range(1, levels):
                writer.write(pixels[:: 2**level, :: 2**level], subfiletype=1, **options)
    return path


def test_a_macro_in_front_is_not_the_slide(tmp_path: Path, rgb: Pixels) -> None:
    path = ome_tiff(tmp_path / "a.ome.tif", ("macro", rgb[:60, :100], 1), ("slide", rgb, 2))
    with open_slide(path) as slide:
        assert [series.name for series in slide.series] == ["macro", "slide"]
        assert [series.levels for series in slide.series] == [1, 2]
        assert len(slide.levels) == 2
        assert slide.mpp is not None
        assert slide.mpp.x == 0.5
        assert (all_pixels(slide) == rgb).all()
        assert slide.warnings == ()
        largest = slide.fingerprint()
    for chosen in (0, "0", "macro"):
        with open_slide(path, series=chosen) as slide:
            assert (all_pixels(slide) == rgb[:60, :100]).all()
            assert slide.fingerprint() != largest


@pytest.mark.parametrize("described", [True, False])
@pytest.mark.parametrize("reduced", [True, False])
def test_a_thumbnail_in_front_is_not_the_slide(
    tmp_path: Path, rgb: Pixels, described: bool, reduced: bool
) -> None:
    more: dict[str, Any] = {"photometric": "rgb"} | ({} if described else {"metadata": None})
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(rgb[::5, ::5], subfiletype=1 if reduced else 0, **more)
        writer.write(rgb, tile=(64, 64), **HALF_MICRON, **more)
        writer.write(rgb[::2, ::2], tile=(64, 64), subfiletype=1, **more)
    with open_slide(tmp_path / "a.tif") as slide:
        assert (all_pixels(slide) == rgb).all()
        assert slide.mpp is not None
        assert slide.mpp.x == pytest.approx(0.5)
        assert (slide.read(1, Box(0, 0, 128, 160)) == rgb[::2, ::2]).all()


def test_a_macro_larger_than_the_slide_is_not_the_slide(tmp_path: Path, rgb: Pixels) -> None:
    path = ome_tiff(tmp_path / "a.ome.tif", ("macro image", rgb, 1), ("", rgb[:60, :100], 1))
    with open_slide(path) as slide:
        assert (all_pixels(slide) == rgb[:60, :100]).all()


def test_images_alike_in_size_are_refused_and_listed(tmp_path: Path, rgb: Pixels) -> None:
    path = ome_tiff(tmp_path / "a.ome.tif", ("left", rgb, 1), ("right", rgb[:200, ::-1], 1))
    with pytest.raises(SlideError, match=r"0 'left' \(320 x 256 px\), 1 'right' .* `series`"):
        open_slide(path)
    with open_slide(path, series="right") as slide:
        assert (all_pixels(slide) == rgb[:200, ::-1]).all()
    for wrong in ("2", "middle", "-1"):
        with pytest.raises(SlideError, match=r"there is no series .* its images are 0 'left'"):
            open_slide(path, series=wrong)


def test_a_large_image_of_other_pixels_is_not_replaced_by_a_small_one(
    tmp_path: Path, rgb: Pixels
) -> None:
    deep = rgb[..., 0].astype(np.uint16)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as writer:
        writer.write(rgb[:60, :100], photometric="rgb", metadata={"axes": "YXS"})
        writer.write(deep, photometric="minisblack", metadata={"axes": "YX", "Name": "DAPI"})
    with pytest.raises(SlideError, match=r"16 bits per sample.*its images are 0 .*, 1 'DAPI'"):
        open_slide(tmp_path / "a.ome.tif")
    with open_slide(tmp_path / "a.ome.tif", series=0) as slide:
        assert slide.shape == (60, 100)
    with pytest.raises(SlideError, match="series 1 has pixels of 16 bits"):
        open_slide(tmp_path / "a.ome.tif", series=1)


def test_series_of_other_kinds_are_refused(
    example_slide_path: Path, tmp_path: Path, rgb: Pixels
) -> None:
    with pytest.raises(SlideError, match="knows no series"):
        open_slide(example_slide_path, "openslide", series=0)
    with open_slide(example_slide_path, series="Thumbnail") as slide:
        assert slide.shape == (768, 574)
        assert slide.mpp is None  # what the file says is about the slide
    with open_slide(example_slide_path) as slide:
        names = [series.name for series in slide.series]
        assert names == ["Baseline", "Thumbnail", "Label", "Macro"]
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for pixels in (rgb[:60, :100], rgb):
            writer.write(pixels, photometric="rgb", metadata=None)
    with pytest.raises(SlideError, match="holds several images, of which this reader can't"):
        open_slide(tmp_path / "a.tif", "image")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(99))
    with pytest.raises(SlideError, match="isn't a TIFF, by its first bytes"):
        open_slide(tmp_path / "a.png", "tiffslide")


def test_numbers_come_before_names(tmp_path: Path, rgb: Pixels) -> None:
    path = ome_tiff(tmp_path / "a.ome.tif", ("1", rgb, 1), ("0", rgb[:200], 1), ("7", rgb[:210], 1))
    for wanted, rows in (("0", 256), (1, 200), ("7", 210)):
        with open_slide(path, series=wanted) as slide:
            assert slide.shape[0] == rows


OME = """<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">
<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="320"
SizeY="256" SizeC="3" SizeZ="1" SizeT="1" PhysicalSizeX="0.25" PhysicalSizeY="0.25"
Interleaved="true"><Channel ID="Channel:0:0" SamplesPerPixel="3"/><TiffData IFD="0" PlaneCount="1">
<UUID FileName="b.ome.tif">urn:uuid:00000000-0000-0000-0000-000000000002</UUID></TiffData></Pixels>
</Image></OME>"""


def test_pixels_in_another_file_are_not_looked_for_in_this_one(tmp_path: Path, rgb: Pixels) -> None:
    for name, pixels in (("a", rgb[:40, :50]), ("b", rgb)):
        tifffile.imwrite(
            tmp_path / f"{name}.ome.tif", pixels, photometric="rgb", description=OME, metadata=None
        )
    with open_slide(tmp_path / "b.ome.tif") as slide:
        assert (all_pixels(slide) == rgb).all()
        assert slide.mpp == PixelSize(0.25, 0.25)
    with pytest.raises(SlideError, match=r"a.ome.tif: .* another file; give the path of b.ome.tif"):
        open_slide(tmp_path / "a.ome.tif")
    (tmp_path / "b.ome.tif").unlink()
    with open_slide(tmp_path / "a.ome.tif") as slide:
        assert (all_pixels(slide) == rgb[:40, :50]).all()
        assert slide.warnings == ("its OME-XML describes no image of this size and was left out",)


def bioformats2raw(path: Path, version: int, *images: Pixels) -> Path:
    """Write images as bioformats2raw does: a group for each, numbered from 0."""
    group = zarr.open_group(path, mode="w", zarr_format=2 if version == 2 else 3)
    layout = {"bioformats2raw.layout": 3}
    group.attrs.update(layout if version == 2 else {"ome": {"version": "0.5", **layout}})
    for number, pixels in enumerate(images):
        inner = group.create_group(str(number))
        data = np.ascontiguousarray(np.moveaxis(pixels, -1, 0)[None, :, None])
        array = inner.create_array("0", shape=data.shape, dtype="u1", chunks=(1, 1, 1, 64, 64))
        array[:] = data
        multiscales: Any = [
            {
                "name": f"image {number}",
                "axes": [{"name": axis} for axis in "tczyx"],
                "datasets": [{"path": "0"}],
            }
        ]
        described: dict[str, Any] = {"multiscales": multiscales}
        inner.attrs.update(described if version == 2 else {"ome": {"version": "0.5", **described}})
    return path


@pytest.mark.parametrize("version", [2, 3])
def test_bioformats2raw_with_a_macro_in_front(tmp_path: Path, rgb: Pixels, version: int) -> None:
    path = bioformats2raw(tmp_path / "a.zarr", version, rgb[:60, :100], rgb, rgb[:50, :50])
    with open_slide(path) as slide:
        assert [series.shape for series in slide.series] == [(60, 100), (256, 320), (50, 50)]
        assert (all_pixels(slide) == rgb).all()
        assert slide.warnings == (
            "read 1 'image 1' (320 x 256 px), not 0 'image 0' (100 x 60 px); `series` chooses",
        )
    with open_slide(path, series="image 2") as slide:
        assert (all_pixels(slide) == rgb[:50, :50]).all()
    alike = bioformats2raw(tmp_path / "b.zarr", version, rgb, rgb)
    with pytest.raises(SlideError, match="2 images of about the same size"):
        open_slide(alike)


def test_documents_are_read_once_to_find_the_images(
    tmp_path: Path, rgb: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bioformats2raw(tmp_path / "a.zarr", 3, rgb, rgb[:50, :50])
    read: list[str] = []

    def read_and_note(folder: LocalFolder, name: str, length: int | None = None) -> bytes | None:
        read.append(str(folder.location / name))
        return plain(folder, name, length)

    plain = LocalFolder.read
    monkeypatch.setattr(LocalFolder, "read", read_and_note)
    assert len(find_images(LocalFolder(Location.parse(path)))) == 2
    assert len(read) == len(set(read))


@pytest.mark.parametrize("version", [2, 3])
def test_bioformats2raw_with_a_list_of_its_images(
    tmp_path: Path, rgb: Pixels, version: int
) -> None:
    """Of converted parts, numbers are missing, or groups have names."""
    path = bioformats2raw(tmp_path / "a.zarr", version, rgb[:60, :100], rgb)
    (path / "1").rename(path / "7")
    ome = zarr.open_group(path / "OME", mode="w", zarr_format=2 if version == 2 else 3)
    listed = {"series": ["0", "../a.zarr/7", "7"]}
    ome.attrs.update(listed if version == 2 else {"ome": {"version": "0.5", **listed}})
    with open_slide(path) as slide:
        assert [series.shape for series in slide.series] == [(60, 100), (256, 320)]
        assert (all_pixels(slide) == rgb).all()


def test_of_several_dicom_series_the_largest_is_the_slide(
    shared_data: Path, tmp_path: Path
) -> None:
    dataset = pydicom.dcmread(shared_data / "slides" / "camelyon_jpeg.dcm")
    dataset.SeriesDescription = "first"
    dataset.save_as(tmp_path / "1")
    dataset.SeriesDescription, dataset.SeriesInstanceUID = "second", "1.2.3"
    dataset.save_as(tmp_path / "2")
    alike = r"2 images of about the same size, 0 'first' \(1152 x 700 px\), 1 'second' .* `series`"
    with pytest.raises(SlideError, match=alike):
        open_slide(tmp_path)
    for name in ("1", "second"):
        with open_slide(tmp_path, series=name) as slide, open_slide(tmp_path / "2") as alone:
            assert [series.name for series in slide.series] == ["first", "second"]
            assert slide.fingerprint() == alone.fingerprint()
    dataset.TotalPixelMatrixRows = 256
    dataset.TotalPixelMatrixColumns = 512
    dataset.NumberOfFrames = 2
    dataset.save_as(tmp_path / "2")
    with open_slide(tmp_path) as slide:
        assert slide.shape == (700, 1152)
        assert slide.warnings == (
            "read 0 'first' (1152 x 700 px), not 1 'second' (512 x 256 px); `series` chooses",
        )


def test_several_images_in_one_group(tmp_path: Path, rgb: Pixels) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    for name, pixels in (("small", rgb[:60, :100]), ("large", rgb)):
        group.create_array(name, data=np.ascontiguousarray(pixels))
    images = [
        {"axes": [{"name": axis} for axis in "yxc"], "datasets": [{"path": name}], "name": name}
        for name in ("small", "large")
    ]
    group.attrs["ome"] = {"version": "0.5", "multiscales": images}
    with open_slide(tmp_path / "a.zarr") as slide:
        assert (all_pixels(slide) == rgb).all()


def test_the_largest_image_that_can_be_a_slide_is_taken() -> None:
    deep = Series("deep", (100, 1), 1, refusal="has 16 bits")
    assert choose_series([Series("rgb", (30, 1), 1), deep], None) == 0
    assert choose_series([deep, Series("", (99, 1), 1), Series("", (30, 1), 1)], None) == 1
    for other in (Series("overview of it", (24, 1), 1), Series("macro", (90, 1), 1, True)):
        with pytest.raises(SlideError, match="has 16 bits; its images are"):
            choose_series([other, deep], None)


@pytest.mark.parametrize(
    ("areas", "wanted", "chosen"),
    [
        ([10, 100], None, 1),
        ([100, 49], None, 0),
        ([100, 10], "1", 1),
        ([100, 10], "name 1", 1),
        ([7], None, 0),
    ],
)
def test_the_choice(areas: list[int], wanted: str | None, chosen: int) -> None:
    listed = [Series(f"name {number}", (area, 1), 1) for number, area in enumerate(areas)]
    assert choose_series(listed, wanted) == chosen


def test_what_is_passed_over_is_mentioned_unless_it_is_a_macro() -> None:
    listed = [
        Series("", (100, 1), 1),
        Series("other", (30, 1), 1),
        Series("macro", (40, 1), 1, associated=True),
        Series("tiny", (1, 1), 1),
        Series("deep", (40, 1), 1, refusal="has 16 bits"),
    ]
    assert mention_others(listed, 0) == (
        "read 0 (1 x 100 px), not 1 'other' (1 x 30 px), 4 'deep' (1 x 40 px); `series` chooses",
    )


def test_the_chosen_series_is_part_of_the_signature(tmp_path: Path, rgb: Pixels) -> None:
    """Mirrored, the two images have the same levels: only the choice tells them apart."""
    path = ome_tiff(tmp_path / "a.ome.tif", ("left", rgb, 1), ("right", rgb[:, ::-1], 1))
    signatures = set()
    for series in (0, 1):
        with open_slide(path, series=series) as slide:
            reference = make_slide_reference(slide, None, series)
            resampling = choose_resampling(slide, (1, 1))
        image = ImageParameters(
            slide=reference, mode="full", resampling=resampling, levels=1, block=512
        )
        signatures.add(image.signature())
        assert image.identity()["series"] == str(series)
    assert len(signatures) == 2
    unnamed = image.model_copy(update={"slide": reference.model_copy(update={"series": None})})
    assert "series" not in unnamed.identity()
