"""What vision models have learned, and how two of them differ."""

__version__ = "0.1.0"
