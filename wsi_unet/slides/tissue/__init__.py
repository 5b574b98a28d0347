"""Tissue masks: found on an overview of the slide, or given as images or outlines."""
