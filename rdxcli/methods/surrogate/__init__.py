"""Concept surrogates of vision-language embeddings."""
