"""Readers of slide formats: one module per library."""
