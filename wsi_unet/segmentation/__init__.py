"""Segmenting slides: planning, one block from start to end, blocks onto Dask, runs of slides."""
