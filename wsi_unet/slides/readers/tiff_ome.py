"""What the OME-XML of an OME-TIFF says about each of its images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from defusedxml.ElementTree import ParseError, fromstring

from wsi_unet.geometry import Shape
from wsi_unet.samples import find_other_names
from wsi_unet.slides.pixel_size import Statement, parse_number, stated_size, to_micrometres

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

COLOURS = {(255, 0, 0): 0, (0, 255, 0): 1, (0, 0, 255): 2}
NAMES = {"red": 0, "r": 0, "green": 1, "g": 1, "blue": 2, "b": 2}
"""Which of red, green and blue a channel's colour or name says that it is."""
_UNIT = "µm"
"""The unit of a physical size that states none."""


@dataclass(frozen=True)
class OmeImage:
    """One image of an OME-XML.

    Attributes:
        name: its name; "" if it has none.
        shape: (rows, columns), px; (0, 0) if the XML doesn't say so in numbers.
        size: what it states about the size of its pixels; none or one.
        unclear: what it states about that and isn't understood; "" if there is nothing.
        colours: which channels are red, green and blue; () if it doesn't say so of three channels.
    """

    name: str
    shape: Shape
    size: tuple[Statement, ...]
    unclear: str
    colours: tuple[int, ...]


def parse_xml(text: str) -> Element | None:
    """Return the root of an XML document; None if it is damaged or defines entities.

    With entities a small document can fill the memory.
    """
    try:
        return fromstring(text.strip("\0 \r\n\t"))
    except (ParseError, ValueError, LookupError):
        return None


def read_ome_images(xml: str) -> list[OmeImage]:
    """Return the images of an OME-XML in its order; none if it is damaged."""
    root = parse_xml(xml)
    if root is None:
        return []
    return [
        _read_image(image, pixels)
        for image in root.iterfind("{*}Image")
        for pixels in image.iterfind("{*}Pixels")
    ]


def match_image(images: Sequence[OmeImage], number: int, shape: Shape) -> OmeImage | None:
    """Return the image that describes a series, by its number if the sizes agree."""
    fitting = [image for image in images if image.shape == shape]
    if number < len(images) and images[number] in fitting:
        return images[number]
    return fitting[0] if len(fitting) == 1 else None


def _read_image(image: Element, pixels: Element) -> OmeImage:
    rows, columns = (parse_number(pixels.get(f"Size{axis}")) for axis in "YX")
    y, x = (
        to_micrometres(
            pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", _UNIT)
        )
        for axis in "YX"
    )
    size = tuple(stated_size("its OME-XML", y, x))
    stated = [f"{key}={value!r}" for key, value in pixels.attrib.items() if "PhysicalSize" in key]
    return OmeImage(
        name=image.get("Name", ""),
        shape=(int(rows or 0), int(columns or 0)),
        size=size,
        unclear="" if size else ", ".join(stated),
        colours=_find_colours(pixels),
    )


def _find_colours(pixels: Element) -> tuple[int, ...]:
    # Blue, green and red are the colours of usual stains, too.
    stated = list(pixels.iterfind("{*}Channel"))
    names = [one.get("Name", "") for one in stated]
    if find_other_names(names) or any(map(_is_fluorescence, stated)):
        return ()
    channels = list(_read_colours(stated))
    found = {colour: number for number, colour in enumerate(channels) if colour is not None}
    return tuple(found[colour] for colour in range(3)) if len(channels) == len(found) == 3 else ()


def _is_fluorescence(channel: Element) -> bool:
    """Return whether a channel is stated to be fluorescence."""
    named = any(key in channel.attrib for key in ("Fluor", "ExcitationWavelength"))
    return named or channel.get("ContrastMethod") == "Fluorescence"


def _read_colours(channels: Sequence[Element]) -> Iterator[int | None]:
    """Yield which of red, green and blue each channel is; None if it isn't clear."""
    for channel in channels:
        name = NAMES.get(channel.get("Name", "").strip().lower())
        try:
            number = int(channel.get("Color", "")) & 0xFFFFFFFF  # RGBA, signed
        except ValueError:
            yield name
        else:
            colour = number >> 24, number >> 16 & 255, number >> 8 & 255
            shown = COLOURS.get(colour, name if colour == (255, 255, 255) else None)
            yield shown if name in (None, shown) else None
