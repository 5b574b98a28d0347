"""`wsi-unet train`."""
