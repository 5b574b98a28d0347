"""`wsi-unet model`."""
