"""Blocks sent to a Dask cluster and what comes back, for one slide or many."""
