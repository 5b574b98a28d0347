"""Bytes by key, on a disk or in a bucket, and the lock on an output."""
