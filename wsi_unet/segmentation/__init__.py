"""Segmenting slides: planning, computing blocks, dispatching them to Dask, runs of slides."""
