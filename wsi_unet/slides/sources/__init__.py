"""The bytes of slide files and folders, on a disk or in an object store."""
