"""One block from start to end, as a Dask worker computes it."""
