from .description import Portion as Portion
from .description import describe_fields as describe_fields
from .field import DataField as DataField
from .opening import open_fields as open_fields
from .splitting import Parts as Parts
from .splitting import split as split

__all__ = [
    "DataField",
    "Parts",
    "Portion",
    "describe_fields",
    "open_fields",
    "split",
]
