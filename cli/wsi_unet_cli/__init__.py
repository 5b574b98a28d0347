"""The command line of wsi-unet: parse, call the package, show the result. No logic of its own."""
