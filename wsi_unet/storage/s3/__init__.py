"""S3 buckets, and others with the same protocol; used by slides and outputs."""
