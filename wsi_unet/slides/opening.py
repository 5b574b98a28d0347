"""Opening a slide with the reader that suits it."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from wsi_unet import locations
from wsi_unet.errors import OptionError, SlideError
from wsi_unet.slides.readers.zarr_metadata import DOCUMENTS, is_zarr
from wsi_unet.slides.slide import Reader, Slide, UnknownLayoutError
from wsi_unet.slides.sources.folder import open_folder
from wsi_unet.slides.sources.opening import open_source
from wsi_unet.slides.sources.source import ByteSource

READERS = {
    "tiffslide": ("tiff", "TiffReader"),
    "zarr": ("zarr", "ZarrReader"),
    "image": ("image", "ImageReader"),
    "openslide": ("openslide", "OpenSlideReader"),
    "dicom": ("dicom", "DicomReader"),
}
"""Each reader's module in `wsi_unet.slides.readers` and its class; imported when needed."""

EXTRAS = {"openslide": "openslide", "dicom": "wsidicom"}
"""The readers that come as extras of the same name, and the package that they need."""

OF_FILES = ("tiffslide", "image")
"""The readers that read one open file; the others are given its location."""

LOCAL = ("openslide", "dicom")
"""The readers whose libraries open files themselves, on a disk."""

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_IMAGES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM")
HEAD = 132
"""How many of a file's first bytes tell what it is."""

_OPENSLIDE_ONLY = (".mrxs", ".vms", ".vmu", ".bif")
"""Formats that begin like others (MRXS like a JPEG, BIF like a TIFF), but are more than that."""


def open_slide(path: str | os.PathLike[str], reader: str = "auto") -> Slide:
    """Open a slide for reading.

    Args:
        path: a slide: SVS, NDPI, OME-TIFF or any other (pyramidal) TIFF, an OME-Zarr or Zarr
            array, PNG or JPEG, as a path or an s3:// URL; with the extras, what OpenSlide reads
            and DICOM, as a path.
        reader: "tiffslide", "zarr", "image", "openslide", "dicom", or "auto" to choose by the
            content. A TIFF that tiffslide can't read goes to OpenSlide where that is installed.

    Returns:
        An open slide, to be closed by the caller; its `reader` says which one reads it.

    Raises:
        SlideError: there is no such slide, it is damaged or of an unknown or unsupported kind.
        OptionError: there is no such reader, or the URL is of no kind that can be read.

    >>> with open_slide("examples/CMU-1-Small-Region.svs") as slide:  # doctest: +SKIP
    ...     slide.shape, slide.mpp
    ((2967, 2220), PixelSize(y=0.499, x=0.499))
    """
    if reader != "auto" and reader not in READERS:
        raise OptionError(f"no reader {reader!r}; there are {', '.join(READERS)} and auto")
    location = locations.resolve(os.fspath(path))
    source = _open(location)
    try:
        chosen = choose_reader(location, source) if reader == "auto" else reader
        return Slide(location, _read_with(chosen, location, source))
    except UnknownLayoutError:
        if reader != "auto" or locations.is_url(location) or not _openslide_reads(location):
            raise
        return Slide(location, _read_with("openslide", location, None))
    except BaseException:
        if source is not None:
            source.close()
        raise


def choose_reader(location: str, source: ByteSource | None) -> str:
    """Return the name of the reader for a slide, by what it holds rather than what it's called.

    Args:
        location: of the slide.
        source: the open file; None for a folder.

    Raises:
        SlideError: nothing in it, or nothing known.
    """
    if source is None:
        return _choose_for_folder(location)
    try:
        head = source.request([(0, HEAD)]).get(0)
    except OSError as error:
        raise SlideError(f"{location}: can't be read: {error.strerror or error}") from error
    if not head:
        raise SlideError(f"{location}: the file is empty; fetch it again")
    if location.lower().endswith(_OPENSLIDE_ONLY):
        return "openslide"
    if head.startswith(_TIFF):
        return "tiffslide"
    if head.startswith(_IMAGES):
        return "image"
    if head[128:132] == b"DICM":
        return "dicom"
    if not locations.is_url(location) and _openslide_reads(location):
        return "openslide"
    raise SlideError(
        f"{location}: isn't a slide in a known format (TIFF, Zarr, PNG, JPEG, DICOM, or with "
        "pip install 'wsi-unet[openslide]' what OpenSlide reads); check the file"
    )


def _choose_for_folder(location: str) -> str:
    if is_zarr(open_folder(location)):
        return "zarr"
    if not locations.is_url(location) and next(Path(location).rglob("*.dcm"), None):
        return "dicom"
    raise SlideError(
        f"{location}: is a folder, but neither a Zarr ({', '.join(DOCUMENTS)}) nor one with DICOM "
        "files; give the path of a slide"
    )


def _open(location: str) -> ByteSource | None:
    """Open a slide's file; None for a folder.

    Raises:
        SlideError: there is neither, or it can't be read.
    """
    try:
        if not locations.is_url(location) and Path(location).is_dir():
            return None
        if locations.parent(location) == location:
            raise SlideError(f"{location}: is a bucket; give the URL of a slide in it")
        return open_source(location)
    except FileNotFoundError as error:
        if not locations.is_url(location):
            raise SlideError(f"{location}: no such file; check the path") from error
        if is_zarr(open_folder(location)):
            return None
        raise SlideError(f"{location}: {error.strerror}") from error
    except OSError as error:  # a folder on the way may not be entered, a name is too long
        raise SlideError(f"{location}: can't be read: {error.strerror or error}") from error


def _read_with(reader: str, location: str, source: ByteSource | None) -> Reader:
    """Return an open reader; it owns the source from here on.

    Raises:
        SlideError: it can't read the slide, or is an extra that isn't installed.
    """
    if reader in LOCAL and locations.is_url(location):
        raise SlideError(
            f"{location}: the {reader} reader reads files on a disk only; copy the slide there "
            "first"
        )
    made = _load(reader, location)
    if reader in OF_FILES:
        if source is None:
            raise SlideError(f"{location}: is a folder; give the path of a slide")
        return made(source)
    if source is not None:
        source.close()
    return made(location)


def _load(reader: str, location: str) -> Callable[..., Reader]:
    """Import a reader.

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
        raise SlideError(
            f"{location}: the {reader} reader needs {EXTRAS[reader]} ({error}); "
            f"pip install 'wsi-unet[{reader}]'"
        ) from error
    return loaded


def _openslide_reads(location: str) -> bool:
    """Whether OpenSlide is installed and knows the file's format."""
    try:
        import openslide
    except (ImportError, OSError):
        return False
    return openslide.OpenSlide.detect_format(location) is not None
