"""`wsi-unet segment`."""
