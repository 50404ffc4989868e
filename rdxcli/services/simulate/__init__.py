"""``rdx simulate``: how well explanations predict the units they explain."""
