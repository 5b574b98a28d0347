"""Training a network: recipes, samples, losses, the loop."""
