"""Tissue masks: found on an overview of the slide, or loaded from images or outlines."""
