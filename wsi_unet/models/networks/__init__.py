"""The networks: one file each, beside `architectures`, which describes them without torch."""
