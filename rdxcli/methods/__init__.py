"""The mathematics. Arrays in, result records out; no files, no printing."""
