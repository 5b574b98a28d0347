"""The output: a pyramidal OME-Zarr of labels, probabilities and image, and its progress."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
