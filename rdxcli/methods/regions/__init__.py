"""Regions of feature space that carry concepts: relaxed decision regions."""
