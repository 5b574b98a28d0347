"""What a run will do and what it costs, decided before any pixel is written."""
