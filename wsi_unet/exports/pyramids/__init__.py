"""Results as tiled pyramids of other programs: OME-TIFF, and OME-Zarr 0.4."""
