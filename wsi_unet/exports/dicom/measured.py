"""What is measured of objects, with codes and units."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from highdicom.ann import Measurements
from numpy.typing import NDArray
from pydicom.sr.coding import Code

NONE = Code("1", "UCUM", "no units")
_UM = Code("um", "UCUM", "micrometer")
_UM2 = Code("um2", "UCUM", "square micrometer")
_PX = Code("{pixels}", "UCUM", "pixels")
_RADIAN = Code("rad", "UCUM", "radian")

SCHEME = "99WSIUNET"
"""Coding scheme of what has no code: its values are the names of the table's columns."""

_AREA = Code("42798000", "SCT", "Area")
_PERIMETER = Code("131191004", "SCT", "Perimeter")
_MAJOR = Code("131187009", "SCT", "Major Axis")
_MINOR = Code("131188004", "SCT", "Minor Axis")

_KNOWN: dict[str, tuple[Code | None, Code]] = {
    "area_um2": (_AREA, _UM2),
    "perimeter_um": (_PERIMETER, _UM),
    "major_axis_um": (_MAJOR, _UM),
    "minor_axis_um": (_MINOR, _UM),
    "equivalent_diameter_um": (None, _UM),
    "perimeter_px": (_PERIMETER, _PX),
    "major_axis_px": (_MAJOR, _PX),
    "minor_axis_px": (_MINOR, _PX),
    "equivalent_diameter_px": (None, _PX),
    "area_px": (None, _PX),
    "orientation": (None, _RADIAN),
}
"""Name and unit of columns; others are their column's name, without unit."""

_LEFT_OUT = {"id", "uuid", "label", "class", "y", "x", "y_um", "x_um", "bbox", "geometry"}
"""Columns that are no measurements, or that outlines say."""


@dataclass(frozen=True)
class Measure:
    """A column of the table of objects as a measurement.

    Attributes:
        column: its name.
        name: its code.
        unit: the unit's code.
    """

    column: str
    name: Code
    unit: Code

    def make(self, values: NDArray[np.float32]) -> Measurements:
        """Return the measurements of a group of annotations; NaN is left out."""
        return Measurements(name=self.name, values=values, unit=self.unit)


def find_measures(schema: pa.Schema) -> list[Measure]:
    """Return what a table of objects measures, in the order of its columns."""
    return [*_find_measures(schema)]


def _find_measures(schema: pa.Schema) -> Iterator[Measure]:
    for field in schema:
        numeric = pa.types.is_floating(field.type) or pa.types.is_integer(field.type)
        if field.name in _LEFT_OUT or not (numeric or pa.types.is_boolean(field.type)):
            continue
        name, unit = _KNOWN.get(field.name, (None, NONE))
        own = Code(field.name, SCHEME, field.name.replace("_", " "))
        yield Measure(field.name, name or own, unit)


def to_values(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """Return a column as numbers: booleans are 0 and 1, null is NaN."""
    values: NDArray[np.float32] = column.cast(pa.float32()).to_numpy()
    return values
