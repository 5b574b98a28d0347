"""Blocks handed to a Dask cluster, and what becomes of them."""
