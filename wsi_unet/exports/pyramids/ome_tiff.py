"""Results as pyramidal OME-TIFF: one picture or array of theirs, tiled, its levels as SubIFDs.

https://docs.openmicroscopy.org/ome-model/6.3.1/ome-tiff/specification.html
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from wsi_unet._version import __version__
from wsi_unet.colour import Colour
from wsi_unet.cores import usable_cores
from wsi_unet.errors import OptionError, OutputError, foreign_errors_as
from wsi_unet.exports.destination import write_file
from wsi_unet.exports.options import ExportOptions
from wsi_unet.exports.progress import ExportMeter
from wsi_unet.exports.provenance import is_ours
from wsi_unet.exports.pyramids.arrays import (
    WHITE,
    ExportedPyramid,
    Meaning,
    open_image_pyramid,
    open_label_pyramid,
    open_only_probabilities,
)
from wsi_unet.exports.pyramids.ome_xml import OmeImage, make_ome_xml, read_provenance
from wsi_unet.exports.pyramids.tiles import TILE, compress, cut_bands, split_band
from wsi_unet.exports.results import NOT_PREDICTED, ExportedResult
from wsi_unet.geometry import Box, Shape
from wsi_unet.objects.provenance import CREATOR
from wsi_unet.storage.concurrent import map_in_threads

BLACK: Colour = (0, 0, 0)
"""Colour of a channel that viewers add to the others, but that shouldn't hide them."""

PREDICTOR = 2
"""TIFF's number for differences between neighbours in a row, which suit photographs."""


@dataclass(frozen=True, eq=False)
class TiffPicture:
    """What an OME-TIFF shows.

    Attributes:
        shapes: (rows, columns) of each level, px.
        image: what its OME-XML says.
        make_tiles: returns the tiles (TILE, TILE) or (TILE, TILE, 3) of a band of a level's plane.
        palette: (3, 256) colours of the pixels, 16 bits each; None: they are no indices.
        predictor: whether tiles hold differences between neighbours.
    """

    shapes: tuple[Shape, ...]
    image: OmeImage
    make_tiles: Callable[[int, Box, int], Iterator[NDArray[np.uint8]]]
    palette: NDArray[np.uint16] | None = None
    predictor: bool = False

    @property
    def planes(self) -> int:
        """Number of its planes, each of which has a directory of its own."""
        return len(self.image.channels)

    @property
    def layout(self) -> dict[str, Any]:
        """How the pixels of a level are laid out, as tifffile's options."""
        facts: dict[str, Any] = {"dtype": np.uint8, "compression": "adobe_deflate"}
        if self.image.samples > 1:
            facts |= {"photometric": "rgb", "planarconfig": "contig"}
        elif self.palette is not None:
            facts |= {"photometric": "palette", "colormap": self.palette}
        else:
            facts |= {"photometric": "minisblack"}
        return facts | ({"predictor": PREDICTOR} if self.predictor else {})


def export_ome_tiff(
    result: ExportedResult, path: Path, options: ExportOptions, meter: ExportMeter
) -> list[Path]:
    """Write labels, a picture of them, probabilities or the slide's image as an OME-TIFF.

    Tiles are compressed by several threads and written as they come; memory doesn't grow with the
    slide.

    Raises:
        OptionError: it isn't known what to write.
        OutputError: the result hasn't got that, has it several times, or a shard is damaged.
    """
    picture = _open_picture(result, options.what or "labels")
    description = make_ome_xml(picture.image, result.describe())
    meter.start(picture.planes * sum(rows * columns for rows, columns in picture.shapes), "px")
    with write_file(path) as file:
        _write(file, picture, description, meter)
    return [path]


def _open_picture(result: ExportedResult, what: str) -> TiffPicture:
    """Return what a file shows.

    Raises:
        OptionError: there is no such thing to show, or it can't be shown right.
        OutputError: the result hasn't got it, or has it several times.
    """
    if what not in _PICTURES:
        raise OptionError(f"`what` is {what!r}; give one of {', '.join(_PICTURES)}", option="what")
    return _PICTURES[what](result)


def _make_labels_picture(result: ExportedResult) -> TiffPicture:
    """Return the labels as indices of a palette."""
    pyramid = open_label_pyramid(result.only_group)
    return TiffPicture(
        pyramid.without_small_levels(),
        _describe(result, pyramid, "Class labels", [(pyramid.name, None)], values=pyramid.values),
        lambda level, band, _: split_band(pyramid.read(level, band)),
        palette=_make_palette(pyramid.values).T.astype(np.uint16) * np.uint16(257),
    )


def _make_overlay_picture(result: ExportedResult) -> TiffPicture:
    """Return the labels in the colours of their classes, background white."""
    pyramid = open_label_pyramid(result.only_group)
    hidden = [each.name for value, each in pyramid.values.items() if value and each.colour == WHITE]
    if hidden:
        raise OptionError(
            f"`what` is 'overlay', but the class {hidden[0]!r} is white, as background is; give "
            "`what='labels'`, or segment with another colour in the model's card",
            option="what",
        )
    palette = _make_palette(pyramid.values)

    def make_tiles(level: int, band: Box, _: int) -> Iterator[NDArray[np.uint8]]:
        for tile in split_band(pyramid.read(level, band)):
            yield np.take(palette, tile, axis=0)

    colours = "; ".join(
        f"{each.name} #{bytes(each.colour).hex()}" for each in pyramid.values.values()
    )
    return TiffPicture(
        pyramid.without_small_levels(),
        _describe(result, pyramid, f"Colours of classes ({colours})", [("RGB", None)], samples=3),
        make_tiles,
    )


def _make_probabilities_picture(result: ExportedResult) -> TiffPicture:
    """Return the probabilities of each class, 0 to 255, in a channel of its own."""
    pyramid = open_only_probabilities(result)
    channels = [(each.name, each.colour if each.shown else BLACK) for each in pyramid.channels]
    return TiffPicture(
        pyramid.without_small_levels(),
        _describe(result, pyramid, "Probabilities of classes, 0 to 255 for 0 to 1", channels),
        lambda level, band, plane: split_band(pyramid.read(level, band)[plane]),
    )


def _make_image_picture(result: ExportedResult) -> TiffPicture:
    """Return the stored image of the slide.

    Raises:
        OutputError: none is stored.
    """
    pyramid = open_image_pyramid(result)
    if pyramid is None:
        raise OutputError(
            f"{result.location}: no image of the slide is stored; segment again with "
            "`image='full'` or `image='overview'`, which adds it"
        )

    def make_tiles(level: int, band: Box, _: int) -> Iterator[NDArray[np.uint8]]:
        for tile in split_band(pyramid.read(level, band)):
            yield np.ascontiguousarray(np.moveaxis(tile, 0, -1))

    return TiffPicture(
        pyramid.without_small_levels(),
        _describe(result, pyramid, "The slide", [("RGB", None)], samples=3),
        make_tiles,
        predictor=True,
    )


_PICTURES: Mapping[str, Callable[[ExportedResult], TiffPicture]] = {
    "labels": _make_labels_picture,
    "overlay": _make_overlay_picture,
    "probabilities": _make_probabilities_picture,
    "image": _make_image_picture,
}
"""What makes each picture that `what` names."""


def _describe(
    result: ExportedResult,
    pyramid: ExportedPyramid,
    what: str,
    channels: Sequence[tuple[str, Colour | None]],
    *,
    samples: int = 1,
    values: Mapping[int, Meaning] | None = None,
) -> OmeImage:
    slide = result.groups[0].source.provenance.slide.name
    label = "" if pyramid.name == slide else f" {pyramid.name}"
    marked = pyramid.not_predicted is not None
    told = f" Where the model didn't look is {NOT_PREDICTED!r}." if marked else ""
    return OmeImage(
        name=f"{slide}{label}",
        description=f"{what}.{told} Written by {CREATOR} from {slide}.",
        shape=pyramid.shapes[0],
        mpp=pyramid.mpp,
        channels=channels,
        samples=samples,
        values=values or {},
    )


def _make_palette(values: Mapping[int, Meaning]) -> NDArray[np.uint8]:
    """Return the colours (256, 3) of label values; those that mean nothing are black."""
    palette = np.zeros((256, 3), np.uint8)
    for value, meaning in values.items():
        palette[value] = meaning.colour
    return palette


def is_ome_tiff(path: Path) -> bool:
    """Return whether a file is an OME-TIFF that `export_ome_tiff` wrote."""
    from tifffile import TiffFile

    try:
        with foreign_errors_as(OutputError, "no TIFF"), path.open("rb") as file:
            with TiffFile(file) as tiff:
                description = str(tiff.pages.first.description)
            return is_ours(read_provenance(description))
    except OutputError:
        return False


def _write(file: BinaryIO, picture: TiffPicture, description: bytes, meter: ExportMeter) -> None:
    from tifffile import TiffWriter

    with TiffWriter(file, bigtiff=True, byteorder="<") as tiff:
        for level, shape in enumerate(picture.shapes):
            full = (picture.planes, *shape) if picture.planes > 1 else shape
            own = {"subifds": len(picture.shapes) - 1, "description": description}
            with closing(_encode_level(picture, level, meter)) as tiles:
                tiff.write(
                    tiles,
                    shape=(*full, 3) if picture.image.samples > 1 else full,
                    tile=(TILE, TILE),
                    metadata=None,
                    software=f"{CREATOR} {__version__}",
                    **picture.layout,
                    **_describe_resolution(picture.image.mpp, level),
                    **(own if level == 0 else {"subfiletype": 1}),
                )


def _describe_resolution(mpp: tuple[float, float] | None, level: int) -> dict[str, Any]:
    """Return the resolution of a level, px per cm, as tifffile's options."""
    if mpp is None:
        return {}
    y, x = (1e4 / (size * (1 << level)) for size in mpp)
    return {"resolution": (x, y), "resolutionunit": "CENTIMETER"}


def _encode_level(picture: TiffPicture, level: int, meter: ExportMeter) -> Generator[bytes]:
    """Yield the compressed tiles of a level, plane by plane, row by row."""
    for plane in range(picture.planes):

        def encode(band: Box, plane: int = plane) -> tuple[int, list[bytes]]:
            tiles = picture.make_tiles(level, band, plane)
            return band.area, [_encode(tile, predictor=picture.predictor) for tile in tiles]

        for pixels, tiles in map_in_threads(
            encode, cut_bands(picture.shapes[level]), usable_cores()
        ):
            yield from tiles
            meter.add(pixels)


def _encode(tile: NDArray[np.uint8], *, predictor: bool) -> bytes:
    if predictor:
        import imagecodecs

        tile = imagecodecs.delta_encode(tile, axis=1)
    return compress(tile)
