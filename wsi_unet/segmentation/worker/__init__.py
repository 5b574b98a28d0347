"""Computing one block from start to end, as a Dask worker does."""
