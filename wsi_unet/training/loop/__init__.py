"""Learning: batches, losses, optimisers, iterations, and measuring what was learnt."""
