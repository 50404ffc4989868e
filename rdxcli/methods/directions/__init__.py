"""Directions of feature space that carry concepts."""
