"""Opening a slide with the reader that suits it."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from wsi_unet.errors import OptionError, SlideError
from wsi_unet.slides.slide import Reader, Slide, UnknownLayoutError
from wsi_unet.slides.zarr_metadata import DOCUMENTS, is_zarr

READERS = {
    "tiffslide": ("tiffslide_reader", "TiffReader"),
    "zarr": ("zarr_reader", "ZarrReader"),
    "image": ("image_reader", "ImageReader"),
    "openslide": ("openslide_reader", "OpenSlideReader"),
    "dicom": ("dicom_reader", "DicomReader"),
}
"""Each reader's module in this package and its class; modules are imported when needed."""

EXTRAS = {"openslide": "openslide", "dicom": "wsidicom"}
"""The readers that come as extras of the same name, and the package that they need."""

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_IMAGES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM")
_OPENSLIDE_ONLY = (".mrxs", ".vms", ".vmu", ".bif")
"""Formats that begin like others (MRXS like a JPEG, BIF like a TIFF), but are more than that."""


def open_slide(path: str | os.PathLike[str], reader: str = "auto") -> Slide:
    """Open a slide for reading.

    Args:
        path: a slide: SVS, NDPI, OME-TIFF or any other (pyramidal) TIFF, an OME-Zarr or Zarr
            array, PNG or JPEG; with the extras, what OpenSlide reads and DICOM.
        reader: "tiffslide", "zarr", "image", "openslide", "dicom", or "auto" to choose by the
            content. A TIFF that tiffslide can't read goes to OpenSlide where that is installed.

    Returns:
        An open slide, to be closed by the caller; its `reader` says which one reads it.

    Raises:
        SlideError: there is no such slide, it is damaged or of an unknown or unsupported kind.
        OptionError: there is no such reader.

    >>> with open_slide("examples/CMU-1-Small-Region.svs") as slide:  # doctest: +SKIP
    ...     slide.shape, slide.mpp
    ((2967, 2220), PixelSize(y=0.499, x=0.499))
    """
    path = Path(path)
    if reader != "auto":
        if reader not in READERS:
            raise OptionError(f"no reader {reader!r}; there are {', '.join(READERS)} and auto")
        _check_exists(path)
        return Slide(path, _load(reader, path)(path))
    chosen = choose_reader(path)
    try:
        return Slide(path, _load(chosen, path)(path))
    except UnknownLayoutError:
        if not _openslide_reads(path):
            raise
        return Slide(path, _load("openslide", path)(path))


def choose_reader(path: Path) -> str:
    """Return the name of the reader for a path, by what it holds rather than what it's called.

    Raises:
        SlideError: nothing there, nothing in it, or nothing known.
    """
    _check_exists(path)
    if path.is_dir():
        return _choose_for_folder(path)
    try:
        with path.open("rb") as file:
            head = file.read(132)
    except OSError as error:
        raise SlideError(f"{path}: can't be read: {error.strerror or error}") from error
    if not head:
        raise SlideError(f"{path}: the file is empty; fetch it again")
    if path.suffix.lower() in _OPENSLIDE_ONLY:
        return "openslide"
    if head.startswith(_TIFF):
        return "tiffslide"
    if head.startswith(_IMAGES):
        return "image"
    if head[128:132] == b"DICM":
        return "dicom"
    if _openslide_reads(path):
        return "openslide"
    raise SlideError(
        f"{path}: isn't a slide in a known format (TIFF, Zarr, PNG, JPEG, DICOM, or with "
        "pip install 'wsi-unet[openslide]' what OpenSlide reads); check the file"
    )


def _choose_for_folder(path: Path) -> str:
    if is_zarr(path):
        return "zarr"
    if next(path.rglob("*.dcm"), None):
        return "dicom"
    raise SlideError(
        f"{path}: is a folder, but neither a Zarr ({', '.join(DOCUMENTS)}) nor one with DICOM "
        "files; give the path of a slide"
    )


def _check_exists(path: Path) -> None:
    try:
        there = path.exists()
    except OSError as error:  # a folder on the way may not be entered, a name is too long
        raise SlideError(f"{path}: can't be looked at: {error.strerror or error}") from error
    if not there:
        raise SlideError(f"{path}: no such file; check the path")


def _load(reader: str, path: Path) -> Callable[[Path], Reader]:
    """Import a reader.

    Raises:
        SlideError: it is an extra that isn't installed.
    """
    module, name = READERS[reader]
    try:
        loaded: Callable[[Path], Reader] = getattr(import_module(f"wsi_unet.slides.{module}"), name)
    except (ImportError, OSError) as error:
        if reader not in EXTRAS:
            raise
        raise SlideError(
            f"{path}: the {reader} reader needs {EXTRAS[reader]} ({error}); "
            f"pip install 'wsi-unet[{reader}]'"
        ) from error
    return loaded


def _openslide_reads(path: Path) -> bool:
    """Whether OpenSlide is installed and knows the file's format."""
    try:
        import openslide
    except (ImportError, OSError):
        return False
    return openslide.OpenSlide.detect_format(path) is not None
