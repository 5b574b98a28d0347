"""Painting stored objects: from the outlines in their table to numbers in any box of pixels."""
