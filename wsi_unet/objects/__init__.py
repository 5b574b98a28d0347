"""Objects: the components of labels, each once, with an identity, measured, in a table."""
