"""DICOM whole-slide images, read by wsidicom."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override
from wsidicom import WsiDicom

from wsi_unet.colour import to_rgb
from wsi_unet.errors import SlideError, foreign_errors_as
from wsi_unet.geometry import Box
from wsi_unet.locations import Location
from wsi_unet.slides.fingerprint import path_digest
from wsi_unet.slides.levels import make_levels
from wsi_unet.slides.pixel_size import choose_size, parse_number, stated_size
from wsi_unet.slides.readers.dicom_files import find_dicom_files
from wsi_unet.slides.readers.dicom_series import find_series
from wsi_unet.slides.series import choose_series, mention_others
from wsi_unet.slides.slide import Reader


class DicomReader(Reader):
    """Reads the pyramid of a DICOM series: one file, or a folder of files.

    Attributes:
        files: the files that are read.
    """

    name = "dicom"

    def __init__(self, location: Location, series: str | None = None) -> None:
        """Open a file or a folder.

        Args:
            location: the file or folder.
            series: number or name of the series to read; None for the largest.

        Raises:
            SlideError: it holds no whole-slide image, or several of about the same size.
        """
        self._path = location.path
        self._lock = threading.Lock()
        self.files = [self._path]
        if self._path.is_dir():
            self.files = list(find_dicom_files(self._path))
        self._choose(series)
        with foreign_errors_as(SlideError, f"{self._path}: wsidicom finds no whole-slide image"):
            self._slide = WsiDicom.open(self.files)
        try:
            self._keep_metadata()
        except BaseException:
            self._slide.close()
            raise

    def _choose(self, wanted: str | None) -> None:
        """Keep the files of one series, if there are several or one is wanted."""
        found = find_series(self.files)
        if wanted is None and len(found) < 2:
            return
        self.series = tuple(series.describe() for series in found)
        try:
            number = choose_series(self.series, wanted)
        except SlideError as error:
            raise SlideError(f"{self._path}: {error}") from error
        if wanted is None:
            self.warnings += mention_others(self.series, number)
        self.files = found[number].files

    def _keep_metadata(self) -> None:
        levels = list(self._slide.levels)
        self._numbers = [level.level for level in levels]
        self.levels = make_levels(
            [(level.size.height, level.size.width) for level in levels],
            [(level.tile_size.height, level.tile_size.width) for level in levels],
        )
        y, x = (parse_number(side) for side in (levels[0].mpp.height, levels[0].mpp.width))
        self.mpp, _ = choose_size(stated_size("its pixel spacing", y, x))
        dataset = levels[0].datasets[0]
        self._bits = int(dataset.bits)
        if self._bits != 8:
            raise SlideError(
                f"{self._path}: its pixels have {self._bits} bits per sample; only 8 bits are "
                "supported"
            )
        methods = dataset.lossy_compression_methods or []
        self.compression = str(methods[0]) if methods else None
        self.vendor = "dicom"
        photometric = str(dataset.photometric_interpretation)
        self.colours = 1 if photometric.startswith("MONOCHROME") else 3
        self.properties: Mapping[str, str] = {
            "dicom.files": str(len(self.files)),
            "dicom.photometric": photometric,
        }

    @override
    def read(self, level: int, box: Box) -> NDArray[np.uint8]:
        rows, columns = box.shape
        # Each of its file handles has one position, which threads would have to share.
        with self._lock:
            origin, number = (box.x0, box.y0), self._numbers[level]
            region = self._slide.read_region(origin, number, (columns, rows))
        pixels = np.asarray(region)
        return np.ascontiguousarray(to_rgb(pixels[..., None] if pixels.ndim == 2 else pixels))

    @override
    def fingerprint(self) -> str:
        """Return a hash of every file's size and ends, whatever their names."""
        digests = sorted(path_digest(file, "dicom") for file in self.files)
        return hashlib.sha256("".join(digests).encode()).hexdigest()

    @override
    def close(self) -> None:
        self._slide.close()
