"""Concept surrogates of vision-language embeddings: captions to concepts, training, concept scores, SpLiCE."""
