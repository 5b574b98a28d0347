"""The training loop: batches, losses, optimisers, iterations, and the scores of held-out fields."""
