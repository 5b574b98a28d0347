"""A class of the labels as a PNG mask, at one level of the pyramid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from wsi_unet.errors import OptionError
from wsi_unet.exports.destination import write_file
from wsi_unet.exports.options import ExportOptions
from wsi_unet.exports.progress import ExportMeter
from wsi_unet.exports.provenance import KEY, encode, is_ours
from wsi_unet.exports.results import ExportedGroup, ExportedResult
from wsi_unet.geometry import Box
from wsi_unet.png_files import PngWriter

CLASS, NOT_PREDICTED = 255, 128
"""Values of a mask's pixels; everything else is 0."""

STRIP_ROWS = 512
"""Rows that are read at once: those of an inner chunk of the labels."""


def export_png(
    result: ExportedResult, path: Path, options: ExportOptions, meter: ExportMeter
) -> list[Path]:
    """Write a class of the labels as an 8-bit grey PNG.

    A pixel is 255 in the class, 128 where the model didn't look, and 0 elsewhere.

    Raises:
        OptionError: there is no such class or level, or there are several classes and none is
            named.
        OutputError: the result has several label groups, or a shard is damaged.
    """
    group = result.only_group
    value = _find_class(group, options.class_name)
    level = group.open_level(options.level or 0)
    rows, columns = level.shape
    meter.start(rows * columns, "px")
    with write_file(path) as file:
        text = {KEY: encode(result.describe())}
        writer = PngWriter(file, columns, rows, channels=1, text=text)
        for top in range(0, rows, STRIP_ROWS):
            box = Box(top, 0, min(top + STRIP_ROWS, rows), columns)
            mask = np.where(level.read(box) == value, np.uint8(CLASS), np.uint8(0))
            if not level.predicted_everywhere:
                mask[~level.read_predicted(box)] = NOT_PREDICTED
            writer.write(mask)
            meter.add(mask.size)
        writer.close()
    return [path]


def is_png(path: Path) -> bool:
    """Return whether a file is a mask that `export_png` wrote."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            return is_ours(image.info.get(KEY, ""))
    except (UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def _find_class(group: ExportedGroup, name: str | None) -> int:
    """Return the label value of a class; None means the only one.

    Raises:
        OptionError: there is none of that name, or there are several and none is named.
    """
    values = {each: value for value, each in group.source.classes.items()}
    if name is None and len(values) == 1:
        return next(iter(values.values()))
    if name not in values:
        given = "there are several classes" if name is None else f"`class_name` is {name!r}"
        raise OptionError(
            f"{given}; give `class_name` one of {', '.join(values)}", option="class_name"
        )
    return values[name]
