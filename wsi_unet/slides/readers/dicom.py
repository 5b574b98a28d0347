"""DICOM whole-slide images, read by wsidicom."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping

import numpy as np
import wsidicom.errors
from numpy.typing import NDArray
from typing_extensions import override
from wsidicom import WsiDicom

from wsi_unet.colour import to_rgb
from wsi_unet.errors import SlideError
from wsi_unet.geometry import Box
from wsi_unet.locations import Location
from wsi_unet.slides.fingerprint import path_digest
from wsi_unet.slides.levels import PixelSize, make_levels
from wsi_unet.slides.slide import Reader

_ERRORS = (
    wsidicom.errors.WsiDicomError,
    wsidicom.errors.WsiDicomFileError,
    wsidicom.errors.WsiDicomMatchError,
    wsidicom.errors.WsiDicomNotFoundError,
    wsidicom.errors.WsiDicomNoResolutionError,
    wsidicom.errors.WsiDicomNotSupportedError,
    wsidicom.errors.WsiDicomOutOfBoundsError,
    wsidicom.errors.WsiDicomStrictRequirementError,
    wsidicom.errors.WsiDicomUidDuplicateError,
    OSError,
    ValueError,
    KeyError,
    NotImplementedError,
    RuntimeError,
)


class DicomReader(Reader):
    """Reads the pyramid of a DICOM series: one file, or a folder of files."""

    name = "dicom"

    def __init__(self, location: Location) -> None:
        """Open a file or a folder.

        Raises:
            SlideError: it holds no whole-slide image.
        """
        self._path = path = location.path
        self._lock = threading.Lock()
        self._files = sorted(path.rglob("*.dcm")) if path.is_dir() else [path]
        try:
            self._slide = WsiDicom.open(self._files)
        except _ERRORS as error:
            raise SlideError(f"{path}: wsidicom finds no whole-slide image ({error})") from error
        levels = list(self._slide.levels)
        self._numbers = [level.level for level in levels]
        self.levels = make_levels(
            [(level.size.height, level.size.width) for level in levels],
            [(level.tile_size.height, level.tile_size.width) for level in levels],
        )
        self.mpp = PixelSize(float(levels[0].mpp.height), float(levels[0].mpp.width))
        dataset = levels[0].datasets[0]
        self._bits = int(dataset.bits)
        if self._bits != 8:
            self._slide.close()
            raise SlideError(
                f"{path}: its pixels have {self._bits} bits per sample; only 8 bits are supported"
            )
        methods = dataset.lossy_compression_methods or []
        self.compression = str(methods[0]) if methods else None
        self.vendor = "dicom"
        self.properties: Mapping[str, str] = {
            "dicom.files": str(len(self._files)),
            "dicom.photometric": str(dataset.photometric_interpretation),
        }

    @override
    def read(self, level: int, box: Box) -> NDArray[np.uint8]:
        rows, columns = box.shape
        try:
            # Each of its file handles has one position, which threads would have to share.
            with self._lock:
                region = self._slide.read_region(
                    (box.x0, box.y0), self._numbers[level], (columns, rows)
                )
        except _ERRORS as error:
            raise SlideError(
                f"{self._path}: {box} of level {level} can't be read ({error})"
            ) from error
        pixels = np.asarray(region)
        return np.ascontiguousarray(to_rgb(pixels[..., None] if pixels.ndim == 2 else pixels))

    @override
    def fingerprint(self) -> str:
        """Return a hash of every file's size and ends, whatever their names."""
        digests = sorted(path_digest(file, "dicom") for file in self._files)
        return hashlib.sha256("".join(digests).encode()).hexdigest()

    @override
    def close(self) -> None:
        self._slide.close()
