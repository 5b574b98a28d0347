"""The plan of a run: what it will do and what it costs, worked out before anything is written."""
