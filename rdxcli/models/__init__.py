"""Models: names, weights, layers, preprocessing."""
