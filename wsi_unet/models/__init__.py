"""Models: architectures, networks, weights on disk, inference, probing and importing.

Names load when first used, so that what needs no torch (help, info, a model's spec) doesn't wait
for it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
