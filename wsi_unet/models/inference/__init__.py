"""Running models on a device: precision, tiles, heads, test-time augmentation, ensembles."""
