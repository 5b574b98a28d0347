"""Measuring what a network's output depends on: of any network, or to check a model's spec."""
