"""Data sets: names, images, sample ids, labels."""
