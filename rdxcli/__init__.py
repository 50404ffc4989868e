"""What vision models have learned, and how two of them differ."""

__version__ = "0.1.0"

SCHEMA_VERSION = 1
"""Of documents and manifests; raised when a reader of older ones would misread them."""
