"""The lock on an output, which keeps two runs from writing to it at the same time."""
