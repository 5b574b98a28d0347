"""The Dask cluster a run uses: its own worker processes, or somebody's."""
