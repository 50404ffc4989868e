"""Everything that yields a concept matrix: labels, word scores, sets, masks, captions, encodings, image-text models."""
