"""Annotations and label images on the pixel grid of a prediction."""
