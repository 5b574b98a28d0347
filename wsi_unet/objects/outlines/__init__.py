"""Outlines of objects: rings along the edges of pixels, polygons as arrays and WKB, hulls."""
