"""Checkpoints from elsewhere: read safely, recognised, made into models."""
