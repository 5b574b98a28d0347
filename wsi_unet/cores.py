"""The CPU cores that a process may use, which are often fewer than the machine has."""

from __future__ import annotations


def usable_cores() -> int:
    """Count the cores that this process may use: its affinity, within the container's quota."""
    from dask.system import cpu_count  # loads all of dask, which takes a while

    return int(cpu_count())
