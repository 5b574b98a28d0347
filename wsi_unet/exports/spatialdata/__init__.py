"""Results as SpatialData: labels, image, shapes and tables in one Zarr folder."""
