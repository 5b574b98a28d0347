"""Object stores: S3 and what speaks like it. Below slides and outputs, which both use it."""
