"""Planning and running: one block from start to end, blocks onto Dask, slides from start to end."""
