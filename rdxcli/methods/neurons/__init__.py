"""What single neurons respond to, and how well an explanation predicts them."""
