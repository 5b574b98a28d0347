"""Measuring regions: the areas and the objects of each class inside outlines that people draw."""
