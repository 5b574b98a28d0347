"""Measuring what a network's output depends on, and verifying a model's spec by that."""
