"""What QuPath shows of each object: the table's numbers under names as QuPath gives them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

UNITS: Mapping[str, str] = {"um": "µm", "px": "px"}
"""What lengths are in, by the ends of their columns' names."""

PIXELS, AREA = "area_px", "area_um2"

LEFT_OUT = frozenset(
    {"id", "uuid", "label", "class", "y", "x", "y_um", "x_um", PIXELS, AREA, "bbox", "geometry"}
)
"""Columns that are no measurement, or told otherwise."""

_ABBREVIATIONS = {"dab": "DAB"}
_STATISTICS = {"mean": "Mean", "sd": "Std.Dev."}


def name_measurement(column: str) -> str:
    """Return what QuPath calls a column of the table.

    >>> name_measurement("major_axis_um"), name_measurement("sd_eosin"), name_measurement("cut")
    ('Major axis µm', 'Eosin: Std.Dev.', 'Cut')
    """
    begin, _, rest = column.partition("_")
    if rest and begin in _STATISTICS:
        return f"{_write_words(rest)}: {_STATISTICS[begin]}"
    name, _, unit = column.rpartition("_")
    if name and unit in UNITS:
        return f"{_write_words(name)} {UNITS[unit]}"
    return _write_words(column)


def _write_words(name: str) -> str:
    return _ABBREVIATIONS.get(name) or name.replace("_", " ").capitalize()


def list_columns(columns: Sequence[str]) -> list[str]:
    """Return which of a table's columns are measurements, in their order."""
    return [name for name in columns if name not in LEFT_OUT]


def write_measurements(
    table: pa.Table, unit: Literal["µm", "px"], pixel_area: float
) -> list[pa.Array | str]:
    """Return the measurements of objects as the pieces of a JSON object, one after the other.

    Numbers have the seven digits of single precision; what isn't a number is the text "NaN", which
    is how QuPath reads and writes it.

    Args:
        table: (n,) rows of the table of objects.
        unit: what lengths are in.
        pixel_area: area of a pixel of the labels in squares of that unit.
    """
    pixels = table[PIXELS].to_numpy()
    pieces: list[pa.Array | str] = [f'{{"Area {unit}^2":', _write_numbers(pixels * pixel_area)]
    for name in list_columns(table.schema.names):
        key = json.dumps(name_measurement(name), ensure_ascii=False)
        pieces += [f",{key}:", _write_column(table[name].combine_chunks())]
    return [*pieces, "}"]


def _write_column(column: pa.Array) -> pa.Array:
    if pa.types.is_boolean(column.type):
        return pc.if_else(column, "1", "0")
    return _write_numbers(column.to_numpy(zero_copy_only=False))


def _write_numbers(numbers: np.typing.NDArray[np.float64]) -> pa.Array:
    single = numbers.astype(np.float32)
    texts = pc.cast(pa.array(single), pa.string())
    finite = np.isfinite(single)
    return texts if finite.all() else pc.if_else(pa.array(finite), texts, '"NaN"')
