"""Slides: opening them, reading them at any pixel size, and finding their tissue.

Names load when first used: readers bring heavy libraries along.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
