from .reading import open_labels as open_labels
from .reading import open_probabilities as open_probabilities

__all__ = [
    "open_labels",
    "open_probabilities",
]
