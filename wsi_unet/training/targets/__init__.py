"""What a network is trained to predict: ground truth files read as labels and weights."""
