"""Names that pickles of checkpoints may mention: classes and functions that only hold data.

None of them is ever imported or called here; a name that isn't listed is refused.
"""

from __future__ import annotations

from wsi_unet.models.number_types import ITEM_BYTES

STORAGE_TYPES = {
    "torch.DoubleStorage": "float64",
    "torch.FloatStorage": "float32",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "int64",
    "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
}
"""Number types of storages, by the class that PyTorch names for them."""

TENSORS = {"torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"}
PARAMETERS = {"torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"}

_BUILTINS = ("builtins", "__builtin__")
_NUMPY_CORE = ("numpy.core", "numpy._core")

DICTIONARIES = {
    "collections.Counter",
    "collections.OrderedDict",
    "collections.defaultdict",
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    *(f"{module}.dict" for module in _BUILTINS),
}
"""Classes whose objects are read as dictionaries."""

SEQUENCES = {
    "collections.deque",
    "torch.Size",
    *(f"{module}.{name}" for module in _BUILTINS for name in ("frozenset", "list", "set", "tuple")),
}
"""Classes whose objects are read as sequences."""

DTYPE = "numpy.dtype"

_VALUES = {
    *(
        f"{module}.{name}"
        for module in _BUILTINS
        for name in ("bool", "bytearray", "bytes", "complex", "float", "int", "object", "str")
    ),
    *(f"{module}.{name}" for module in _BUILTINS for name in ("range", "slice")),
    *(f"__builtin__.{name}" for name in ("long", "unicode", "xrange")),  # as Python 2 had them
    *(f"datetime.{name}" for name in ("date", "datetime", "time", "timedelta", "timezone")),
    *(
        f"{module}.{system}Path"
        for module in ("pathlib", "pathlib._local")
        for system in ("", "Posix", "PurePosix", "PureWindows", "Pure", "Windows")
    ),
    "_codecs.encode",
    "argparse.Namespace",
    "decimal.Decimal",
    "fractions.Fraction",
    "types.SimpleNamespace",
    "uuid.UUID",
    "zoneinfo.ZoneInfo._unpickle",
}
"""Python's own classes of plain values."""

_RECONSTRUCTORS = {f"{module}._reconstructor" for module in ("copyreg", "copy_reg")}
"""How old protocols write an object of one of these classes."""

_NUMPY = {
    DTYPE,
    "numpy.ndarray",
    *(f"numpy.{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
    *(f"numpy.{name}" for name in ("bool", "bool_", "float16", "float32", "float64", "str_")),
    *(f"{core}.multiarray.scalar" for core in _NUMPY_CORE),
    *(f"{core}.multiarray._reconstruct" for core in _NUMPY_CORE),
    *(f"{core}.numeric._frombuffer" for core in _NUMPY_CORE),
}
"""Numpy's numbers and arrays of numbers."""

_TORCH = {
    *(f"torch.{name}" for name in ITEM_BYTES),
    *(f"torch.{name}" for name in ("channels_last", "contiguous_format", "preserve_format")),
    "torch.device",
    "torch.serialization._get_layout",
    "torch.torch_version.TorchVersion",
}
"""PyTorch's own plain values."""

DATA = frozenset(
    {
        *STORAGE_TYPES,
        *TENSORS,
        *PARAMETERS,
        *DICTIONARIES,
        *SEQUENCES,
        *_VALUES,
        *_RECONSTRUCTORS,
        *_NUMPY,
        *_TORCH,
    }
)
"""Every name that stands for data."""
