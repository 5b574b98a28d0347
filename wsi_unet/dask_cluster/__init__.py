"""The Dask cluster that computes: this process, worker processes of its own, or an existing one."""
