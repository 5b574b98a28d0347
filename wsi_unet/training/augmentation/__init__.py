"""Samples: where they are taken, how they are warped, recoloured and weighed."""
