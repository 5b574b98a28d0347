"""Exact, resumable U-Net segmentation of whole slides into pyramidal OME-Zarr.

    >>> import wsi_unet
    >>> report = wsi_unet.segment("slide.svs", model="nuclei-he")  # doctest: +SKIP
    >>> labels = wsi_unet.open_labels(report.output)               # doctest: +SKIP

The public names live here and load when first used, so that importing the package costs next to
nothing and torch is imported only to run a model. `__init__.pyi` says where each comes from.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
