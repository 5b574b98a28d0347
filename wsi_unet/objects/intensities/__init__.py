"""Values of pixels, from the slide and the stored probabilities, summed over objects."""
