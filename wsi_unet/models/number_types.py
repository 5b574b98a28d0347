"""Number types, by the names that torch and safetensors have for them, and sizes of tensors."""

from __future__ import annotations

from typing import Any, Literal

Precision = Literal["float32", "bfloat16", "float16"]
"""Number types that a network can run in."""

ITEM_BYTES = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
}
"""Bytes of one number, by torch's name of its type."""

TORCH_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
"""Torch's name of a type, by that of safetensors."""

WEIGHT_TYPES = ("F64", "F32", "F16", "BF16")
"""Number types that a model's weights may be stored in, by their names in safetensors."""

MOST_AXES = 8
"""The most axes that a tensor may have."""


def is_size(number: Any) -> bool:
    """Return whether something is a whole number that can be a size or an offset."""
    return type(number) is int and 0 <= number < 2**62
