"""What a training writes: the model's folder, card, journal, pictures, and its state."""
