"""Ground truth on the pixel grid of a prediction, for evaluation and training.

A truth is a label image (OME-Zarr, PNG, TIFF) or annotations; both are read box by box.
"""
