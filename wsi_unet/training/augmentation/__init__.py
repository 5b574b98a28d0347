"""Samples: where they are drawn, how they are warped and recoloured, and their pixels' weights."""
