"""Training: recipes, data, samples, losses, the loop.

Names load when first used, so that reading a recipe doesn't wait for torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
