"""Pixel sizes as files state them, and metadata that is damaged while pixels aren't."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from wsi_unet.errors import SlideError
from wsi_unet.geometry import Box
from wsi_unet.slides import PixelSize, open_slide
from wsi_unet.slides.pixel_size import Statement, choose_size, parse_number, to_micrometres

Pixels = NDArray[np.uint8]
APERIO = "Aperio Image Library v12.0.15\r\n70x90 [0,0 70x90] (32x32) JPEG/RGB Q=70|AppMag = 20|"
PHILIPS = (
    '<DataObject ObjectType="DPUfsImport">{0}<Attribute Name="DICOM_PIXEL_SPACING" Group="0x0028" '
    'Element="0x0030" PMSVR="IDoubleArray">"0.0005" "0.00025"</Attribute></DataObject>'
)
QPTIFF = (
    "<PerkinElmer-QPI-ImageDescription><ScanProfile><root><PixelSizeMicrons>0.5</PixelSizeMicrons>"
    "</root></ScanProfile></PerkinElmer-QPI-ImageDescription>"
)
CENTIMETRES: dict[str, Any] = {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}


@pytest.mark.parametrize(
    ("number", "unit", "expected"),
    [
        ("0.5", "µm", 0.5),
        ("0.5", "\u03bcm", 0.5),
        ("0.5", "um", 0.5),
        ("0.5", "\\u00B5m", 0.5),
        (500, "nm", 0.5),
        ("5000", "Å", 0.5),
        ("5000", "\u212b", 0.5),
        ("0.0005", "mm", 0.5),
        ("0.0005", "MM", 0.5),
        ("5e-5", "cm", 0.5),
        ("5e-7", "m", 0.5),
        ("500000", "pm", 0.5),
        ("0,5", "micron", 0.5),
        ("0.5", "micrometre", 0.5),
        ("500", "nanometer", 0.5),
        ("1", "inch", 25_400.0),
        ("1", "thou", 25.4),
        ("1", "pt", 25_400 / 72),
        ("1", "Mm", 1e12),
        ("1", "pixel", None),
        ("1", "reference frame", None),
        ("1", None, None),
        ("nan", "µm", None),
        ("-1", "µm", None),
        ("0", "µm", None),
        ("half", "µm", None),
    ],
)
def test_numbers_and_units(number: object, unit: object, expected: float | None) -> None:
    assert to_micrometres(number, unit) == pytest.approx(expected)


def test_numbers_may_have_a_decimal_comma() -> None:
    assert parse_number("0,4990") == 0.499
    assert parse_number("1,234.5") is None
    assert parse_number('"0.25"') == 0.25


def test_statements_that_disagree_are_both_named() -> None:
    first, same = (
        Statement("its XML", PixelSize(0.5, 0.5)),
        Statement("tags", PixelSize(0.504, 0.5)),
    )
    other = Statement("tags", PixelSize(0.25, 0.5))
    assert choose_size([]) == (None, ())
    assert choose_size([first, same]) == (first.size, ())
    size, lines = choose_size([first, other])
    assert size == first.size
    assert lines == (
        "its XML states pixels of 0.5 µm, which was taken, but tags 0.5 × 0.25 µm; give `mpp` if "
        "that is right",
    )


@pytest.mark.parametrize(
    ("size", "unit"),
    [(500, "nm"), (0.0005, "mm"), (5000, "Å"), (0.5, "µm"), (0.5, None), (5e-7, "m")],
)
def test_ome_xml_in_any_unit(
    tmp_path: Path, random_rgb: Pixels, size: float, unit: str | None
) -> None:
    metadata: dict[str, Any] = {"axes": "YXS", "PhysicalSizeX": size, "PhysicalSizeY": size}
    if unit:
        metadata |= {"PhysicalSizeXUnit": unit, "PhysicalSizeYUnit": unit}
    tifffile.imwrite(tmp_path / "a.ome.tif", random_rgb, metadata=metadata)
    with open_slide(tmp_path / "a.ome.tif") as slide:
        assert slide.mpp is not None
        assert (slide.mpp.y, slide.mpp.x) == pytest.approx((0.5, 0.5))
        assert slide.warnings == ()


def test_the_xml_is_taken_and_tags_that_contradict_it_are_named(
    tmp_path: Path, random_rgb: Pixels
) -> None:
    path = tmp_path / "a.ome.tif"
    metadata = {"axes": "YXS", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}
    tifffile.imwrite(path, random_rgb, metadata=metadata, **CENTIMETRES)
    with open_slide(path) as slide:
        assert slide.mpp == PixelSize(0.25, 0.25)
        (line,) = slide.warnings
        assert "OME-XML states pixels of 0.25 µm, which was taken, but" in line
        assert "0.5 µm" in line
    tifffile.imwrite(
        path, random_rgb, metadata=metadata, resolution=(72, 72), resolutionunit="INCH"
    )
    with open_slide(path) as slide:  # dots per inch of a printer contradict nothing
        assert slide.warnings == ()


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        (APERIO + "MPP = 0.5000", (0.5, 0.5)),
        (APERIO + "MPP = 0,5000|Date = 01/02/03", (0.5, 0.5)),
        (PHILIPS.format(""), (0.5, 0.25)),
        (PHILIPS.format('<Attribute Name="DICOM_MANUFACTURER">PHILIPS</Attribute>'), (0.5, 0.25)),
        (QPTIFF, (0.5, 0.5)),
        ('<!DOCTYPE a [<!ENTITY half "0.5">]>' + QPTIFF.replace("0.5", "&half;"), None),
        ('<iScan Magnification="20" ScanRes="0.5"/>', (0.5, 0.5)),
        ('<iScan Magnification="20" ScanRes="0,5"/>', (0.5, 0.5)),
        ("anything", None),
    ],
)
def test_descriptions_of_vendors(
    tmp_path: Path, random_rgb: Pixels, description: str, expected: tuple[float, float] | None
) -> None:
    software = "Philips DP v1.0" if "DICOM" in description else "made for a test"
    tifffile.imwrite(
        tmp_path / "a.tif",
        random_rgb,
        description=description,
        metadata=None,
        tile=(32, 32),
        software=software,
    )
    with open_slide(tmp_path / "a.tif", "tiffslide") as slide:
        assert (slide.mpp and (slide.mpp.y, slide.mpp.x)) == expected


@pytest.mark.parametrize("unit", ["um", "\\u00B5m", "micron", "nm", "pixel"])
def test_units_of_imagej(tmp_path: Path, random_rgb: Pixels, unit: str) -> None:
    per_unit = 2 if unit != "nm" else 0.002
    tifffile.imwrite(
        tmp_path / "a.tif",
        random_rgb,
        imagej=True,
        resolution=(per_unit, per_unit),
        metadata={"unit": unit},
    )
    with open_slide(tmp_path / "a.tif") as slide:
        if unit == "pixel":
            assert slide.mpp is None
        else:
            assert slide.mpp is not None
            assert slide.mpp.x == pytest.approx(0.5)


def spoil(path: Path, code: int, place: str, value: bytes) -> Path:
    """Overwrite a tag of the first page: its number of values, their offset, or the values."""
    with tifffile.TiffFile(path) as file:
        page: Any = file.pages[0]
        tag = page.tags[code]
        places = {"count": tag.offset + 4, "offset": tag.offset + 8, "value": tag.valueoffset}
    with path.open("r+b") as stored:
        stored.seek(places[place])
        stored.write(value)
    return path


@pytest.mark.parametrize(
    ("code", "place", "value", "match"),
    [
        (34675, "offset", struct.pack("<I", 2**31), "tag 34675 .InterColorProfile. is damaged"),
        (34675, "count", struct.pack("<I", 2**31), "tag 34675"),
        (282, "value", struct.pack("<II", 0, 0), "pixel size is unknown: .* 0/0"),
        (282, "value", struct.pack("<II", 1, 0), "pixel size is unknown: .* 1/0"),
        (282, "value", struct.pack("<II", 0, 1), "pixel size is unknown: .* 0/1"),
        (282, "count", bytes(4), "pixel size is unknown: .* nothing and 20000/1"),
        (296, "value", b"\x09\x00", "pixel size is unknown: the unit of .* is 9"),
        (283, "offset", struct.pack("<I", 2**31), "tag 283"),
        (305, "offset", struct.pack("<I", 2**32 - 1), "tag 305"),
    ],
)
def test_damaged_tags_that_pixels_do_not_need_are_left_out_and_said(
    tmp_path: Path, random_rgb: Pixels, code: int, place: str, value: bytes, match: str
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, random_rgb, tile=(32, 32), iccprofile=bytes(500), software="a name", **CENTIMETRES
    )
    spoil(path, code, place, value)
    with open_slide(path, "tiffslide") as slide:
        assert (slide.read(0, Box(0, 0, 90, 70)) == random_rgb).all()
        assert (slide.mpp is None) == (code in (282, 283, 296))
        assert any(re.search(match, line) for line in slide.warnings)


@pytest.mark.parametrize("code", [256, 258, 277, 324, 325])
def test_damaged_tags_that_pixels_need_are_refused(
    tmp_path: Path, random_rgb: Pixels, code: int
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, random_rgb, tile=(32, 32))
    spoil(path, code, "count", struct.pack("<I", 2**30))
    with pytest.raises(SlideError, match="truncated or damaged"):
        open_slide(path, "tiffslide")


def test_a_description_that_is_no_text_is_read_byte_for_byte(
    tmp_path: Path, random_rgb: Pixels
) -> None:
    path = tmp_path / "a.svs"
    description = APERIO + "MPP = 0.4845|User = x"
    tifffile.imwrite(path, random_rgb, tile=(32, 32), description=description, metadata=None)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"User = x", b"User = \xd6"))
    with open_slide(path, "tiffslide") as slide:
        assert slide.mpp == PixelSize(0.4845, 0.4845)
        assert slide.vendor == "aperio"
        assert (slide.read(0, Box(0, 0, 90, 70)) == random_rgb).all()


def test_a_description_that_misleads_tifffile_is_left_out_and_said(
    tmp_path: Path, random_rgb: Pixels
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, random_rgb, tile=(32, 32))
    data = path.read_bytes()
    assert b'{"shape": [90, 70, 3]}' in data
    path.write_bytes(data.replace(b'{"shape": [90, 70, 3]}', b'{"shape": [9e, 70, 3]}'))
    with open_slide(path, "tiffslide") as slide:
        assert (slide.read(0, Box(0, 0, 90, 70)) == random_rgb).all()


def test_a_damaged_xml_is_left_out_and_said(tmp_path: Path, random_rgb: Pixels) -> None:
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, random_rgb, tile=(32, 32), **CENTIMETRES)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"<Pixels ", b"<Pixels<", 1))
    with open_slide(path, "tiffslide") as slide:
        assert (slide.read(0, Box(0, 0, 90, 70)) == random_rgb).all()
        assert slide.mpp is not None
        assert slide.mpp.x == pytest.approx(0.5)
        assert slide.warnings == ("its OME-XML describes no image and was left out",)
