"""Network architectures as data, and what follows from them without torch: border and cost."""
