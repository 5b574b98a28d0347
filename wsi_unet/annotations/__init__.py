"""Annotations: polygons with class names that people draw on slides, and rasterising them."""
