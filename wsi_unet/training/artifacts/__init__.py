"""The files that a training writes: the model card, the journal, pictures and the saved state."""
