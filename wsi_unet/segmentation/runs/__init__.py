"""The runs of slides: prepared, laid out, carried out block by block, finished; one or many."""
