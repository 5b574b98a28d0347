"""What a TIFF says about the size of its pixels: each vendor somewhere else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from wsi_unet.slides.pixel_size import Statement, parse_number, stated_size, to_micrometres
from wsi_unet.slides.readers.tiff_ome import OmeImage, parse_xml

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

PRINTED = 10.0
"""Pixel size, µm, from which resolution tags are taken to be for printing (2540 dots per inch),
where the file states another size."""

_APERIO = re.compile(r"\|\s*MPP\s*=\s*([^|\s]+)")
_VENTANA = re.compile(r"\bScanRes\s*=\s*[\"']([^\"']+)")
_UNITS = {2: "inch", 3: "cm", 4: "mm", 5: "µm"}
"""Values of ResolutionUnit."""
NO_UNIT = 1
"""ResolutionUnit of resolutions that only give the ratio of a pixel's sides."""
_RESOLUTION_UNIT, _X_RESOLUTION, _Y_RESOLUTION, _XMP = 296, 282, 283, 700


def pixel_size_statements(
    tiff: Any, frame: Any, ome: OmeImage | None, properties: Mapping[str, Any], *, whole: bool
) -> list[Statement]:
    """Return what a TIFF states about the size of its pixels, the most reliable first.

    Args:
        tiff: tifffile's file.
        frame: tifffile's page of the finest level.
        ome: what the OME-XML says about this image.
        properties: tiffslide's properties.
        whole: whether it is the image that the file's descriptions are about.
    """
    statements = list(ome.size) if ome is not None else []
    if whole:
        statements += _vendor_statements(tiff, properties)
    resolution = _resolution(frame, _imagej_unit(tiff))
    if not statements:
        return resolution
    return statements + [stated for stated in resolution if stated.size.x < PRINTED]


def _vendor_statements(tiff: Any, properties: Mapping[str, Any]) -> Iterator[Statement]:
    description = text_of(tiff.pages.first, 270)
    if description.startswith("Aperio"):
        aperio = _APERIO.search(description)
        side = parse_number(aperio.group(1)) if aperio else None
        yield from stated_size("its Aperio description", side, side)
    root = parse_xml(description) if "<" in description else None
    if root is not None:
        yield from _philips(root)
        yield from _perkin_elmer(root)
    if tiff.is_scn:
        sides = [parse_number(properties.get(f"tiffslide.mpp-{axis}")) for axis in "yx"]
        yield from stated_size("its Leica description", *sides)
    if tiff.is_bif or "iScan" in description or "iScan" in text_of(tiff.pages.first, _XMP):
        texts = (text_of(page, code) for page in tiff.pages for code in (_XMP, 270))
        ventana = next((found for text in texts if (found := _VENTANA.search(text))), None)
        side = parse_number(ventana.group(1)) if ventana else None
        yield from stated_size("its Ventana description", side, side)


def _philips(root: Element) -> Iterator[Statement]:
    """Yield the pixel spacing of a Philips description: (rows, columns), mm."""
    for attribute in root.iterfind(".//{*}Attribute"):
        if attribute.get("Name") == "DICOM_PIXEL_SPACING":
            numbers = (attribute.text or "").replace('"', " ").split()
            if len(numbers) == 2:
                sides = [to_micrometres(number, "mm") for number in numbers]
                yield from stated_size("its Philips description", *sides)
            return


def _perkin_elmer(root: Element) -> Iterator[Statement]:
    """Yield the pixel size of a QPTIFF's description."""
    for element in root.iterfind(".//{*}PixelSizeMicrons"):
        side = parse_number(element.text)
        yield from stated_size("its PerkinElmer description", side, side)
        return


def _imagej_unit(tiff: Any) -> str | None:
    """Return the unit of an ImageJ file's resolution tags, which say that they have none."""
    metadata = tiff.imagej_metadata if tiff.is_imagej else None
    return str(metadata["unit"]) if metadata and "unit" in metadata else None


def _resolution(frame: Any, imagej_unit: str | None) -> list[Statement]:
    """Return what the resolution tags state: pixels per unit of length."""
    unit = frame.tags.get(_RESOLUTION_UNIT)
    name = imagej_unit or (_UNITS.get(_as_int(unit.value)) if unit is not None else None)
    sides = (_unit_per_pixel(frame.tags.get(code)) for code in (_Y_RESOLUTION, _X_RESOLUTION))
    y, x = (to_micrometres(side, name) for side in sides)
    return stated_size("the resolution in its tags", y, x)


def misunderstood_sizes(frame: Any, ome: OmeImage | None) -> tuple[str, ...]:
    """Return a line for each statement about the size of pixels that can't be understood."""
    if ome is not None and ome.unclear:
        return (f"its pixel size is unknown: its OME-XML states {ome.unclear}",)
    tags = [frame.tags.get(code) for code in (_X_RESOLUTION, _Y_RESOLUTION)]
    unit = frame.tags.get(_RESOLUTION_UNIT)
    if all(tag is None or _unit_per_pixel(tag) is not None for tag in tags):
        if None in tags or unit is None or _as_int(unit.value) in (NO_UNIT, *_UNITS):
            return ()
        value = "/".join(map(str, np.ravel(unit.value))) or "nothing"
        return (f"its pixel size is unknown: the unit of its resolution tags is {value}",)
    values = ("/".join(map(str, np.ravel(tag.value))) or "nothing" for tag in tags if tag)
    stated = " and ".join(values)
    return (f"its pixel size is unknown: its resolution tags state {stated}",)


def _as_int(value: Any) -> int:
    return int(value) if isinstance(value, int) else 0


def _unit_per_pixel(tag: Any) -> float | None:
    """Return the inverse of a resolution, None where it is 0, infinite or no fraction."""
    value = None if tag is None else tag.value
    if (
        not isinstance(value, tuple)
        or len(value) != 2
        or not all(isinstance(v, int) for v in value)
    ):
        return None
    return float(Fraction(value[1], value[0])) if value[0] > 0 and value[1] > 0 else None


def text_of(page: Any, code: int) -> str:
    """Return the text of a tag, byte for byte where it isn't Unicode; "" if there is none."""
    tag = page.tags.get(code)
    value = None if tag is None else tag.value
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.decode("latin-1")
    return value if isinstance(value, str) else ""
