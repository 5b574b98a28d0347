"""Dispatching blocks to a Dask cluster, and following what becomes of them."""
