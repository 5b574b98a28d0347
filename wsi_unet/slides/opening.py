"""Opening a slide with the reader that suits its format."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec

from wsi_unet.errors import OptionError, SlideError, foreign_errors_as, os_errors_as
from wsi_unet.image_files import JPEG_HEAD, PNG_HEAD, TIFF_HEADS
from wsi_unet.locations import Location
from wsi_unet.slides.deadline import call_within
from wsi_unet.slides.readers.dicom_files import find_dicom_files, is_dicom
from wsi_unet.slides.readers.turned import read_upright
from wsi_unet.slides.readers.zarr_metadata import DOCUMENTS, is_zarr
from wsi_unet.slides.slide import Reader, Slide, UnknownLayoutError
from wsi_unet.slides.sources.opening import open_folder, open_source
from wsi_unet.slides.sources.source import ByteSource

READERS = {
    "tiffslide": ("tiff", "TiffReader"),
    "zarr": ("zarr", "ZarrReader"),
    "image": ("image", "ImageReader"),
    "openslide": ("openslide", "OpenSlideReader"),
    "dicom": ("dicom", "DicomReader"),
}
"""The module in `wsi_unet.slides.readers` and the class of each reader, imported when needed."""

EXTRAS = {"openslide": "openslide", "dicom": "wsidicom"}
"""The readers that are extras of the same name, and the package that each needs."""

FILE_READERS = ("tiffslide", "image")
"""The readers that are given an open file; the others are given its location."""

SERIES_READERS = ("tiffslide", "zarr", "dicom")
"""The readers of files and folders that may hold several images."""

LOCAL_READERS = ("openslide", "dicom")
"""The readers whose libraries open files themselves, so only on a disk."""

OPENING_SECONDS = 300.0
"""How long opening a slide may take; a file in an object store takes some seconds at worst."""

_IMAGE_HEADS = (PNG_HEAD, JPEG_HEAD, b"BM")
HEAD_BYTES = 132
"""The number of first bytes from which a file's format is detected."""

_OPENSLIDE_ONLY = (".mrxs", ".vms", ".vmu", ".bif")
"""Formats that begin like another (MRXS like JPEG, BIF like TIFF), recognised by suffix."""


def open_slide(
    path: str | os.PathLike[str] | Location,
    reader: str = "auto",
    *,
    series: str | int | None = None,
) -> Slide:
    """Open a slide for reading.

    Args:
        path: the path or s3:// URL of an SVS, NDPI, OME-TIFF or any other (pyramidal) TIFF, an
            OME-Zarr or Zarr array, a PNG or JPEG; with the extras also the path of a DICOM series
            or of anything that OpenSlide reads.
        reader: "tiffslide", "zarr", "image", "openslide", "dicom", or "auto" to choose by the
            content. A TIFF that tiffslide can't read goes to OpenSlide where that is installed.
        series: the number or the name of one of several images in the file or folder
            (`Slide.series`); None for the largest.

    Returns:
        An open slide, which the caller closes; its `reader` says what reads it.

    Raises:
        SlideError: there is no such slide, it is damaged, too large or of an unsupported format,
            several of its images are of about the same size, or opening it takes longer than
            `OPENING_SECONDS`.
        OptionError: there is no such reader, or URLs of this kind can't be read.

    >>> with open_slide("examples/CMU-1-Small-Region.svs") as slide:  # doctest: +SKIP
    ...     slide.shape, slide.mpp
    ((2967, 2220), PixelSize(y=0.499, x=0.499))
    """
    if reader != "auto" and reader not in READERS:
        raise OptionError(
            f"there is no reader {reader!r}; choose from auto, {', '.join(READERS)}",
            option="reader",
        )
    location = Location.parse(path)
    try:
        wanted = None if series is None else str(series)
        return call_within(
            OPENING_SECONDS, lambda: _open_with(reader, location, wanted), Slide.close
        )
    except TimeoutError as error:
        raise SlideError(
            f"{location}: not open after {OPENING_SECONDS:.0f} s; if other files can be read "
            "there, this one is damaged, or of a kind that only another `reader` knows"
        ) from error


def _open_with(reader: str, location: Location, series: str | None) -> Slide:
    """Open a slide with a reader, or with the one that suits it ("auto")."""
    with foreign_errors_as(SlideError, f"{location}: can't be opened"):
        source = _open(location)
        try:
            chosen = choose_reader(location, source) if reader == "auto" else reader
            return Slide(location, _read_with(chosen, location, source, series))
        except UnknownLayoutError as error:
            if reader != "auto" or location.is_url or not _openslide_reads(location):
                raise
            try:
                return Slide(location, _read_with("openslide", location, None, series))
            except SlideError:
                raise error from None
        except BaseException:
            if source is not None:
                source.close()
            raise


def choose_reader(location: Location, source: ByteSource | None) -> str:
    """Return the name of the reader for a slide, by its content rather than its name.

    Args:
        location: where the slide is.
        source: the open file; None for a folder.

    Raises:
        SlideError: it is empty, or its format is unknown.
    """
    if source is None:
        return _choose_for_folder(location)
    with os_errors_as(SlideError, location):
        head = source.request([(0, HEAD_BYTES)]).get(0)
    if not head:
        raise SlideError(f"{location}: the file is empty; fetch it again")
    if location.name.lower().endswith(_OPENSLIDE_ONLY):
        return "openslide"
    if head.startswith(TIFF_HEADS):
        return "tiffslide"
    if head.startswith(_IMAGE_HEADS):
        return "image"
    if is_dicom(head):
        return "dicom"
    if not location.is_url and _openslide_reads(location):
        return "openslide"
    more = "what OpenSlide reads"
    if location.is_url:
        more = "on a disk what OpenSlide reads"
    elif find_spec("openslide") is None:
        more = "with pip install 'wsi-unet[openslide]' what OpenSlide reads"
    raise SlideError(
        f"{location}: isn't a slide in a known format (TIFF, Zarr, PNG, JPEG, DICOM, or {more}); "
        "check the file"
    )


def _choose_for_folder(location: Location) -> str:
    if is_zarr(open_folder(location)):
        return "zarr"
    if not location.is_url and next(find_dicom_files(location.path), None):
        return "dicom"
    raise SlideError(
        f"{location}: is a folder, but neither a Zarr ({', '.join(DOCUMENTS)}) nor one with DICOM "
        "files; give the path of a slide"
    )


def _open(location: Location) -> ByteSource | None:
    """Open a slide's file; return None if it is a folder.

    Raises:
        SlideError: there is neither, or it can't be read.
    """
    with os_errors_as(SlideError, location):  # such as a folder without access, too long a name
        if not location.is_url and location.path.is_dir():
            return None
        if location.parent == location:
            raise SlideError(f"{location}: is a bucket; give the URL of a slide in it")
        try:
            return open_source(location)
        except FileNotFoundError as error:
            if not location.is_url:
                raise SlideError(f"{location}: no such file; check the path") from error
            if is_zarr(open_folder(location)):
                return None
            raise SlideError(f"{location}: {error.strerror}") from error


def _read_with(
    reader: str, location: Location, source: ByteSource | None, series: str | None
) -> Reader:
    """Open a reader, which owns the source from here on.

    Raises:
        SlideError: it can't read the slide, or is an extra that isn't installed.
    """
    if reader in LOCAL_READERS and location.is_url:
        raise SlideError(
            f"{location}: the {reader} reader only reads files on a disk; copy the slide there "
            "first"
        )
    if series is not None and reader not in SERIES_READERS:
        raise SlideError(
            f"{location}: the {reader} reader knows no series to choose from; leave `series` out"
        )
    open_with = _import_reader(reader, location)
    if reader in FILE_READERS and source is None:
        raise SlideError(f"{location}: is a folder; give the path of a slide")
    if reader not in FILE_READERS and source is not None:
        source.close()
    with foreign_errors_as(SlideError, f"{location}: the {reader} reader can't open it"):
        opened = open_with(
            source if reader in FILE_READERS else location,
            **({} if series is None else {"series": series}),
        )
        return read_upright(opened)


def _import_reader(reader: str, location: Location) -> Callable[..., Reader]:
    """Import the class of a reader.

    Raises:
        SlideError: it is an extra that isn't installed.
    """
    module, name = READERS[reader]
    try:
        loaded: Callable[..., Reader] = getattr(
            import_module(f"wsi_unet.slides.readers.{module}"), name
        )
    except (ImportError, OSError) as error:
        if reader not in EXTRAS:
            raise
        cure = f"pip install 'wsi-unet[{reader}]'"
        if find_spec(EXTRAS[reader]) is not None:
            cure = "it is installed, but can't be loaded: install it anew"
        raise SlideError(
            f"{location}: the {reader} reader needs {EXTRAS[reader]} ({error}); {cure}"
        ) from error
    return loaded


def _openslide_reads(location: Location) -> bool:
    """Return whether OpenSlide is installed and knows the file's format."""
    try:
        import openslide
    except (ImportError, OSError):
        return False
    with foreign_errors_as(SlideError, f"{location}: OpenSlide can't look at it"):
        return openslide.OpenSlide.detect_format(location.path) is not None
