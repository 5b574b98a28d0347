"""Running a model on a device: precision, tiles, heads, augmentation, ensembles."""
