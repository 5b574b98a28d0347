"""The readers of slide formats, one for each library that reads slides."""
