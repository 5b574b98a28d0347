"""The OME-XML of an OME-TIFF, by the schema OME 2016-06.

Bio-Formats damages references to characters (&#181;), so there are none: the text is UTF-8, which
OME-TIFF asks for, and control characters become spaces.

https://www.openmicroscopy.org/Schemas/Documentation/Generated/OME-2016-06/ome.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from defusedxml.ElementTree import fromstring

from wsi_unet._version import __version__
from wsi_unet.colour import Colour
from wsi_unet.exports.provenance import DISCLAIMER, encode
from wsi_unet.exports.pyramids.arrays import Meaning
from wsi_unet.geometry import Shape
from wsi_unet.objects.provenance import CREATOR

OME = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
INSTANCE = "http://www.w3.org/2001/XMLSchema-instance"
NAMESPACE = "wsi-unet/provenance"
VALUES_NAMESPACE = "wsi-unet/label-values"

PROVENANCE = "provenance"
"""Key of the whole provenance, as JSON, among those of its annotation."""

_CONTROL = re.compile("[\x00-\x1f]")
_NOT_XML = re.compile("[^\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 can't hold, in any spelling."""


@dataclass(frozen=True)
class OmeImage:
    """What the OME-XML of an image says.

    Attributes:
        name: its name.
        description: what it shows, for people.
        shape: (rows, columns) of the finest level, px.
        mpp: (y, x) size of a pixel, µm; None where that isn't known.
        channels: its channels; the one of an RGB image has no colour.
        samples: samples per pixel of a channel: 3 for RGB.
        values: the meaning of label values, where it has some.
    """

    name: str
    description: str
    shape: Shape
    mpp: tuple[float, float] | None
    channels: Sequence[tuple[str, Colour | None]]
    samples: int
    values: Mapping[int, Meaning]


def make_ome_xml(image: OmeImage, provenance: Mapping[str, Any]) -> bytes:
    """Return the document of an image, UTF-8."""
    root = ElementTree.Element("OME", {"xmlns": OME, "xmlns:xsi": INSTANCE})
    root.set("xsi:schemaLocation", f"{OME} {OME}/ome.xsd")
    root.set("Creator", f"{CREATOR} {__version__}")
    element = _add(root, "Image", ID="Image:0", Name=image.name)
    _add(element, "Description").text = _clean(f"{image.description} {DISCLAIMER}")
    _add_pixels(element, image)
    maps = {NAMESPACE: _list_provenance(provenance)}
    if image.values:
        maps[VALUES_NAMESPACE] = [(str(value), each.name) for value, each in image.values.items()]
    annotations = ElementTree.SubElement(root, "StructuredAnnotations")
    for number, (namespace, pairs) in enumerate(maps.items()):
        _add(element, "AnnotationRef", ID=f"Annotation:{number}")
        annotation = _add(
            annotations, "MapAnnotation", ID=f"Annotation:{number}", Namespace=namespace
        )
        value = _add(annotation, "Value")
        for key, text in pairs:
            _add(value, "M", K=key).text = _clean(text)
    head = b'<?xml version="1.0" encoding="UTF-8"?>'
    return head + ElementTree.tostring(root, encoding="unicode").encode()


def read_provenance(document: str) -> str:
    """Return the provenance that a document holds, "" where there is none.

    Raises:
        ValueError, SyntaxError: it isn't XML, or is dangerous to read.
    """
    for annotation in fromstring(document).iter(f"{{{OME}}}MapAnnotation"):
        if annotation.get("Namespace") == NAMESPACE:
            for pair in annotation.iter(f"{{{OME}}}M"):
                if pair.get("K") == PROVENANCE:
                    return pair.text or ""
    return ""


def _add_pixels(element: ElementTree.Element, image: OmeImage) -> None:
    size_c = len(image.channels) * image.samples
    sizes = {"SizeX": image.shape[1], "SizeY": image.shape[0], "SizeC": size_c}
    facts = {key: str(value) for key, value in (sizes | {"SizeZ": 1, "SizeT": 1}).items()}
    if image.mpp is not None:
        for axis, size in zip("YX", image.mpp, strict=True):
            facts[f"PhysicalSize{axis}"] = repr(float(size))
            facts[f"PhysicalSize{axis}Unit"] = "µm"
    pixels = _add(
        element,
        "Pixels",
        ID="Pixels:0",
        DimensionOrder="XYCZT",
        Type="uint8",
        BigEndian="false",
        Interleaved="true" if image.samples > 1 else "false",
        **facts,
    )
    for number, (name, colour) in enumerate(image.channels):
        known = {} if colour is None else {"Color": str(_to_number(colour))}
        samples = str(image.samples)
        _add(
            pixels,
            "Channel",
            ID=f"Channel:0:{number}",
            Name=name,
            SamplesPerPixel=samples,
            **known,
        )
    for number in range(len(image.channels)):
        _add(
            pixels,
            "TiffData",
            IFD=str(number),
            FirstC=str(number),
            FirstZ="0",
            FirstT="0",
            PlaneCount="1",
        )


def _list_provenance(provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return provenance as pairs that people can read, and the whole of it as JSON."""
    pairs = [(key, str(provenance[key])) for key in ("creator", "version", "for")]
    for group in provenance["groups"]:
        keys = ("slide", "fingerprint", "model", "model_sha256", "signature", "exactness")
        pairs += [(key, str(group[key])) for key in keys if (key, str(group[key])) not in pairs]
    return [*pairs, (PROVENANCE, encode(provenance))]


def _to_number(colour: Colour) -> int:
    """Return an opaque colour as OME has it: RGBA in a signed 32-bit number.

    >>> _to_number((0, 0, 1)), _to_number((255, 255, 255))
    (511, -1)
    """
    return int.from_bytes(bytes((*colour, 255)), "big", signed=True)


def _add(parent: ElementTree.Element, tag: str, **attributes: str) -> ElementTree.Element:
    cleaned = {key: _clean(value) for key, value in attributes.items()}
    return ElementTree.SubElement(parent, tag, cleaned)


def _clean(text: str) -> str:
    """Return a text without what XML can't hold."""
    return _NOT_XML.sub("\ufffd", _CONTROL.sub(" ", text))
