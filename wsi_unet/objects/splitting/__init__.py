"""Splitting components by the distance to their edge: sheets, distances, seeds, flooding."""
