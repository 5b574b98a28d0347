"""Network shapes as data, the networks themselves, and what follows from a shape: border, cost."""
