"""Dictionaries: sparse autoencoders of activations, learned here or published."""
