from .description import Portion as Portion
from .description import describe_fields as describe_fields
from .field import DataField as DataField
from .opening import open_fields as open_fields
from .splitting import FieldSplit as FieldSplit
from .splitting import split_fields as split_fields

__all__ = [
    "DataField",
    "FieldSplit",
    "Portion",
    "describe_fields",
    "open_fields",
    "split_fields",
]
