"""Evaluation: a prediction compared with its ground truth, pixel by pixel and object by object."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
